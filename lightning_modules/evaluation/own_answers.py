"""Which of a model's own answers it should learn from: rejection sampling, as in RFT (arXiv 2308.01825).

In: several judged answers to each question. Out: the answers to train on, and for the others a count of each reason.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xxhash import xxh3_64_intdigest


class OwnAnswer(NamedTuple):
    """An answer of the model to a question, judged."""

    question: str  # its id
    text: str  # with its think tags
    tokens: int
    right: bool
    well_formed: bool


@dataclass
class SelectionSettings:
    """Which of a run's own answers become training rows."""

    keep: int = 2
    """Most answers of a question that are kept: the shortest right ones. Default 2. More of them teach more ways to the
    same answer; long ones teach long thinking."""
    easy: float = 0.25
    """Ratio of the questions with only right answers that stay. Default 0.25. The run can answer them already, so they
    teach little. 1 keeps all."""


class Selection(NamedTuple):
    """The chosen answers, question by question, and what became of all others."""

    chosen: list[OwnAnswer]
    counts: dict[str, int]


def select(
    questions: Mapping[str, Sequence[OwnAnswer]],
    settings: SelectionSettings,
    reads_back: Callable[[str], bool] = lambda text: True,
) -> Selection:
    """Return the answers to learn from. The result depends on the answers alone, not on their order.

    questions:  {id: its answers}
    reads_back: whether the data pipeline reads a text back as the thoughts and the answer that were judged; a text may
                spell a tag
    """
    chosen: list[OwnAnswer] = []
    counts: Counter[str] = Counter(questions=len(questions), answers=sum(map(len, questions.values())))
    for question, answers in questions.items():
        right = [one for one in answers if one.right and one.well_formed]
        counts["wrong"] += sum(not one.right for one in answers)
        counts["not well-formed"] += sum(one.right and not one.well_formed for one in answers)
        if not right:
            counts["questions without a right answer"] += 1
            continue
        if len(right) == len(answers) and not _stays(question, settings.easy):
            counts["questions with only right answers that were left out"] += 1
            counts["of such questions"] += len(answers)
            continue
        readable = [one for one in right if reads_back(one.text)]
        counts["not read back"] += len(right) - len(readable)
        different = list(_different(sorted(readable, key=lambda one: (one.tokens, one.text))))
        counts["the same text again"] += len(readable) - len(different)
        counts["longer than those kept"] += max(0, len(different) - settings.keep)
        chosen += different[: settings.keep]
    counts["chosen"] = len(chosen)
    return Selection(chosen, dict(counts))


def _different(answers: Iterable[OwnAnswer]) -> Iterable[OwnAnswer]:
    """The answers, each text once: texts that differ in white space only are the same."""
    seen: set[str] = set()
    for one in answers:
        if (text := " ".join(one.text.split())) not in seen:
            seen.add(text)
            yield one


def _stays(question: str, ratio: float) -> bool:
    """Whether a question stays: the same ones in each round, and more of them with a higher ratio."""
    return xxh3_64_intdigest(question.encode("utf-8", "surrogatepass")) < ratio * 2**64
