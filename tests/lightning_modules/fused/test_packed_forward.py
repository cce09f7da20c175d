"""One object carries what a packed sequence needs, and it arrives where it is read."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.fused import patch_layers, varlen_attention
from lightning_modules.fused.packed_forward import KEYWORD, PackedForward, ProductDtypes, RowBounds
from lightning_modules.net.activation_checkpointing import checkpoint_activations
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import KINDS, random_lm


def test_it_goes_into_a_call_under_one_keyword_and_comes_out_once() -> None:
    packed = PackedForward(RowBounds(torch.tensor([0, 2]), [2]))
    kwargs = packed.as_kwargs() | {"other": 1}
    assert PackedForward.take(kwargs) is packed
    assert kwargs == {"other": 1} and PackedForward.take(kwargs) is None
    assert packed.as_kwargs().keys() == {KEYWORD}


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_passes_it_on_to_every_attention_call(
    kind: str, checkpointed: bool, tiny_tokenizer: ThinkTokenizer, make_batch: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In fused layers and in transformers' own, and when a layer is recomputed for the backward pass."""
    seen: list[RowBounds] = []
    real = varlen_attention.attend

    def attend(query: Any, key: Any, value: Any, bounds: RowBounds, *rest: Any) -> torch.Tensor:
        seen.append(bounds)
        return real(query, key, value, bounds, *rest)

    monkeypatch.setattr(varlen_attention, "attend", attend)
    monkeypatch.setattr(patch_layers, "attend", attend)
    base, batch = random_lm(kind), make_batch(0, 3)
    checkpoint_activations(base, checkpointed)
    net = ThinkNet(base, tiny_tokenizer, LoraSettings())
    net(batch).total.backward()
    assert len(seen) == (4 if checkpointed else 2)  # two layers
    assert all(one.starts is batch.starts and one.lengths is batch.lengths for one in seen)


def test_products_are_in_autocasts_dtype_else_in_the_weights_own_and_float32_for_adapters() -> None:
    weight = torch.zeros(1, dtype=torch.bfloat16)
    assert ProductDtypes.current(weight) == (torch.bfloat16, torch.float32)
    with torch.autocast("cpu", torch.float16):
        assert ProductDtypes.current(weight) == (torch.float16, torch.float16)
