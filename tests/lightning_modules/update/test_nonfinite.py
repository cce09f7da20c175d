"""A step whose loss or gradient is not finite ends training before the update."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_modules.update.nonfinite import Attempt, Gradients, NotFinite, propagate_nan

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("loss", [2.5, 0.0, INF, -INF, NAN])
def test_a_loss_that_is_not_finite_has_a_nan_gradient(loss: float) -> None:
    weight = torch.tensor(1.0, requires_grad=True)
    total = weight + loss  # its own gradient is 1, whatever the loss
    propagate_nan(total).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.item() == 1.0 if math.isfinite(loss) else weight.grad.isnan()


class Written:
    """A replay writer that keeps what it is given."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, Sequence[Attempt]]] = []

    def path(self, step: int, rank: int) -> Path:
        return Path(f"step-{step + 1}-rank-{rank}.replay")

    def write(self, tuner: Any, step: int, attempts: Sequence[Attempt]) -> None:
        self.steps.append((step, attempts))


def tuner(scale: float | None = None) -> Any:
    """The parts of a tuner that the check reads."""
    scaler = SimpleNamespace(get_scale=lambda: scale) if scale else None
    return SimpleNamespace(trainer=SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler)), global_rank=0)


def gradients(make_batch: Callable[..., Any], losses: list[float], gradient: float) -> Gradients:
    """The gradients after a step of two micro-batches with these losses, in which one gradient is `gradient`."""
    found = Gradients()
    found.replay = Written()
    batches = (make_batch(0, 3), make_batch(9))
    found.attempts = [Attempt(batch, 5, torch.tensor(loss)) for batch, loss in zip(batches, losses, strict=True)]
    weight = torch.nn.Parameter(torch.zeros(3))
    weight.grad = torch.tensor([0.0, 3.0, gradient])
    norm = found.norm(torch.optim.SGD([weight]), 6)
    assert norm.item() == pytest.approx(math.hypot(3.0, gradient), nan_ok=True)
    return found


def written(found: Gradients) -> list[tuple[int, Sequence[Attempt]]]:
    assert isinstance(found.replay, Written)
    return found.replay.steps


def test_a_finite_step_passes(make_batch: Callable[..., Any]) -> None:
    found = gradients(make_batch, [1.0, 2.0], 4.0)
    found.check_finite(tuner())
    assert not written(found)


def test_a_step_that_is_not_finite_is_named_with_its_rows_and_written_for_replay(
    make_batch: Callable[..., Any],
) -> None:
    found = gradients(make_batch, [1.0, NAN], NAN)
    with pytest.raises(NotFinite) as stopped:
        found.check_finite(tuner())
    assert "training: 'optimizer step 7' is not finite (rank 0: loss nan of rows 9)" in str(stopped.value)
    assert stopped.value.together
    assert "python cli.py replay step-7-rank-0.replay" in str(stopped.value)
    ((step, attempts),) = written(found)
    assert step == 6
    assert [attempt.batch.row_ids for attempt in attempts] == [["0", "3"], ["9"]]


@pytest.mark.parametrize(("losses", "scale", "stops"), [
    ([1.0, 2.0], None, True), ([1.0, 2.0], 2.0**16, False), ([1.0, 2.0], 1.0, True), ([NAN, 2.0], 2.0**16, True),
])  # fmt: skip
def test_an_overflow_lowers_the_scale_but_a_broken_loss_stops_training(
    losses: list[float], scale: float | None, stops: bool, make_batch: Callable[..., Any]
) -> None:
    found = gradients(make_batch, losses, INF)
    if stops:
        with pytest.raises(NotFinite):
            found.check_finite(tuner(scale))
    else:
        found.check_finite(tuner(scale))
        assert found.figures()["skipped_steps"] == 1


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_equals_that_of_torch(limit: float) -> None:
    ours, theirs = ([torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.zeros(2, 3))] for _ in range(2))
    for one, other in zip(ours, theirs, strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    optimizer, found = torch.optim.SGD(ours), Gradients()
    norm = found.norm(optimizer, 0)
    found.clip(optimizer, norm, limit)
    torch.testing.assert_close(torch.nn.utils.clip_grad_norm_(theirs, limit), norm)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("gradient", [1.0, NAN, INF])
def test_a_fused_optimizer_skips_an_update_before_the_host_checks_it(device: str, gradient: float) -> None:
    weight = torch.nn.Parameter(torch.ones(3, device=device))
    optimizer, found = torch.optim.AdamW([weight], fused=True), Gradients()
    for step, value in enumerate([1.0, gradient, 1.0]):
        weight.grad = torch.full((3,), value, device=device)
        before = weight.detach().clone()
        found.norm(optimizer, step)
        optimizer.step()
        assert torch.equal(weight, before) == (not math.isfinite(value))
    assert float(optimizer.state[weight]["step"]) == (3 if math.isfinite(gradient) else 2)
    assert weight.isfinite().all()


def test_a_norm_that_has_not_arrived_is_checked_later_with_the_batches_of_its_step(
    make_batch: Callable[..., Any],
) -> None:
    found = gradients(make_batch, [1.0, NAN], NAN)
    waited: list[bool] = []
    assert found._pending is not None
    found._pending.arrived = SimpleNamespace(synchronize=lambda: waited.append(True))  # type: ignore[assignment]
    found.check_finite(tuner(), known_only=True)
    assert not waited
    found.attempts = []  # of the next step
    with pytest.raises(NotFinite, match=r"optimizer step 7' is not finite \(rank 0: loss nan of rows 9\)"):
        found.check_finite(tuner())
    assert waited
