"""fit, validate, test, predict: a Trainer over ThinkTuner and MagpieDataModule, with runs kept in folders."""

import errno
import inspect
import logging
import os
import re
import shlex
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar
from lightning.pytorch.utilities import rank_zero_only
from tqdm.contrib.logging import logging_redirect_tqdm

from commands.at_fault import path_error
from commands.before_and_after import print_beside_before
from commands.fit_settings import build_data, build_model, build_parser
from commands.measured_before import measure_before
from commands.messages import quiet
from commands.no_effect import ignored_variables
from commands.paths import check_fit_paths
from commands.preflight import check_classes, check_trainer
from commands.which_run import run_to_measure
from datamodules.same_rows import go_on_with_template, seen_by_parent_warning, settings_of
from disk import FULL, REASONS, disk_error, disk_errors, remove_leftovers, write_file
from errors import UserError
from hub import model_folder
from lightning_modules.checkpoints.checkpoint_callback import CheckpointCallback, CheckpointSettings
from lightning_modules.checkpoints.checkpoint_file import CheckedCheckpointIO
from lightning_modules.checkpoints.content import CheckpointContent, Parent
from lightning_modules.checkpoints.replay_file import ReplayFiles
from lightning_modules.evaluation.summary import print_samples, stage_figures
from lightning_modules.evaluation.think_scores import rights
from lightning_modules.internals.lightning_internals import disable_signal_handlers
from lightning_modules.run.callbacks import ResumeHint, RunStart, SampleTable, WritePredictions
from lightning_modules.run.environment import write_environment
from lightning_modules.run.failure_watchdog import FailureWatchdog
from lightning_modules.run.fit_time import FitTime
from lightning_modules.run.folder import Run, RunSettings, find_checkpoint, new_run, run_of
from lightning_modules.run.lock import RunLock, is_first_process
from lightning_modules.run.loggers import MetricsCsv, TensorBoard
from lightning_modules.run.progress import Progress
from lightning_modules.run.signals import Signals, Stopped
from lightning_modules.run.throughput import Throughput
from lightning_modules.update.precision import WIDE, ShardedHalfPrecision, advice_for_cpu, bfloat16_gain

log = logging.getLogger("thinkwright")
ON_DISK = (*FULL, *REASONS, errno.EACCES, errno.EPERM, errno.ELOOP)


def run(args: Sequence[str]) -> int:
    """Run the command line `args`, which begins with the command; return the exit code."""
    quiet()
    watchdog = FailureWatchdog()
    try:
        with Signals().taken() as signals, logging_redirect_tqdm([log]):
            job = Job(args, signals, watchdog)
            try:
                job.do()
            finally:
                if job.lock:
                    job.lock.release()
            watchdog.close()
    except Stopped as stopped:
        # The first rank kills all ranks if one that it started ends with another code than 0
        return 0 if watchdog.child else stopped.exit_code
    except UserError:
        if watchdog.already_printed:
            return 0 if watchdog.child else 2
        raise
    except OSError as error:  # of a logger, or of a library that writes into the run
        if error.errno not in ON_DISK:
            raise
        elsewhere = path_error(error, args)
        raise elsewhere or disk_error("run.root", error.filename or "the run's folder", error) from error
    except (MisconfigurationException, ModuleNotFoundError, TypeError, ValueError) as error:
        if (cause := _refusal(error)) is None:
            raise
        problem = " ".join(str(cause).split()).rstrip(".")
        named = re.search(rf"\b({'|'.join(inspect.signature(Trainer).parameters)})\b", problem)
        fix = "install it" if isinstance(cause, ModuleNotFoundError) else "give another value"
        key = f"trainer.{named[1]}" if named else "trainer"
        raise UserError(key, None, problem, f"{fix}, or remove the setting") from error
    return 0


def _refusal(error: BaseException | None) -> BaseException | None:
    """The error of Lightning's own code or of a missing package: this one, one that it wraps, or None."""
    if error is None or isinstance(error, ModuleNotFoundError):
        return error
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return error if "lightning" in raised_in.parts else _refusal(error.__cause__ or error.__context__)


class Job:
    """One fit, validate, test or predict. Making it parses and checks the command line; `do` runs it."""

    def __init__(self, args: Sequence[str], signals: Signals, watchdog: FailureWatchdog) -> None:
        self.command, self.args, self.signals, self.watchdog = args[0], args, signals, watchdog
        self.fits = self.command == "fit"
        self.checkpoint: Path | None = None
        self.checkpoint_io, self.progress = CheckedCheckpointIO(), Progress()
        self.throughput, self.time = Throughput(), FitTime()
        self.lock: RunLock | None = None  # on the run's folder, held by the first rank of a fit
        self.saved: CheckpointContent | None = None
        self.parser = build_parser(self.command)
        self.given = given = self.parser.read(args[1:], None if self.fits else self.config_of_run)
        seed_everything(given.seed_everything, workers=True)
        check_trainer(self.command, given, torch.cuda.device_count(), os.environ)
        for line in ignored_variables(os.environ) if self.fits else ():
            log.warning(line)
        if self.checkpoint is None and (given.ckpt_path or not self.fits):
            self.checkpoint = find_checkpoint(given.ckpt_path or "best", given.run.root, given.run.name)
        check_fit_paths(given, self.checkpoint)

    def config_of_run(self) -> Path:
        """The config of the run whose checkpoint is measured: its model and data."""
        run, self.checkpoint = run_to_measure(self.args)
        return run.config()

    def do(self) -> None:
        """Check that model, data and checkpoint exist and suit each other, make the Trainer, then the run's folder, and
        run the command."""
        chosen = self.parser.build(self.given, "trainer", "checkpoint", "run")
        found = run_of(self.checkpoint) if self.checkpoint else None
        self.own_checkpoint = self.checkpoint.resolve() if self.checkpoint and found else None
        self.run = found or Run(Path(chosen.run.root) / chosen.run.name)
        if self.fits and found:
            self.lock_run()
        self.model, self.data = build_model(self.parser, self.given), build_data(self.parser, self.given)
        self.check_sources()
        self.data.trains = self.fits
        self.model.gradients.replay = ReplayFiles(self.run)
        self.model.cancelled = lambda: bool(self.signals.received)
        self.dry = self.fits and bool(chosen.trainer.fast_dev_run)  # a try that writes nothing
        self.trainer = self.make_trainer(chosen.trainer, chosen.checkpoint)
        disable_signal_handlers(self.trainer)
        if self.fits:  # prepares the rows and plans the epochs: what does not suit them is refused before a run begins
            self.data.trainer = self.trainer
            self.data.setup("fit")
        if not self.dry:
            self.open_run(chosen.run, found is None)
        if self.fits and chosen.trainer.logger is not False and not self.dry:
            position = self.saved.resume_position if self.saved else None
            first_step = position.global_step + 1 if position else None
            own = [MetricsCsv(self.run.folder), TensorBoard(self.run.folder, first_step)]
            self.trainer.loggers = [*own, *self.trainer.loggers]
        if self.fits:
            self.fit()
        elif self.command == "predict":
            self.trainer.predict(self.model, self.data, ckpt_path=self.checkpoint)
        else:
            stage = "val" if self.command == "validate" else "test"
            getattr(self.trainer, self.command)(self.model, self.data, ckpt_path=self.checkpoint, verbose=False)
            if self.trainer.is_global_zero:
                figures = stage_figures(self.trainer.callback_metrics, stage)
                print_beside_before(self.run, self.data, self.model, {stage: figures})

    def check_sources(self) -> None:
        model_folder(self.model.name, self.model.revision)
        self.data.open_sources()
        if self.checkpoint is not None:
            self.saved = self.checkpoint_io.read_ahead(self.checkpoint)
            go_on_with_template(self.data, self.saved.data)
        assert self.data.template  # raises UserError for a template that does not suit the model
        if self.saved is not None:
            self.model.identity.check(self.saved, resumes=self.fits)
            self.model.lora_start = self.saved.lora_start
            if self.fits and self.model.start.given:
                log.info("model.start is not read again: the checkpoint has the weights")
            self.model.start.go_on(self.saved.parents)
            if self.command in ("test", "predict") and (warning := self.data.seen_warning(self.saved.data)):
                log.warning(warning)
        elif self.fits:
            self.model.start.read(self.model)
            if warning := seen_by_parent_warning(self.model.start.data, settings_of(self.data)):
                log.warning(warning)

    def lock_run(self) -> None:
        if not is_first_process():
            return
        self.lock = RunLock(self.run.folder)
        for folder in (self.run.folder, self.run.checkpoints, *self.run.folder.glob("set-aside/*")):
            remove_leftovers(folder)  # a fit at its last step writes no checkpoint that would do it

    @rank_zero_only
    def open_run(self, settings: RunSettings, new: bool) -> None:
        """Make the folder of a new run. RunStart gives it to the other ranks. A fit from a checkpoint continues in the
        folder of the checkpoint."""
        if self.fits and new:
            self.run.folder = new_run(settings).folder
            self.lock_run()
        if self.fits and self.checkpoint is None:
            self.write_start()
        text = f"{self.run.folder}, {self.checkpoint.name}" if self.checkpoint else str(self.run.folder)
        log.info(f"continuing {text}" if self.fits and self.checkpoint else f"run {text}")

    def make_trainer(self, chosen: Any, checkpoint: CheckpointSettings) -> Trainer:
        """A Trainer with the config's callbacks, loggers and plugins, followed by those of the command."""
        loggers = [one for one in as_list(chosen.logger) if self.fits and not isinstance(one, bool)]
        more: dict[str, Any] = {} if self.fits else {"enable_checkpointing": False}
        plugins, callbacks = [*as_list(chosen.plugins), self.checkpoint_io], [*as_list(chosen.callbacks)]
        check_classes("trainer.callbacks", callbacks)
        check_classes("trainer.profiler", as_list(chosen.profiler))
        for one in (one for one in callbacks if isinstance(one, EarlyStopping)):
            one.strict = False  # its figure is known, but a fit may end before the first validation
        callbacks.append(self.watchdog)
        if self.dry:
            more["enable_checkpointing"] = False
        else:
            callbacks.append(RunStart(self.run, self.write_start if self.fits and self.checkpoint else None))
        if self.fits and not self.dry:
            settings = self.run, checkpoint, self.signals, self.saved
            saving = CheckpointCallback(*settings, chosen=self.own_checkpoint, timed=self.time.saving)
            callbacks += [self.time, SampleTable(self.run), self.throughput, ResumeHint(self.run), saving]
        elif self.command == "predict":
            callbacks.append(WritePredictions(self.run))
        if chosen.enable_progress_bar is not False and not any(isinstance(one, ProgressBar) for one in callbacks):
            callbacks.append(self.progress)
        if "ModelParallel" in type(chosen.strategy).__name__:
            more["inference_mode"] = False  # with it, some releases of torch cannot put sharded weights together
            if chosen.precision == "16-mixed":
                plugins.append(ShardedHalfPrecision())
                more["precision"] = None
        return Trainer(**{**vars(chosen), "callbacks": callbacks, "logger": loggers, "plugins": plugins, **more})

    @rank_zero_only
    def write_start(self) -> None:
        """Write the settings and the environment that training begins with. A continued run writes them only when
        nothing can be refused any more, since the other commands use the newest config of a run."""
        suffix, config = self.run.suffix(), self.given.clone()
        config.ckpt_path, config.allow_modules = None, []  # of this start, not of the run
        parents = self.model.start.parents
        config.model.start = parents[0].path if parents else None
        config.data.template = self.data.run_template.to_keep(self.data.think_tokenizer)
        with disk_errors("run.root", self.run.folder):
            write_file(self.run.folder / f"config{suffix}.yaml", self.parser.inner.dump(config, "yaml", False))
        write_environment(self.run.folder, suffix, ["python", "cli.py", *self.args], plain(parents))

    def fit(self) -> None:
        """Train, between a measurement of the model that it begins with and one of the best checkpoint."""
        trainer, model, data, record = self.trainer, self.model, self.data, rank_zero_only(self.run.update_summary)
        if not self.dry and self.checkpoint is None:
            self.progress.doing = f"measuring the {'start' if model.start.parents else 'base'}"
            shown = [one for one in trainer.callbacks if isinstance(one, SampleTable)]  # type: ignore[attr-defined]
            before = measure_before(self.given, trainer, model, data, shown)
            self.progress.doing = None
            record(before=before.figures, right_before=before.rights, parents=plain(model.start.parents))
            self.advise_on_precision()
        trainer.fit(model, datamodule=data, ckpt_path=self.checkpoint)
        if self.dry:
            return
        done = trainer.global_step
        training = self.throughput.figures(trainer.world_size)  # loading best.ckpt sets the counts back to its step
        best = trainer.strategy.broadcast(self.run.best_or_last())
        trainer.loggers = []  # the figures of best.ckpt are no point of the curve
        self.progress.doing = f"measuring {best.name}"
        trainer.validate(model, data, ckpt_path=best if best.is_file() else None, verbose=False)
        after = stage_figures(trainer.callback_metrics, "val")
        measured = {"checkpoint": best.name, "after_step": trainer.global_step, "time": self.time.figures()}
        record(after=after, right_after=rights(model.answered), training=training, **measured)
        if trainer.is_global_zero:
            print_beside_before(self.run, self.data, model, {"val": after})
            print_samples(model.answered)
            for parent in model.start.parents[:1]:
                log.info(f"start: {parent.described()}")
            log.info(f"after: {best.name}, of optimizer step {trainer.global_step:,} of {done:,}")
            log.info(self.time.line())
            log.info(f"written to {self.run.folder}")
            log.info(f"its page: python cli.py report {shlex.quote(str(self.run.folder))}")

    @rank_zero_only
    def advise_on_precision(self) -> None:
        """Say which precision is faster on this CPU, if the model is large enough for it to matter."""
        assert self.model.net is not None
        wide = self.model.net.causal_lm.config.hidden_size >= WIDE and self.trainer.strategy.root_device.type == "cpu"
        if wide and (advice := advice_for_cpu(str(self.trainer.precision), bfloat16_gain())):
            log.info(advice)


def plain(parents: Sequence[Parent]) -> list[dict[str, Any]]:
    return [asdict(one) for one in parents]


def as_list(given: Any) -> list[Any]:
    return [] if given is None else given if isinstance(given, list) else [given]
