"""The measurement before training: made once for a base, rows and settings, and remembered beside the prepared rows.

It costs as much as a validation. The key of a remembered one holds the whole of `model` and `trainer` but the settings
listed here, which act on training only: a new setting belongs to the key until somebody shows that it has no effect.
"""

import hashlib
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage

from datamodules.magpie import MagpieDataModule
from hub import CHECKOUT, model_folder
from lightning_modules.evaluation.remembered import Measurement, Remembered
from lightning_modules.evaluation.summary import stage_figures
from lightning_modules.evaluation.think_scores import rights
from lightning_modules.run.environment import environment
from lightning_modules.think_tuner import ThinkTuner

FOLDER = "measured"  # in data.cache_dir
TRAINER_TRAINING_ONLY = frozenset(
    (
        "accumulate_grad_batches", "check_val_every_n_epoch", "enable_checkpointing", "enable_model_summary",
        "enable_progress_bar", "fast_dev_run", "gradient_clip_algorithm", "gradient_clip_val", "limit_predict_batches",
        "limit_test_batches", "limit_train_batches", "log_every_n_steps", "logger", "max_epochs", "max_steps",
        "max_time", "min_epochs", "min_steps", "num_sanity_val_steps", "val_check_interval",
    )
)  # fmt: skip
MODEL_TRAINING_ONLY = frozenset(("optim",))
# New adapters of plain LoRA add exactly 0, whatever their size: B is 0
PLAIN_LORA_SIZE = frozenset(("rank", "alpha", "use_rslora"))
TEXTS = (".json", ".py", ".jinja", ".txt", ".model")  # files of a model beside its weights

log = logging.getLogger("thinkwright")


def settings_key(
    model: Mapping[str, Any], trainer: Mapping[str, Any], seed: Any, parents: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the part of the key that the settings decide, as a config has them.

    seed: of everything drawn at the start. It counts unless nothing is drawn that changes the model's function.
    parents: the files that the weights come from
    """
    model = {name: value for name, value in model.items() if name not in MODEL_TRAINING_ONLY}
    lora, plain = model.get("lora"), False
    if lora is not None and not lora.get("peft") and not parents:
        plain = True
        model["lora"] = {name: value for name, value in lora.items() if name not in PLAIN_LORA_SIZE}
    draws = model.get("new_token_init") == "random" or model.get("from_scratch") or not plain
    return {
        "model": model,
        "trainer": {name: value for name, value in trainer.items() if name not in TRAINER_TRAINING_ONLY},
        "seed": seed if draws else None,
        "parents": list(parents),
    }


def whole_key(given: Any, trainer: Trainer, model: ThinkTuner, data: MagpieDataModule) -> dict[str, Any]:
    """Return everything that decides the figures of the model before training; plain values."""
    parents = [asdict(one) for one in model.start.parents]
    facts = environment([])
    device = trainer.strategy.root_device
    identity = {name: value for name, value in model.identity.values().items() if not name.startswith("lora.")}
    return settings_key(_plain(given.model), _plain(given.trainer), given.seed_everything, parents) | {
        "base": identity,
        "files": _texts(model_folder(model.name, model.revision)),
        "rows": [data.stats.digests["val"], _names(data)],
        "template": data.run_template.to_keep(data.think_tokenizer),
        "batches": [data.val_batch_size, data.max_length],
        "device": [device.type, facts["machine"]["gpus"], facts["machine"]["cuda"], trainer.world_size],
        "cpu": [platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
        "products": [str(trainer.precision), torch.get_float32_matmul_precision()],
        "versions": facts["versions"],
        "code": _code(),
    }


class _Lookup(Callback):
    """Finds a remembered measurement once the ranks can speak to each other, and lets the validation be empty then."""

    def __init__(self, given: Any, data: MagpieDataModule) -> None:
        self._given, self._data = given, data
        self.file: Remembered | None = None
        self.found: Measurement | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.state.stage != RunningStage.VALIDATING:
            return
        if trainer.is_global_zero:
            tuner: Any = pl_module
            key = whole_key(self._given, trainer, tuner, self._data)
            self.file = Remembered(self._data.cache_dir / FOLDER, key)
            self.found = self.file.read()
        self.found = trainer.strategy.broadcast(self.found)
        if self.found is not None:
            trainer.limit_val_batches = 0


def measure_before(
    given: Any, trainer: Trainer, model: ThinkTuner, data: MagpieDataModule, shown: Sequence[Callback]
) -> Measurement:
    """Measure the model that training begins with, or take what was remembered: the same figures in the same files.

    given: the parsed config; shown: the callbacks that write what a validation leaves behind
    """
    lookup, limit = _Lookup(given, data), trainer.limit_val_batches
    trainer.callbacks.append(lookup)  # type: ignore[attr-defined]
    try:
        trainer.validate(model, data, verbose=False)
    finally:
        trainer.callbacks.remove(lookup)  # type: ignore[attr-defined]
        trainer.limit_val_batches = limit
    if (found := lookup.found) is None:
        figures = stage_figures(trainer.callback_metrics, "val")
        found = Measurement(figures, dict(model.evaluated), rights(model.answered), model.answered)
        if lookup.file is not None and figures and not model.cancelled():
            lookup.file.write(found)
        return found
    for logger in trainer.loggers:
        logger.log_metrics(found.logged, step=trainer.global_step)
    model.answered = found.answered
    for callback in shown:
        callback.on_validation_end(trainer, model)
    if lookup.file is not None:
        what = "start" if model.start.parents else "before"
        log.info(f"{what}: remembered from {found.when}; delete {lookup.file.path} to measure again")
    return found


def _plain(namespace: Any) -> dict[str, Any]:
    """Return a part of a config as JSON has it."""
    known: dict[str, Any] = namespace.as_dict()
    plain: dict[str, Any] = json.loads(json.dumps(known, default=_value))
    return plain


def _value(value: Any) -> Any:
    return value.as_dict() if hasattr(value, "as_dict") else str(value)


def _names(data: MagpieDataModule) -> str:
    """Return a digest of the numbers and groups of the validation rows, which the digest of their tokens leaves out."""
    rows = data.splits["val"]
    names = [(rows[k].row_id, rows[k].group) for k in range(len(rows))]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _texts(folder: Path) -> dict[str, str]:
    """Return the digests of a model's files beside its weights: a chat template, settings of generation, own code."""
    found = (path for path in folder.iterdir() if path.suffix in TEXTS and path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}


def _code() -> str:
    """Return the digest of the code that measures."""
    files = (path for package in ("datamodules", "lightning_modules") for path in (CHECKOUT / package).rglob("*.py"))
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()
