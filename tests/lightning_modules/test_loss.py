import pytest
import torch
from torch.nn import functional as F

from lightning_modules import loss as module
from lightning_modules.loss import supervised_cross_entropy

N, D, V = 37, 16, 101
IDS = (7, 90)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * V * 10)  # 10 positions: four chunks, the last one short


def inputs(seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, rows = (torch.randn(*shape, generator=generator) for shape in ((N, D), (V, D), (len(IDS), D)))
    targets = torch.randint(V, (N,), generator=generator)
    targets[:4] = torch.tensor([*IDS, *IDS])
    return hidden.requires_grad_(), weight, targets, rows.requires_grad_()


def reference(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor | None
) -> torch.Tensor:
    """All logits at once, columns replaced, and torch's own cross-entropy."""
    if rows is not None:
        weight = weight.clone()
        weight[list(IDS)] = rows
    return F.cross_entropy(F.linear(hidden, weight), targets, reduction="none")


@pytest.mark.parametrize("with_rows", [True, False])
@pytest.mark.parametrize("trained_head", [True, False])
def test_loss_and_gradients_are_those_of_full_logits(with_rows: bool, trained_head: bool) -> None:
    hidden, weight, targets, rows = inputs()
    weight.requires_grad_(trained_head)
    parts = [hidden, *([weight] if trained_head else []), *([rows] if with_rows else [])]
    ours, per_token = supervised_cross_entropy(hidden, weight, targets, *((rows, IDS) if with_rows else ()))
    theirs = reference(hidden, weight, targets, rows if with_rows else None)
    torch.testing.assert_close(per_token, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, theirs.sum(), rtol=1e-5, atol=1e-5)
    for mine, right in zip(
        torch.autograd.grad(3 * ours, parts), torch.autograd.grad(3 * theirs.sum(), parts), strict=True
    ):
        torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_none_is_computed_without_need() -> None:
    hidden, weight, targets, rows = inputs()
    total, _ = supervised_cross_entropy(hidden, weight, targets, rows, IDS)
    total.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is None
    with torch.no_grad():
        again, _ = supervised_cross_entropy(hidden, weight, targets, rows, IDS)
    assert torch.equal(again, total)
    assert not again.requires_grad


def test_no_position_at_all_still_has_a_gradient_of_zero() -> None:
    """A rank whose share of a step is empty takes part in the backward pass like any other."""
    hidden, weight, targets, rows = inputs()
    total, per_token = supervised_cross_entropy(hidden[:0], weight, targets[:0], rows, IDS)
    total.backward()  # type: ignore[no-untyped-call]
    assert (total.item(), per_token.shape) == (0.0, (0,))
    assert hidden.grad is not None and not hidden.grad.any()
    assert rows.grad is not None and not rows.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_head_gives_float32_losses_near_the_exact_ones(dtype: torch.dtype) -> None:
    hidden, weight, targets, rows = inputs()
    half = hidden.detach().to(dtype).requires_grad_()
    total, per_token = supervised_cross_entropy(half, weight.to(dtype), targets, rows, IDS)
    total.backward()  # type: ignore[no-untyped-call]
    exact = reference(half.detach().float(), weight.to(dtype).float(), targets, rows)
    assert per_token.dtype == torch.float32
    torch.testing.assert_close(per_token, exact, rtol=2e-2, atol=5e-2)
    assert half.grad is not None and half.grad.dtype == dtype
    assert rows.grad is not None and rows.grad.dtype == torch.float32


def test_under_autocast_the_softmax_stays_in_float32() -> None:
    hidden, weight, targets, rows = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        _, per_token = supervised_cross_entropy(hidden, weight, targets, rows, IDS)
    assert per_token.dtype == torch.float32
    torch.testing.assert_close(per_token, reference(hidden, weight, targets, rows), rtol=2e-2, atol=8e-2)
