import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_modules.checkpoints.checkpoint_file import read_checkpoint
from lightning_modules.run.folder import Run
from lightning_modules.update.nonfinite import Attempt, Gradients, NotFinite, propagate_nan

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize("loss", [2.5, 0.0, INF, -INF, NAN])
def test_a_loss_that_is_not_finite_has_no_finite_gradient_either(loss: float) -> None:
    weight = torch.tensor(1.0, requires_grad=True)
    total = weight + loss  # its own gradient is 1, whatever the loss
    propagate_nan(total).backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert weight.grad.item() == 1.0 if math.isfinite(loss) else weight.grad.isnan()


def tuner(folder: Path, scale: float | None = None) -> Any:
    """As much of a tuner as a check asks."""
    scaler = SimpleNamespace(get_scale=lambda: scale) if scale else None
    trainer = SimpleNamespace(
        global_step=6,
        precision_plugin=SimpleNamespace(scaler=scaler),
        strategy=SimpleNamespace(lightning_module_state_dict=lambda: {"weight": torch.ones(2)}),
    )
    return SimpleNamespace(
        trainer=trainer, global_rank=0, on_save_checkpoint=lambda content: content.update(thinkwright={"base": "b"})
    )


def gradients(make_batch: Callable[..., Any], folder: Path, losses: list[float], gradient: float) -> Gradients:
    """After a step of two micro-batches, with these losses and this one gradient."""
    found = Gradients()
    found.run = Run(folder)
    batches = (make_batch(0, 3), make_batch(9))
    found.attempts = [Attempt(batch, 5, torch.tensor(loss)) for batch, loss in zip(batches, losses, strict=True)]
    weight = torch.nn.Parameter(torch.zeros(3))
    weight.grad = torch.tensor([0.0, 3.0, gradient])
    norm = found.norm(torch.optim.SGD([weight]), 6)
    assert norm.item() == pytest.approx(math.hypot(3.0, gradient), nan_ok=True)
    return found


def test_a_finite_step_goes_on(make_batch: Callable[..., Any], tmp_path: Path) -> None:
    gradients(make_batch, tmp_path, [1.0, 2.0], 4.0).check_finite(tuner(tmp_path))
    assert not list(tmp_path.iterdir())


def test_what_is_not_finite_names_step_and_rows_and_is_kept_for_replay(
    make_batch: Callable[..., Any], tmp_path: Path
) -> None:
    found = gradients(make_batch, tmp_path, [1.0, NAN], NAN)
    with pytest.raises(NotFinite) as stopped:
        found.check_finite(tuner(tmp_path))
    assert "training: 'optimizer step 7' is not finite (rank 0: loss nan of rows 9)" in str(stopped.value)
    assert stopped.value.together
    (file,) = (tmp_path / "nonfinite").iterdir()
    assert f"python cli.py replay {file}" in str(stopped.value)
    content = read_checkpoint(file)
    assert [batch["row_ids"] for batch in content["batches"]] == [["0", "3"], ["9"]]
    assert torch.equal(content["batches"][1]["input_ids"], make_batch(9).input_ids)
    assert content["seeds"] == [5, 5]
    assert torch.equal(content["state_dict"]["weight"], torch.ones(2))


@pytest.mark.parametrize(("losses", "scale", "stops"), [
    ([1.0, 2.0], None, True), ([1.0, 2.0], 2.0**16, False), ([1.0, 2.0], 1.0, True), ([NAN, 2.0], 2.0**16, True),
])  # fmt: skip
def test_a_gradient_scaler_may_find_its_scale_but_hides_no_broken_loss(
    losses: list[float], scale: float | None, stops: bool, make_batch: Callable[..., Any], tmp_path: Path
) -> None:
    found = gradients(make_batch, tmp_path, losses, INF)
    if stops:
        with pytest.raises(NotFinite):
            found.check_finite(tuner(tmp_path, scale))
    else:
        found.check_finite(tuner(tmp_path, scale))
        assert found.figures()["skipped_steps"] == 1


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_is_torchs_own(limit: float) -> None:
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
def test_a_fused_optimizer_leaves_out_an_update_before_anyone_looks(device: str, gradient: float) -> None:
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


def test_a_norm_that_is_under_way_is_looked_at_later_with_the_batches_of_its_step(
    make_batch: Callable[..., Any], tmp_path: Path
) -> None:
    found = gradients(make_batch, tmp_path, [1.0, NAN], NAN)
    waited: list[bool] = []
    assert found._pending is not None
    found._pending.arrived = SimpleNamespace(synchronize=lambda: waited.append(True))  # type: ignore[assignment]
    found.check_finite(tuner(tmp_path), known_only=True)
    assert not waited
    found.attempts = []  # of the step that has begun meanwhile
    with pytest.raises(NotFinite, match=r"optimizer step 7' is not finite \(rank 0: loss nan of rows 9\)"):
        found.check_finite(tuner(tmp_path))
    assert waited
