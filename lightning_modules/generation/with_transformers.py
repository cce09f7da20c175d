"""Generation by transformers' `generate`, for any causal LM. Batches are padded on the left."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_modules.generation.token_choice import Choice, Request, Written

if TYPE_CHECKING:
    from lightning_modules.net.think_net import ThinkNet


def generate_batch(
    net: "ThinkNet",
    choice: Choice,
    requests: Sequence[Request],
    pad_id: int,
    after_token: Callable[[], bool],
    **more: Any,
) -> list[Written] | None:
    """Return what is written for each request; request k has slot k. None if `after_token`, which is called after each
    token, asked to stop. `more` goes to transformers' generate.

    `choice` takes the place of transformers' choice: it leaves one token of each sequence with a finite score.
    """
    from transformers import GenerationConfig

    device = next(net.parameters()).device
    width = max(len(request.ids) for request in requests)
    input_ids = torch.full((len(requests), width), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for k, request in enumerate(requests):
        choice.start(k, request)
        input_ids[k, width - len(request.ids) :] = torch.tensor(list(request.ids))
        attention_mask[k, width - len(request.ids) :] = 1
    slots = torch.arange(len(requests), device=device)
    stopped = [False]

    def choose(_: Tensor, scores: Tensor) -> Tensor:
        chosen = choice.step(scores, slots)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)

    def stop(ids: Tensor, _: Any) -> Tensor:
        stopped[0] = stopped[0] or after_token()
        return choice.ended[slots] | stopped[0]

    config = GenerationConfig(
        max_new_tokens=choice.settings.max_new_tokens, pad_token_id=pad_id, do_sample=False, use_cache=True
    )
    lm = net.causal_lm
    own, lm.generation_config = lm.generation_config, GenerationConfig()  # it would fill what `config` leaves open
    try:
        net.generate(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            generation_config=config,
            logits_processor=[choose],
            stopping_criteria=[stop],
            **more,
        )
    finally:
        lm.generation_config = own
    return None if stopped[0] else [choice.written(k) for k in range(len(requests))]
