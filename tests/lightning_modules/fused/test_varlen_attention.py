from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.fused.packed_forward import PackedForward, RowBounds
from lightning_modules.fused.varlen_attention import HALF, attend, use_varlen_attention
from lightning_modules.internals.transformers_internals import packed_hidden_states
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import KINDS, random_lm

LENGTHS = [5, 1, 12, 3]


def inputs(
    heads: int = 4, kv_heads: int = 4, d: int = 8, device: str = "cpu", dtype: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(sum(LENGTHS), n, d) for n in (heads, kv_heads, kv_heads)]
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    q, k, v = (one.to(device, dtype or torch.float32).requires_grad_() for one in made)
    return q, k, v


def bounds(device: str = "cpu") -> RowBounds:
    starts = torch.tensor([0, *LENGTHS], device=device).cumsum(0, dtype=torch.int32)
    return RowBounds(starts, LENGTHS)


def reference(query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
    """Attention by the softmax of a whole (T, T) matrix of scores, most of it masked."""
    row = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS)).to(query.device)
    positions = torch.arange(len(row), device=query.device)
    distance = positions[:, None] - positions
    seen = (row[:, None] == row) & (distance >= 0) & (distance < (window or len(row)))
    times = query.shape[1] // key.shape[1]
    k, v = (part.repeat_interleave(times, 1) for part in (key, value))
    scores = torch.einsum("ihd,jhd->hij", query, k) / query.shape[-1] ** 0.5
    return torch.einsum("hij,jhd->ihd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("window", [None, 4])
def test_attention_and_its_gradients_are_those_of_a_masked_matrix(kv_heads: int, window: int | None) -> None:
    parts = inputs(kv_heads=kv_heads)
    ours, theirs = attend(*parts, bounds(), window=window), reference(*parts, window)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = torch.linspace(-1, 1, ours.numel()).view_as(ours)
    for mine, right in zip(
        torch.autograd.grad((ours * weights).sum(), parts), torch.autograd.grad((theirs * weights).sum(), parts),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("window", [None, 4])
def test_dropout_drops_weights_and_scales_the_others(kv_heads: int, window: int | None) -> None:
    """A value that is 1 for one token and 0 for the others shows this token's weights."""
    q, k, _ = inputs(kv_heads=kv_heads)
    value = torch.eye(len(q))[:, None].expand(-1, kv_heads, -1)
    ours = attend(q, k, value, bounds(), window=window, dropout=0.4)
    exact = reference(q, k, value, window)
    kept = ours != 0
    torch.testing.assert_close(ours[kept], exact[kept] / 0.6, rtol=1e-5, atol=1e-6)
    assert 0.45 < float(kept.sum() / (exact != 0).sum()) < 0.75


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_the_flash_attention_kernel_gives_the_same(kv_heads: int, dtype: torch.dtype) -> None:
    parts = inputs(kv_heads=kv_heads, d=64, device="cuda", dtype=dtype)
    q, k, v = exact = [part.detach().float().requires_grad_() for part in parts]
    ours, theirs = attend(*parts, bounds("cuda")), reference(q, k, v, None)
    torch.testing.assert_close(ours.float(), theirs, rtol=2e-2, atol=2e-2)
    for mine, right in zip(
        torch.autograd.grad(ours.sum(), parts), torch.autograd.grad(theirs.sum(), exact), strict=True
    ):
        torch.testing.assert_close(mine.float(), right, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_of_packed_rows_are_those_of_each_row_alone(
    kind: str, tiny_tokenizer: ThinkTokenizer, make_batch: Callable[..., Any]
) -> None:
    net = ThinkNet(random_lm(kind), tiny_tokenizer, LoraSettings()).eval()
    batch = make_batch(0, 3, 9, 4)
    packed = PackedForward(RowBounds(batch.starts, batch.lengths))
    together = packed_hidden_states(net.causal_lm, batch.input_ids, batch.position_ids, **packed.as_kwargs())[0]
    plain = ThinkNet(random_lm(kind), tiny_tokenizer, LoraSettings()).eval().causal_lm
    plain.set_attn_implementation("eager")
    alone = [plain.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0] for ids in batch.token_ids()]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_without_a_packed_forward_it_is_transformers_own_attention_with_padding() -> None:
    ours, theirs = random_lm("qwen2"), random_lm("qwen2")
    use_varlen_attention(ours)
    theirs.set_attn_implementation("eager")
    ids = torch.arange(1, 13).view(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    mine, right = (lm(input_ids=ids, attention_mask=mask).logits for lm in (ours, theirs))
    torch.testing.assert_close(mine[mask.bool()], right[mask.bool()], rtol=1e-5, atol=1e-5)
