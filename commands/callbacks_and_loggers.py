"""The arguments of a Trainer: the config's `trainer`, and the callbacks, loggers and plugins that a command adds."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lightning_modules.checkpoints.checkpoint_file import CheckedCheckpointIO
from lightning_modules.run.callbacks import MetricsCsv, TensorBoard
from lightning_modules.run.folder import Run
from lightning_modules.run.progress import Progress
from lightning_modules.update.precision import ShardedHalfPrecision


def trainer_arguments(command: str, chosen: Any, run: Run, own: Sequence[Callback]) -> dict[str, Any]:
    """Keyword arguments for Trainer. `chosen` is the config's `trainer` with its classes built; its callbacks come
    before the command's `own`."""
    callbacks, loggers = [*as_list(chosen.callbacks), *own], []
    if chosen.enable_progress_bar is not False and not any(isinstance(one, ProgressBar) for one in callbacks):
        callbacks.append(Progress())
    if command == "fit" and chosen.logger is not False:
        loggers = [MetricsCsv(run.folder), TensorBoard(run.folder)]
        loggers += as_list(chosen.logger) if chosen.logger is not True else []
    more: dict[str, Any] = {} if command == "fit" else {"enable_checkpointing": False}
    plugins = [*as_list(chosen.plugins), CheckedCheckpointIO()]
    if "ModelParallel" in type(chosen.strategy).__name__:
        more["inference_mode"] = False  # with it, some releases of torch cannot put sharded weights together
        if chosen.precision == "16-mixed":
            plugins.append(ShardedHalfPrecision())
            more["precision"] = None
    return {**vars(chosen), "callbacks": callbacks, "logger": loggers, "plugins": plugins, **more}


def leave_signals_alone(trainer: Trainer) -> None:
    """Keep Lightning from handling signals, which signals.Signals does: a handler of Lightning's can hang, since it
    broadcasts.

    The connector is private to Lightning, so a test sends signals to a real run (tests/cli/test_processes.py).
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def as_list(given: Any) -> list[Any]:
    return [] if given is None else given if isinstance(given, list) else [given]
