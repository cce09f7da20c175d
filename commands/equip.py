"""What a Trainer is given beside its own settings: callbacks, loggers and plugins, by command."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback

from lightning_modules.checkpoints.checkpoint_callback import CheckpointCallback
from lightning_modules.checkpoints.checkpoint_file import CheckedCheckpointIO
from lightning_modules.run.callbacks import ResumeHint, RunStart, SampleTable, WritePredictions
from lightning_modules.run.failure_watchdog import FailureWatchdog
from lightning_modules.run.folder import Run
from lightning_modules.run.loggers import MetricsCsv, TensorBoard
from lightning_modules.run.throughput import Throughput
from lightning_modules.update.precision import ShardedHalfPrecision


@dataclass
class Equipment:
    """Arguments for a Trainer; those that the user chose come first."""

    callbacks: list[Callback]
    loggers: list[Any]
    plugins: list[Any]
    precision: str | None


def equip_fit(
    chosen: Any,
    run: Run,
    watchdog: FailureWatchdog,
    beginning: RunStart,
    throughput: Throughput,
    checkpoints: CheckpointCallback,
) -> Equipment:
    """For `fit`."""
    equipment = equip(chosen, run, watchdog, beginning)
    equipment.callbacks += [
        SampleTable(run), throughput, ResumeHint(run), checkpoints,
    ]  # fmt: skip
    if chosen.logger is not False:
        own = as_list(chosen.logger) if chosen.logger is not True else []
        equipment.loggers = [MetricsCsv(run.folder), TensorBoard(run.folder), *own]
    return equipment


def equip_predict(chosen: Any, run: Run, watchdog: FailureWatchdog) -> Equipment:
    """For `predict`."""
    equipment = equip(chosen, run, watchdog)
    equipment.callbacks.append(WritePredictions(run))
    return equipment


def equip(chosen: Any, run: Run, watchdog: FailureWatchdog, beginning: RunStart | None = None) -> Equipment:
    """For any command. `chosen` is the config's `trainer`, its classes built."""
    plugins, precision = [*as_list(chosen.plugins), CheckedCheckpointIO()], chosen.precision
    if "ModelParallel" in type(chosen.strategy).__name__ and precision == "16-mixed":
        plugins, precision = [*plugins, ShardedHalfPrecision()], None
    return Equipment([*as_list(chosen.callbacks), watchdog, beginning or RunStart(run)], [], plugins, precision)


def as_list(given: Any) -> Sequence[Any]:
    return [] if given is None else given if isinstance(given, list) else [given]
