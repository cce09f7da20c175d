"""Generation: from prompts to responses. Validation, `generate` and the exported model share its settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.think_response import ThinkResponse, parse_response

if TYPE_CHECKING:
    from transformers import GenerationConfig

    from lightning_modules.net.think_net import ThinkNet


@dataclass
class DecodingSettings:
    """How responses are generated."""

    max_new_tokens: int = 512
    """Most tokens of a response; a longer one is cut off and counts as unfinished. Default 512. Set it to the length of
    the longest responses that you train on."""
    temperature: float = 0.0
    """Temperature of sampling. Default 0: the likeliest token each time. A higher value gives more varied responses."""


@dataclass
class SamplingSettings(DecodingSettings):
    """How `generate` answers prompts."""

    top_p: float = 1.0
    """Sample only from the likeliest tokens that together have this probability. Default 1, all tokens. Has no effect
    with temperature 0."""


def generation_config(
    tokenizer: ThinkTokenizer, vocabulary: int, base: "GenerationConfig | None", settings: DecodingSettings
) -> "GenerationConfig":
    """Return the generation config of the trained model, for generation here and in the exported folder.

    The base's own config may sample or penalize repetition, so only its end tokens are kept. Ids beyond the tokenizer
    have untrained embeddings and are suppressed.
    """
    from transformers import GenerationConfig

    ends = getattr(base, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
    sampling: dict[str, Any] = {"do_sample": False}
    if settings.temperature > 0:
        sampling = {"do_sample": True, "temperature": settings.temperature, "top_k": 0}
        if isinstance(settings, SamplingSettings):
            sampling["top_p"] = settings.top_p
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
) -> list[ThinkResponse]:
    """Return a response for each prompt (ids without padding). All are one batch, padded on the left.

    Generation asks `cancelled` after each token and stops when it returns True. `more` goes to transformers' generate.
    """
    device = next(net.parameters()).device
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), tokenizer.end_id)
    attention_mask = torch.zeros_like(input_ids)
    for k, prompt in enumerate(prompts):
        input_ids[k, width - len(prompt) :] = torch.tensor(list(prompt))
        attention_mask[k, width - len(prompt) :] = 1
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
    return [parse_response(ids, tokenizer, config.eos_token_id) for ids in written[:, width:].tolist()]
