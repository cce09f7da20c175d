"""How responses are decoded: the settings, and the ids that they are about."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.thinking_rules import ThinkingRules
from lightning_modules.generation.thinking_settings import ThinkingSettings, check_thinking

if TYPE_CHECKING:
    from transformers import GenerationConfig


@dataclass
class DecodingSettings(ThinkingSettings):
    """How responses are generated."""

    max_new_tokens: int = 512
    """Most tokens of a response; a longer one is cut off and counts as unfinished. Default 512. Set it to the length of
    the longest responses that you train on."""
    temperature: float = 0.0
    """Temperature of sampling. Default 0: the likeliest token each time. A higher value gives more varied responses."""
    top_p: float = 1.0
    """Sample only from the likeliest tokens that together have this probability. Default 1, all tokens. Has no effect
    with temperature 0."""

    def check(self, tokenizer: ThinkTokenizer | None = None, group: str = "") -> None:
        """Raise UserError as `check_thinking`."""
        check_thinking(self, self.max_new_tokens, tokenizer, group)


@dataclass(frozen=True)
class Decoding:
    """The settings with the ids of a model and its tokenizer."""

    settings: DecodingSettings
    end_ids: tuple[int, ...]  # each of them ends a response
    known_ids: int  # ids from here on are beyond the tokenizer: untrained, and never written
    tag_ids: tuple[int, int] = (-1, -1)  # that open and close a thought
    rules: ThinkingRules | None = field(default=None, compare=False)  # of thinking; None if no control is on
    confidence: bool = False  # compute the confidence of responses, which costs a sum over all logits

    @classmethod
    def of(
        cls,
        tokenizer: ThinkTokenizer,
        base: "GenerationConfig | None",
        settings: DecodingSettings,
        confidence: bool = False,
    ) -> "Decoding":
        """`base` is the generation config of the base: only its end tokens are kept."""
        ends = end_ids(tokenizer, base)
        rules = ThinkingRules.of(tokenizer, settings, ends) if settings.controlled else None
        return cls(settings, ends, len(tokenizer), (tokenizer.open_id, tokenizer.close_id), rules, confidence)

    def opens(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt ends within a thought."""
        opening, closing = self.tag_ids
        return opening in prompt and next(i for i in reversed(prompt) if i in (opening, closing)) == opening


def end_ids(tokenizer: ThinkTokenizer, base: "GenerationConfig | None") -> tuple[int, ...]:
    """Return the ids that end a response: the tokenizer's, and those in the base's generation config."""
    ends = getattr(base, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
    return tuple(sorted({tokenizer.end_id, *ends}))


def generation_config(
    tokenizer: ThinkTokenizer, vocabulary: int, base: "GenerationConfig | None", settings: DecodingSettings
) -> "GenerationConfig":
    """Return the settings as transformers' generation config, for the exported folder.

    The base's own config may sample or penalize repetition, so only its end tokens are kept. Ids beyond the tokenizer
    have untrained embeddings and are suppressed.
    """
    from transformers import GenerationConfig

    sampling: dict[str, Any] = {"do_sample": False}
    if settings.temperature > 0:
        sampling = {"do_sample": True, "temperature": settings.temperature, "top_k": 0, "top_p": settings.top_p}
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=list(end_ids(tokenizer, base)),
        pad_token_id=tokenizer.end_id,
        use_cache=True,
        suppress_tokens=list(range(len(tokenizer), vocabulary)) or None,
        **sampling,
    )
