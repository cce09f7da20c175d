"""replay: recompute an optimizer step that was not finite, row by row, to find the cause."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from commands.generate import add_device, device
from commands.load import load_run
from commands.parsing import Parser
from datamodules.batches.collate import Batch
from errors import UserError
from lightning_modules.checkpoints.replay_file import read_replay
from lightning_modules.think_tuner import ThinkTuner
from lightning_modules.update.precision import MIXED
from visible import visible

SHOWN_TENSORS = 8  # names of tensors with a gradient that is not finite


@dataclass(frozen=True)
class RowLoss:
    """The loss of one row, computed alone."""

    row_id: str
    tokens: int  # supervised
    loss: float  # mean per supervised token


def build_parser() -> Parser:
    parser = Parser("replay")
    parser.add_argument("file", type=str, help="Replay file: runs/NAME/TIME/nonfinite/step-N-rank-R.replay.")
    parser.add_argument(
        "--precision",
        type=str | None,
        default=None,
        help="32-true, bf16-mixed or 16-mixed; null is the run's trainer.precision.",
    )
    add_device(parser)
    return parser


def run(args: Sequence[str]) -> int:
    given = build_parser().read(args)
    file = Path(given.file).expanduser()
    replay = read_replay(file)
    loaded = load_run(None, str(file), "", replay.checkpoint)
    precision = given.precision or precision_of(loaded.config)
    if precision not in (*MIXED, "32-true"):
        fix = f"give 32-true or {' or '.join(MIXED)}"
        raise UserError("--precision", precision, "is not a precision for training", fix)
    tuner = loaded.tuner.to(device(given.device))
    context = torch.autocast(tuner.device.type, MIXED[precision]) if precision in MIXED else nullcontext()
    print(f"{file}: {len(replay.batches)} micro-batches, computed in {precision} on {tuner.device}")
    for k, (batch, seed) in enumerate(zip(replay.batches, replay.seeds, strict=True)):
        print_micro_batch(k, tuner, batch.to(tuner.device), seed, context)
    return 0


def precision_of(config: dict[str, Any]) -> str:
    """Return the precision that the run of a config was trained in."""
    return str(config["trainer"].get("precision") or "32-true")


def print_micro_batch(k: int, tuner: ThinkTuner, batch: Batch, seed: int, context: AbstractContextManager[Any]) -> None:
    """Print the loss of each row of a micro-batch, and the tensors with a gradient that is not finite."""
    total, gradients = step(tuner, batch, seed, context)
    print(f"\nmicro-batch {k + 1}: loss {total / max(1, len(batch.targets)):.4f} per token")
    for row in row_losses(tuner, batch, seed, context):
        mark = "" if row.loss - row.loss == 0 else "   <- not finite"
        print(f"  {visible(row.row_id):<24} {row.tokens:>6} tokens  {row.loss:>10.4f}{mark}")
    broken = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    largest = max((float(gradient.abs().max()), name) for name, gradient in gradients.items())
    print(f"  gradient: {len(broken)} of {len(gradients)} tensors not finite; largest {largest[0]:.3g}, {largest[1]}")
    for name in broken[:SHOWN_TENSORS]:
        print(f"    {name}")


def step(
    tuner: ThinkTuner, batch: Batch, seed: int, context: AbstractContextManager[Any]
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the summed loss of a micro-batch and the gradient of each trained tensor, with the dropout of the fit."""
    assert tuner.net is not None
    tuner.net.train()
    torch.manual_seed(seed)
    trained = tuner.trained()
    with context:
        total = tuner.net(batch).total
    return float(total), dict(zip(trained, torch.autograd.grad(total, list(trained.values())), strict=True))


def row_losses(tuner: ThinkTuner, batch: Batch, seed: int, context: AbstractContextManager[Any]) -> Iterator[RowLoss]:
    """Yield the loss of each row, computed alone. Its dropout differs from the dropout in the whole batch."""
    assert tuner.net is not None
    kept: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(Batch)}
    for row_id, (start, end) in zip(batch.row_ids, pairwise(batch.starts.tolist()), strict=False):
        mine = ((batch.predict_from >= start) & (batch.predict_from < end)).nonzero()[:, 0]
        kept |= {
            "input_ids": batch.input_ids[:, start:end],
            "position_ids": batch.position_ids[:, start:end],
            "starts": batch.starts.new_tensor([0, end - start]),
            "lengths": [end - start],
            "predict_from": batch.predict_from[mine] - start,
            "targets": batch.targets[mine],
            "target_roles": batch.target_roles[mine],
        }
        torch.manual_seed(seed)
        with torch.no_grad(), context:
            total = float(tuner.net(Batch(**kept)).total)
        yield RowLoss(row_id, len(mine), total / max(1, len(mine)))
