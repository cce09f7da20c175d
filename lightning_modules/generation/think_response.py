"""A response, parsed from its token ids into thoughts and an answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.token_choice import Written

FORCED = "⟦{}⟧"  # around what the control of thinking wrote, in `raw`


@dataclass(frozen=True)
class ThinkResponse:
    """A response with its thoughts and its answer. Only the tags' own ids are tags; text that spells a tag is not."""

    text: str
    thoughts: tuple[str, ...]
    answer: str  # the text after the last closing tag; all text if there is none
    finished: bool  # ended with an end token, not by the length limit
    balanced: bool  # every tag has its partner, and there is no text before or between the thoughts
    tokens: int = 0  # of the response, with tags and the end token
    thinking_tokens: int = 0  # of the thoughts, without tags
    raw: str = ""  # the text with the end token, and ⟦marks⟧ around what was forced
    forced: int = 0  # tokens that the control of thinking wrote
    cut: str | None = None  # why thinking was cut: budget, limit or loop
    in_thought: bool = False  # it ended inside of a thought: the last opening tag has no partner
    # Floats differ in their last digits with the size of a batch
    masked: float | None = field(default=None, compare=False)  # probability that masks took away
    confidence: float | None = field(default=None, compare=False)  # mean log-probability of the model's own tokens
    ids: tuple[int, ...] = field(default=(), compare=False, repr=False)  # of all tokens, with tags and the end token

    @property
    def well_formed(self) -> bool:
        """Whether it is one or more thoughts, none empty, then an answer, then an end token."""
        return (
            self.finished
            and self.balanced
            and bool(self.thoughts)
            and all(t.strip() for t in self.thoughts)
            and bool(self.answer.strip())
        )

    @property
    def ended_by(self) -> str:
        """What ended the thinking, if it was cut: budget, limit or loop. Else what ended the response: end or limit."""
        return self.cut or ("end" if self.finished else "limit")

    def as_json(self, prompt: str) -> dict[str, Any]:
        """Return the object that `generate --jsonl` prints."""
        known = {
            "prompt": prompt,
            "thoughts": [t.strip() for t in self.thoughts],
            "answer": self.answer.strip(),
            "finished": self.finished,
            "well_formed": self.well_formed,
            "ended_by": self.ended_by,
            "tokens": self.tokens,
            "thinking_tokens": self.thinking_tokens,
            "forced_tokens": self.forced,
            "raw": self.raw,
        }
        more = {"masked": self.masked, "confidence": self.confidence}
        return known | {name: round(value, 6) for name, value in more.items() if value is not None}


def respond(written: Written, tokenizer: ThinkTokenizer, end_ids: Sequence[int]) -> ThinkResponse:
    """Return the response in what was written."""
    response = parse_response(written.ids, tokenizer, end_ids, written.opened)
    forced = [*written.forced, *[False] * (len(written.ids) - len(written.forced))]
    spans = groupby(zip(forced, written.ids, strict=True), lambda pair: pair[0])
    texts = [(by_force, tokenizer.decode([i for _, i in span])) for by_force, span in spans]
    return replace(
        response,
        raw="".join(FORCED.format(text) if by_force else text for by_force, text in texts),
        forced=sum(forced),
        cut=written.cut,
        masked=written.masked,
        confidence=written.confidence,
        ids=tuple(written.ids),
    )


def parse_response(
    ids: Sequence[int], tokenizer: ThinkTokenizer, end_ids: Sequence[int], opened: bool = False
) -> ThinkResponse:
    """Return the response in these ids. Ids after the first end id are padding. `opened` if the prompt ended within a
    thought."""
    end = next((i for i, token in enumerate(ids) if token in end_ids), len(ids))
    written, finished = list(ids[:end]), end < len(ids)
    thoughts: list[str] = []
    start: int | None = 0 if opened else None  # position after the open tag
    balanced, after, thinking = True, 0, 0  # `after`: position after the last closing tag
    for i, token in enumerate(written):
        if token == tokenizer.open_id:
            balanced &= start is None and not tokenizer.decode(written[after:i]).strip()
            start = i + 1
        elif token == tokenizer.close_id:
            balanced &= start is not None
            if start is not None:
                thoughts.append(tokenizer.decode(written[start:i]))
                thinking += i - start
            start, after = None, i + 1
    if start is not None:
        thinking += len(written) - start
    return ThinkResponse(
        tokenizer.decode(written),
        tuple(thoughts),
        tokenizer.decode(written[after:]),
        finished,
        balanced and start is None,
        len(written) + finished,
        thinking,
        tokenizer.decode(ids[: end + 1]),
        in_thought=start is not None,
    )
