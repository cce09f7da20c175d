"""The answers of a validation as Markdown: how many are of each kind, and a few of each with the reason.

Every text of a model or of the data stands in an indented block: unlike a fenced one, no text inside can end it.
"""

from collections.abc import Callable, Iterator, Sequence

from lightning_modules.evaluation.think_scores import AnsweredRow
from visible import visible

LONGEST = 2_000  # characters of a text that are shown; of a longer one its begin and its end
PASSAGE = 80  # characters of a repeated text in the reason

KINDS: dict[str, Callable[[AnsweredRow], bool]] = {
    "right": lambda row: row.matches,
    "wrong": lambda row: row.written.finished and not row.matches,
    "cut off": lambda row: row.failures.cut,
    "caught in a loop": lambda row: row.failures.looped,
    "malformed": lambda row: row.failures.malformed,
    "contradicted": lambda row: row.failures.contradicted,
}  # right, wrong and cut off are all rows; the others are among them


def samples_of(answered: Sequence[AnsweredRow], step: int, number: int) -> str:
    """Return the part of samples.md for one validation: the first rows, which are the same each time, and up to
    `number` further rows of each kind."""
    counts = {kind: sum(map(belongs, answered)) for kind, belongs in KINDS.items()}
    lines = [f"## Step {step}", f"{len(answered):,} questions: {_listed(counts)}."]
    shown = list(answered[:number])
    if shown:
        lines.append("### The first rows, the same at each validation")
    for row in shown:
        lines += _sample(row)
    for kind, belongs in KINDS.items():
        mine = [row for row in answered if belongs(row)]
        above = [row.row for row in shown if belongs(row)]
        more = [row for row in mine if row.row not in above][:number]
        if not mine or not number:
            continue
        also = f" (above: {', '.join(f'row {row}' for row in above)})" if above else ""
        lines.append(f"### {kind.capitalize()}: {len(mine):,} of {len(answered):,}{also}")
        for row in more:
            lines += _sample(row)
        shown += more
    return "\n\n".join(lines) + "\n\n"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items())


def _sample(row: AnsweredRow) -> Iterator[str]:
    """Yield a title and each text under its name. A title has all kinds of the row."""
    yield f"#### Row {row.row} ({', '.join(kind for kind, belongs in KINDS.items() if belongs(row))})"
    texts = {"Given": row.prompt, "Written": row.written.text, "Reference": row.reference.text}
    for title, text in (texts | {"Why": "\n".join(_reasons(row))}).items():
        yield f"{title}:"
        yield _block(text)


def _reasons(row: AnsweredRow) -> Iterator[str]:
    """Yield why a row is of its kinds, a line each."""
    written, failures, verdict = row.written, row.failures, row.verdict
    if written.finished:
        said = f"{_quoted(verdict.written)} beside {_quoted(verdict.reference)}, by the rung: {verdict.rung}"
        yield f"{'right' if verdict.right else 'wrong'}: {said}"
    else:
        where = "after its thoughts" if written.thoughts else "without a thought"
        where = "inside a thought" if failures.cut_in_thought else where
        length = f" at {written.tokens:,} tokens" if written.tokens else ""
        yield f"cut off{length}, {where}"
    if loop := failures.loop:
        place = f"from character {loop.start + 1:,} of {loop.part} on"
        yield f"caught in a loop {place}: {loop.times:,} times {_quoted(loop.repeated)}"
    elif failures.looped:
        yield "caught in a loop: the control of thinking ended it (loop_tokens)"
    if failures.malformed:
        yield f"malformed: {_fault(row)}"
    if failures.conclusion is not None:
        word = "contradicted" if failures.contradicted else "agreed"
        yield f"{word}: the thoughts name {_quoted(failures.conclusion.named)}"


def _fault(row: AnsweredRow) -> str:
    """What is not well-formed in a response that ended."""
    written = row.written
    if not written.text.strip():
        return "the response is empty"
    if written.in_thought:
        return "a thought is not closed"
    if not written.balanced:
        return "a tag has no partner, or text stands before a thought"
    if not written.thoughts:
        return "there is no thought"
    return "there is no answer" if not written.answer.strip() else "a thought is empty"


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return f"“{line if len(line) <= PASSAGE else line[: PASSAGE - 1] + '…'}”"


def _block(text: str) -> str:
    """Return an indented block of Markdown."""
    return "\n".join("    " + line for line in visible(shortened(text), lines=True).split("\n"))


def shortened(text: str) -> str:
    """Return a text without its middle if it is long; a mark has the number of characters that are left out."""
    left_out = len(text) - LONGEST
    if left_out <= 0:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[… {left_out:,} characters …]\n{text[-half:]}"
