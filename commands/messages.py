"""What a command prints beside its result: our own notices once for all ranks, and none that a user cannot act on."""

import logging
import threading
import warnings

from lightning.pytorch.utilities import rank_zero_only

from visible import visible

log = logging.getLogger("thinkwright")
NOT_FOR_USERS = (
    ".*LeafSpec.*", ".*in eval mode.*", ".*smaller than the logging interval.*", ".*Checkpoint directory .* exists.*",
    ".*Experiment logs directory.*", "Be aware that when using `ckpt_path`.*", ".*your dataloader is not resumable.*",
    "Early stopping conditioned on metric.*", "Detected call of `lr_scheduler.step.*",
)  # fmt: skip


def _thread_error(args: threading.ExceptHookArgs) -> None:
    """Keep quiet about a disk error in TensorBoard's thread: the next call of its logger raises it again."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


class VisibleLines(logging.Formatter):
    """Shows control and invisible characters of names and data as marks. Line ends between our own lines stay."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), lines=True)


def quiet() -> None:
    """Print our own notices once for all ranks, and hide notices of the libraries that a user cannot act on."""
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleLines())
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.ERROR)
    rank_zero_only(log.setLevel)(logging.INFO)
    threading.excepthook = _thread_error
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in NOT_FOR_USERS:
        warnings.filterwarnings("ignore", pattern)
