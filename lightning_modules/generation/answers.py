"""Held-out rows answered by the model as it is, beside what the data has there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datamodules.batches.collate import Batch
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.evaluation.metrics import Answered
from lightning_modules.generation.generate import DecodingSettings, generate, read_ids
from lightning_modules.net.think_net import ThinkNet

if TYPE_CHECKING:
    from transformers import GenerationConfig


@dataclass
class EvalSettings:
    """What validation and test do beside the loss."""

    rows: int = 64
    """Held-out rows that are answered by generation; 0 for the loss alone."""
    decoding: DecodingSettings = field(default_factory=DecodingSettings)
    """How they are answered."""


def answer_rows(
    net: ThinkNet,
    tokenizer: ThinkTokenizer,
    config: "GenerationConfig",
    batch: Batch,
    wanted: Sequence[int],
    cancelled: Callable[[], bool],
    sharded: bool,
) -> list[Answered]:
    """What the model writes for some rows of a batch, by their place in it; nothing that counts once `cancelled()`.

    Sharded ranks must all call it or none: one that has no row left answers an empty prompt with the others.
    """
    ids = batch.token_ids()
    prompts = [ids[k][: batch.prompt_lengths[k]] for k in wanted] or [[tokenizer.end_id]]
    more: dict[str, Any] = {"synced_gpus": True} if sharded else {}
    written = generate(net, tokenizer, prompts, config, cancelled, **more)
    return [
        Answered(
            batch.indices[k],
            batch.groups[k],
            tokenizer.decode(prompt),
            mine,
            read_ids(ids[k][len(prompt) :], tokenizer, [tokenizer.end_id]),
        )
        for k, prompt, mine in zip(wanted, prompts, written, strict=False)
    ]
