"""Run by test_precision.py: two CPU processes train in float16 with FSDP2 and a gradient scaler, save, and resume.

python tests/lightning_modules/update/sharded_half.py FOLDER
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.strategies import ModelParallelStrategy

from datamodules.magpie import MagpieDataModule
from lightning_modules.checkpoints.checkpoint_file import CheckedCheckpointIO
from lightning_modules.estimate.memory import held_memory, measured_held_memory, net_on_meta
from lightning_modules.evaluation.answers import EvalSettings
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner
from lightning_modules.update.optim import OptimSettings
from lightning_modules.update.precision import ShardedHalfPrecision

SCALE = 2.0**20  # overflows at first, as too high a scale does on a GPU


class Course(Callback):
    """Notes loss, scale and skipped steps after each batch, and saves at the end."""

    def __init__(self, saved: Path) -> None:
        self.saved = saved
        self.seen: list[dict[str, Any]] = []

    def on_train_end(self, trainer: Any, tuner: Any) -> None:
        trainer.save_checkpoint(self.saved)
        self.held = asdict(measured_held_memory(tuner.net, trainer.optimizers[0]))

    def on_train_batch_end(self, trainer: Any, tuner: Any, *_: Any) -> None:
        attempt = tuner.gradients.attempts[-1]
        self.seen.append(
            {
                "loss": float(attempt.loss) / max(1, len(attempt.batch.targets)),
                "scale": trainer.precision_plugin.scaler.get_scale(),
                "skipped": tuner.gradients.skipped,
            }
        )


def train(folder: Path, epochs: int, saved: Path, resume: Path | None) -> tuple[Trainer, ThinkTuner, Course]:
    seed_everything(1)
    course = Course(saved)
    tuner = ThinkTuner(
        "assets/tiny-qwen",
        dtype="float16",
        lora=LoraSettings(4),
        optim=OptimSettings(lr=5e-3),
        evaluation=EvalSettings(rows=0),
    )
    data = MagpieDataModule(
        train_rows=192, val_rows=4, batch_size=8, num_workers=0, num_proc=1, cache_dir=str(folder / "cache")
    )
    trainer = Trainer(
        accelerator="cpu", devices=2, max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
        callbacks=[course], gradient_clip_val=1.0,
        strategy=ModelParallelStrategy(
            data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=False
        ),
        plugins=[ShardedHalfPrecision("cpu", SCALE), CheckedCheckpointIO()],
    )  # fmt: skip
    trainer.fit(tuner, data, ckpt_path=resume)
    return trainer, tuner, course


def main(folder: Path) -> None:
    saved = folder / "half.ckpt"
    trainer, tuner, course = train(folder, 1, saved, None)
    _, _, more = train(folder, 2, folder / "more.ckpt", saved)
    facts = {
        "held": course.held,
        "estimated": asdict(held_memory(net_on_meta(tuner), 2, sharded=True)),
        "course": course.seen,
        "more": more.seen,
        "trained": sorted({str(p.dtype) for p in tuner.parameters() if p.requires_grad}),
        "frozen": sorted({str(p.dtype) for p in tuner.parameters() if not p.requires_grad}),
        "saved_scale": torch.load(saved, weights_only=True)["ShardedHalfPrecision"]["scale"],
    }
    if trainer.is_global_zero:
        (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
