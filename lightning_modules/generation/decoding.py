"""How responses are decoded: the settings, and the ids that they are about."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datamodules.tokens.tokenizer import ThinkTokenizer

if TYPE_CHECKING:
    from transformers import GenerationConfig


@dataclass
class DecodingSettings:
    """How responses are generated."""

    max_new_tokens: int = 512
    """Most tokens of a response; a longer one is cut off and counts as unfinished. Default 512. Set it to the length of
    the longest responses that you train on."""
    temperature: float = 0.0
    """Temperature of sampling. Default 0: the likeliest token each time. A higher value gives more varied responses."""
    top_p: float = 1.0
    """Sample only from the likeliest tokens that together have this probability. Default 1, all tokens. Has no effect
    with temperature 0."""


@dataclass(frozen=True)
class Decoding:
    """The settings with the ids of a model and its tokenizer."""

    settings: DecodingSettings
    end_ids: tuple[int, ...]  # each of them ends a response
    known_ids: int  # ids from here on are beyond the tokenizer: untrained, and never written

    @classmethod
    def of(cls, tokenizer: ThinkTokenizer, base: "GenerationConfig | None", settings: DecodingSettings) -> "Decoding":
        """`base` is the generation config of the base: only its end tokens are kept."""
        return cls(settings, end_ids(tokenizer, base), len(tokenizer))


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
