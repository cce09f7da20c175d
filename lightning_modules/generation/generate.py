"""From a prompt to thoughts and an answer: the same for validation, `generate` and, by its settings, the export."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError

if TYPE_CHECKING:
    from transformers import GenerationConfig

    from lightning_modules.net.think_net import ThinkNet


@dataclass
class DecodingSettings:
    """How an answer is written."""

    max_new_tokens: int = 512
    """Tokens after which an answer is cut off, unfinished."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; above it tokens are drawn, the flatter the higher."""
    top_p: float = 1.0
    """Draw from the likeliest tokens that together have this probability."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(
                "max_new_tokens", self.max_new_tokens, "is below 1", "give the most tokens an answer may have"
            )
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                "temperature, top_p",
                (self.temperature, self.top_p),
                "is out of range",
                "give temperature 0 or more and top_p above 0, at most 1",
            )


@dataclass(frozen=True)
class Generation:
    """What was written after a prompt, read from its ids: a tag that is spelled out in pieces is not a tag."""

    text: str
    thoughts: tuple[str, ...]
    answer: str  # after the last closing tag; the whole text where there is none
    finished: bool  # ended by itself, not by the limit
    balanced: bool  # every tag has its partner, and no text stands between the blocks or before them

    @property
    def well_formed(self) -> bool:
        """One or more thoughts, none empty, then an answer, then the end."""
        return (
            self.finished
            and self.balanced
            and bool(self.thoughts)
            and all(t.strip() for t in self.thoughts)
            and bool(self.answer.strip())
        )

    def as_json(self, prompt: str) -> dict[str, Any]:
        """What `generate --jsonl` prints."""
        return {
            "prompt": prompt,
            "thoughts": [t.strip() for t in self.thoughts],
            "answer": self.answer.strip(),
            "finished": self.finished,
        }


def read_ids(ids: Sequence[int], tokenizer: ThinkTokenizer, end_ids: Sequence[int]) -> Generation:
    """The Generation in these ids, which may go on after an end id."""
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
    return Generation(tokenizer.decode(written), tuple(thoughts), answer, finished, balanced and opened < 0)


def generation_config(
    tokenizer: ThinkTokenizer, vocabulary: int, base: "GenerationConfig | None", settings: DecodingSettings
) -> "GenerationConfig":
    """The one place that says how this model writes, for `generate` here and for the exported folder alike.

    Built anew: a base's own may sample or penalise repetition. Ids beyond the tokenizer have rows that nothing was ever
    trained on, so they are never to be sampled. Whatever ended the base's texts ends these, too.
    """
    from transformers import GenerationConfig

    ends = getattr(base, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
    sampling: dict[str, Any] = {"do_sample": False}
    if settings.temperature > 0:
        sampling = {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=sorted({tokenizer.end_id, *ends}),
        pad_token_id=tokenizer.end_id,
        use_cache=True,
        suppress_tokens=list(range(len(tokenizer), vocabulary)) or None,
        **sampling,
    )


@torch.no_grad()
def generate(
    net: "ThinkNet",
    tokenizer: ThinkTokenizer,
    prompts: Sequence[Sequence[int]],
    config: "GenerationConfig",
    cancelled: Callable[[], bool] = lambda: False,
    **more: Any,
) -> list[Generation]:
    """A Generation for each prompt (ids, with nothing after them), all in one batch, padded on the left.

    `cancelled` is asked at every token; from then on nothing more is written.
    """
    device = next(net.parameters()).device
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), tokenizer.end_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(list(prompt))
        attention_mask[row, width - len(prompt) :] = 1
    training = net.training
    net.eval()
    try:
        written = net.generate(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            generation_config=config,
            stopping_criteria=[lambda ids, scores: torch.full((len(ids),), cancelled(), device=ids.device)],
            **more,
        )
    finally:
        net.train(training)
    return [read_ids(ids, tokenizer, config.eos_token_id) for ids in written[:, width:].tolist()]
