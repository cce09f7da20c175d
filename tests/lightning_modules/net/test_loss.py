from typing import Any

import pytest
import torch
from torch.nn import functional as F

from datamodules.text.segments import Role
from errors import UserError
from lightning_modules.net import loss as module
from lightning_modules.net.loss import LossSettings, RoleWeights, supervised_cross_entropy, target_ranks

N, D, V = 37, 16, 101
IDS = torch.tensor([7, 90])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "positions_per_chunk", lambda *_: 10)  # four chunks, the last one short


def inputs(seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, rows = (torch.randn(*shape, generator=generator) for shape in ((N, D), (V, D), (len(IDS), D)))
    targets = torch.randint(V, (N,), generator=generator)
    targets[:4] = IDS.repeat(2)
    return hidden.requires_grad_(), weight, targets, rows.requires_grad_()


def reference(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor | None
) -> torch.Tensor:
    """All logits at once, columns replaced, and torch's own cross-entropy."""
    if rows is not None:
        weight = weight.clone()
        weight[IDS] = rows
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


@pytest.mark.parametrize("scale", [1, 10, 100])
def test_tokens_of_no_probability_have_their_loss_and_gradients(scale: int) -> None:
    """From losses of about 90 on a probability is 0 in float32."""
    hidden, weight, targets, _ = inputs()
    ours, per_token = supervised_cross_entropy(scale * hidden, weight, targets)
    theirs = reference((scale * hidden).double(), weight.double(), targets, None)
    torch.testing.assert_close(per_token.double(), theirs, rtol=1e-6, atol=1e-6 * scale)
    (mine,), (right,) = torch.autograd.grad(ours, hidden), torch.autograd.grad(theirs.sum(), hidden)
    torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5 * scale)


def test_a_loss_that_is_not_finite_is_not_hidden() -> None:
    hidden, weight, targets, _ = inputs()
    with torch.no_grad():
        hidden[5, 0] = float("nan")
    total, per_token = supervised_cross_entropy(hidden, weight, targets)
    assert total.isnan() and per_token[5].isnan() and per_token.isnan().sum() == 1


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


@pytest.mark.parametrize("with_rows", [True, False])
@pytest.mark.parametrize(
    ("smoothing", "z_loss", "weighted"), [(0.1, 0.0, False), (0.0, 1e-2, False), (0.0, 0.0, True), (0.1, 1e-2, True)]
)
def test_smoothing_z_loss_and_weights_are_what_torch_makes_of_full_logits(
    with_rows: bool, smoothing: float, z_loss: float, weighted: bool
) -> None:
    hidden, weight, targets, rows = inputs()
    weight.requires_grad_()
    token_weights = torch.rand(N) * 2 if weighted else None
    beside = (rows, IDS) if with_rows else (None, None)
    ours, per_token = supervised_cross_entropy(
        hidden, weight, targets, beside[0], beside[1], token_weights, smoothing, z_loss
    )
    matrix = weight.clone()
    if with_rows:
        matrix[IDS] = rows
    logits = F.linear(hidden, matrix)
    each = F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    each = each + z_loss * logits.logsumexp(-1).square()
    theirs = (each * token_weights if token_weights is not None else each).sum()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    # What is reported is plain cross-entropy all the same
    torch.testing.assert_close(per_token, reference(hidden, weight, targets, rows if with_rows else None))
    parts = [hidden, weight, *([rows] if with_rows else [])]
    for mine, right in zip(torch.autograd.grad(ours, parts), torch.autograd.grad(theirs, parts), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-5)


def test_ranks_are_places_among_all_logits() -> None:
    hidden, weight, targets, rows = inputs()
    matrix = weight.clone()
    matrix[IDS] = rows.detach()
    order = F.linear(hidden.detach(), matrix).argsort(-1, descending=True)
    places = (order == targets[:, None]).int().argmax(-1) + 1
    assert torch.equal(target_ranks(hidden, weight, targets, rows, IDS), places)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"z_loss": -1.0}, "z_loss"),
        ({"weights": RoleWeights(tag=-1.0)}, "weights.tag"),
        ({"weights": RoleWeights(0, 0, 0, 0)}, "weights: are all 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=rf"model\.loss\.{key}"):
        LossSettings(**settings)


def test_every_supervised_role_has_its_weight() -> None:
    weights = RoleWeights(thought=1.0, tag=2.0, answer=3.0, end=4.0).by_role()
    assert {role.name: weights[role] for role in Role} == {
        "PROMPT": 0.0, "TAG_OPEN": 2.0, "THOUGHT": 1.0, "TAG_CLOSE": 2.0, "ANSWER": 3.0, "END": 4.0,
    }  # fmt: skip
