"""A response, parsed from its token ids into thoughts and an answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.token_choice import Written


@dataclass(frozen=True)
class ThinkResponse:
    """A response with its thoughts and its answer. Only the tags' own ids are tags; text that spells a tag is not."""

    text: str
    thoughts: tuple[str, ...]
    answer: str  # the text after the last closing tag; all text if there is none
    finished: bool  # ended with an end token, not by the length limit
    balanced: bool  # every tag has its partner, and there is no text before or between the thoughts
    tokens: int = 0  # of the response, with tags and the end token
    # Floats differ in their last digits with the size of a batch
    confidence: float | None = field(default=None, compare=False)  # mean log-probability of the model's own tokens

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

    def as_json(self, prompt: str) -> dict[str, Any]:
        """Return the object that `generate --jsonl` prints."""
        return {
            "prompt": prompt,
            "thoughts": [t.strip() for t in self.thoughts],
            "answer": self.answer.strip(),
            "finished": self.finished,
        }


def respond(written: Written, tokenizer: ThinkTokenizer, end_ids: Sequence[int]) -> ThinkResponse:
    """Return the response in what was written."""
    return replace(parse_response(written.ids, tokenizer, end_ids), confidence=written.confidence)


def parse_response(ids: Sequence[int], tokenizer: ThinkTokenizer, end_ids: Sequence[int]) -> ThinkResponse:
    """Return the response in these ids. Ids after the first end id are padding."""
    end = next((i for i, token in enumerate(ids) if token in end_ids), len(ids))
    written, finished = list(ids[:end]), end < len(ids)
    thoughts: list[str] = []
    balanced, opened, after = True, -1, 0  # position of the open tag, or -1; position after the last closing tag
    for i, token in enumerate(written):
        if token == tokenizer.open_id:
            balanced &= opened < 0 and not tokenizer.decode(written[after:i]).strip()
            opened = i
        elif token == tokenizer.close_id:
            balanced &= opened >= 0
            if opened >= 0:
                thoughts.append(tokenizer.decode(written[opened + 1 : i]))
            opened, after = -1, i + 1
    answer = tokenizer.decode(written[after:])
    return ThinkResponse(
        tokenizer.decode(written), tuple(thoughts), answer, finished, balanced and opened < 0, len(written) + finished
    )
