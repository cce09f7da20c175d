"""The model card of an exported folder."""

from pathlib import Path
from textwrap import fill

from lightning_modules.evaluation.statistics import wilson
from lightning_modules.evaluation.summary import label, ordered, shown
from lightning_modules.export.card_facts import Card
from lightning_modules.export.card_use import use
from lightning_modules.export.hub_metadata import hub_metadata

RANKS = {"tag_rank_open": "opening tag: rank", "tag_rank_close": "closing tag: rank"}


def card_text(card: Card, kind: str, grown: int | None = None) -> str:
    """Return the card of a merged model or of an adapter.

    `grown` is the vocabulary size that an adapter needs, if its base has a smaller one.
    """
    base = card.hub_base or Path(card.base).name
    revision = f" at {card.revision}" if card.revision else ""
    dtype = f" in {card.dtype}" if card.dtype else ""
    blocks = f"{card.tags.open}…{card.tags.close}"
    template = (
        "The chat template renders a conversation as in training. It takes content as a list of texts and earlier "
        f"answers with their `{blocks}` blocks, and marks answers for `return_assistant_tokens_mask`. {card.system} "
        "A control token that a user types, such as the end token, is read as that token."
    )
    return f"""---
{hub_metadata(card, kind).strip()}
---

# {card.name}

{base}{revision}, trained to think in `{blocks}` blocks before it answers: {kind} weights{dtype} of
`{card.checkpoint.name}`. An answer may have several blocks, one for each step.
{_notes(card, kind, grown)}
{use(card, kind, grown)}
## Chat template

{fill(template, 120)}

Token ids beyond the tokenizer were never trained, and `generation_config.json` suppresses them; an engine that does not
read this file must mask them itself.

## Results

{_results(card)}## Not tested

{_not_tested(card)}"""


def _notes(card: Card, kind: str, grown: int | None) -> str:
    """Return what a user of this folder has to know beside the usual, a paragraph for each."""
    notes = ""
    if card.parents:
        names = ", before that with those of ".join(f"`{one.name()}`" for one in card.parents)
        notes += f"\nThe training did not begin with the base itself, but with the weights of {names}.\n"
    if card.hub_base is None:
        notes += "\nThe base was a folder on the machine of the training, so this card names no model of the hub.\n"
    if not card.license:
        notes += "\nThe card of the base names no license. The license of the base holds for these weights as well.\n"
    if card.quantize:
        there = "It was merged into" if kind == "merged" else "This folder names"
        notes += f"""
The adapter was trained against the base in 4 bits a weight ({card.quantize}). {there} the base in full precision.
There the answers are nearly the same, not exactly.
"""
    return notes


def _results(card: Card) -> str:
    """The figures of `evaluate`, and those of the validation."""
    text = ""
    if card.evaluations:
        rows = ""
        for one in card.evaluations:
            right = f"{100 * one.right:.1f} % ({one.interval.percent()})"
            well_formed = f"{100 * one.well_formed:.1f} %"
            rows += f"| {one.asked.name} | {one.questions:,} | {one.how} | {right} | {well_formed} |\n"
        text += (
            "Of `evaluate`, which asks the model and judges its answers, with 95 % intervals:\n\n"
            "| task | questions | asked | right answers | well-formed thinking |\n|---|---|---|---|---|\n" + rows + "\n"
        )
    figures = card.figures
    if lines := [
        f"| {RANKS.get(name) or label(name, figures).strip()} | {shown(name, figures[name])} |\n"
        for name in ordered(set(figures))
    ]:
        asked = int(figures.get("answered", 0))
        if asked and "answer_match" in figures:
            interval = wilson(round(figures["answer_match"] * asked), asked).percent()
            text += f"On held-out rows after training, {asked:,} of them answered (right: {interval}):\n\n"
        else:
            text += "On held-out rows after training:\n\n"
        text += "| | |\n|---|---|\n" + "".join(lines) + "\n"
    return text or "No figure was measured.\n\n"


def _not_tested(card: Card) -> str:
    length = f"longer than {card.max_length:,} tokens, the longest in training" if card.max_length else "of any length"
    return f"""The figures above are all that was measured. Not tested were, among others:

- Subjects, languages and kinds of tasks other than those of the data.
- Prompts and answers {length}.
- Conversations of several turns, unless the data has them.
- Tools, function calls, images, and formats of output such as JSON.
- Whether the thoughts are the cause of the answer. They may be wrong where the answer is right.
- Facts, safety and bias: no training against harmful requests was done, and that of the base may be weaker now.

Do not use it where a wrong answer does harm.
"""
