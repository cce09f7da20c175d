"""fit, validate, test, predict: a Trainer over ThinkTuner and MagpieDataModule, with runs kept in folders."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from tqdm.contrib.logging import logging_redirect_tqdm

from commands.callbacks_and_loggers import leave_signals_alone, trainer_arguments
from commands.fit_settings import SAME_AS_FIT, TITLES, build_data, build_model, built, fit_parser
from commands.preflight import check_hardware, check_launch, config_files
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from hub import model_folder
from lightning_modules.checkpoints.checkpoint_callback import CheckpointCallback
from lightning_modules.checkpoints.checkpoint_file import KEY, check_identity, identity, read_checkpoint
from lightning_modules.evaluation.summary import print_samples, print_table, stage_figures
from lightning_modules.run.callbacks import ResumeHint, RunStart, SampleTable, WritePredictions
from lightning_modules.run.environment import write_environment
from lightning_modules.run.folder import Run, RunSettings, find_checkpoint, locate, new_run, run_of
from lightning_modules.run.signals import FailureWatchdog, Signals, Stopped
from lightning_modules.run.throughput import Throughput
from lightning_modules.update.precision import WIDE, advice_for_cpu, bfloat16_gain

log = logging.getLogger("thinkwright")
RUN_FOLDER = "THINKWRIGHT_RUN_FOLDER"  # tells the processes that DDP starts which folder the first one made
NOT_FOR_USERS = (
    ".*LeafSpec.*", ".*in eval mode.*", ".*smaller than the logging interval.*", ".*Checkpoint directory .* exists.*",
    ".*Experiment logs directory.*", "Be aware that when using `ckpt_path`.*", ".*your dataloader is not resumable.*",
    "Detected call of `lr_scheduler.step.*",
)  # fmt: skip
# What a command does, and what its --ckpt_path means
ABOUT = {
    "fit": (
        "Train a model by a config, and measure it before and after. Everything about the run is written to "
        "runs/NAME/TIME. Example: python cli.py fit --config configs/demo.yaml --model.optim.lr 1e-3",
        "Continue from a checkpoint: last, best, a run's folder, or a .ckpt file. Give the same config with it. "
        "null starts a new run.",
    ),
    "validate": ("Measure a checkpoint on the validation rows.", ""),
    "test": ("Measure a checkpoint on held-out rows that validation never saw.", ""),
    "predict": ("Answer the rows of test, and write the answers to predictions-TIME.jsonl in the run's folder.", ""),
}
OF_A_RUN = "The checkpoint: best, last, a run's folder, or a .ckpt file. null is the best one of the newest run."


def run(args: Sequence[str]) -> int:
    """Run the command line `args`, which begins with the command; return the exit code."""
    quiet()
    watchdog = FailureWatchdog()
    try:
        with Signals().taken() as signals, logging_redirect_tqdm([log]):
            Job(args, signals, watchdog).do()
            watchdog.close()
    except Stopped as stopped:
        # The first rank kills all ranks if one that it started ends with another code than 0
        return 0 if watchdog.child else stopped.exit_code
    except UserError:
        if watchdog.told:
            return 0 if watchdog.child else 2
        raise
    except MisconfigurationException as error:
        problem = " ".join(str(error).split()).rstrip(".")
        raise UserError("trainer", None, problem, "change the trainer settings") from error
    except (ModuleNotFoundError, ValueError) as error:  # jsonargparse wraps what a class named in the config raises
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ModuleNotFoundError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        problem = f"asks for a package that is not installed ({' '.join(str(cause).split())})"
        raise UserError("trainer", None, problem, "pip install it, or remove that class") from error
    return 0


def quiet() -> None:
    """Print our own notices once for all ranks, and of the libraries' notices only those that a user can act on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO if _rank() == 0 else logging.ERROR)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in NOT_FOR_USERS:
        warnings.filterwarnings("ignore", pattern)


def named_run(args: Sequence[str]) -> tuple[Run, Path]:
    """The run and checkpoint that `args` without --config name: those of --ckpt_path, else the newest run's."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--ckpt_path")
    peek.add_argument("--run.root", dest="root", default=RunSettings().root)
    peek.add_argument("--run.name", dest="name")
    given, _ = peek.parse_known_args(list(args))
    return locate(given.ckpt_path, given.root, given.name, otherwise="--config")


class Job:
    """One fit, validate, test or predict. Making it parses and checks the command line; `do` runs it."""

    def __init__(self, args: Sequence[str], signals: Signals, watchdog: FailureWatchdog) -> None:
        self.command, self.args, self.signals, self.watchdog = args[0], args, signals, watchdog
        self.fits, self.saved = self.command == "fit", None
        named, rest = None, list(args[1:])
        if not self.fits and not config_files(rest) and not {"-h", "--help"} & set(rest):
            named = named_run(rest)  # its config has the settings of the model and the data
            rest = ["--config", str(named[0].config()), *rest]
        about, ckpt_path = ABOUT[self.command]
        shown = TITLES if self.fits else ("run",)
        self.parser = fit_parser(
            self.command, about if self.fits else about + SAME_AS_FIT, ckpt_path or OF_A_RUN, shown
        )
        self.given = given = self.parser.read(rest)
        seed_everything(given.seed_everything, workers=True)
        check_hardware(given.trainer, given.model.dtype, torch.cuda.device_count(), given.model.quantize)
        check_launch(given.trainer, torch.cuda.device_count(), os.environ)
        self.checkpoint: Path | None = None
        if named is not None:
            self.checkpoint = named[1]
        elif given.ckpt_path or not self.fits:
            self.checkpoint = find_checkpoint(given.ckpt_path or "best", given.run.root, given.run.name)

    def do(self) -> None:
        """Check that model, data and checkpoint exist and suit each other; then make the run's folder and the Trainer,
        and run the command."""
        chosen = built(self.parser, self.given, "trainer", "checkpoint", "run")
        self.model, self.data = build_model(self.parser, self.given), build_data(self.parser, self.given)
        self.check_sources()
        self.run = self.run_folder(chosen.run)
        if self.fits and self.checkpoint is None:
            self.write_start()
        self.data.trains = self.fits
        self.model.gradients.run, self.model.cancelled = self.run, lambda: bool(self.signals.received)
        self.throughput = Throughput()
        own = [self.watchdog, RunStart(self.run, self.write_start if self.fits and self.checkpoint else None)]
        if self.fits:
            checkpoints = CheckpointCallback(self.run, chosen.checkpoint, self.signals, self.saved)
            own += [SampleTable(self.run), self.throughput, ResumeHint(self.run), checkpoints]
        elif self.command == "predict":
            own.append(WritePredictions(self.run))
        self.trainer = Trainer(**trainer_arguments(self.command, chosen.trainer, self.run, own))
        leave_signals_alone(self.trainer)
        checkpoint = str(self.checkpoint) if self.checkpoint else None
        if self.fits:
            self.fit(checkpoint)
        elif self.command == "predict":
            self.trainer.predict(self.model, self.data, ckpt_path=checkpoint)
        else:
            measure = self.trainer.validate if self.command == "validate" else self.trainer.test
            measure(self.model, self.data, ckpt_path=checkpoint, verbose=False)
            stage = "val" if self.command == "validate" else "test"
            if self.trainer.is_global_zero:
                print_table({stage: stage_figures(self.trainer.callback_metrics, stage)})

    def check_sources(self) -> None:
        model = self.model
        folder = model_folder(model.name, model.revision)
        self.data.open_sources()
        assert self.data.template  # raises UserError for a template that does not suit the model
        if self.checkpoint is not None:
            tokenizer = ThinkTokenizer.load(model.name, model.revision, model.tags, model.new_tokens)
            self.saved = saved = read_checkpoint(self.checkpoint)[KEY]
            known = identity(folder, False, tokenizer, model.lora)
            if self.fits:  # the other commands may measure adapters of a 4-bit base on the whole one
                known["quantize"] = model.quantize
            check_identity(saved["identity"], saved["base"], known)
            model.lora_start = saved.get("lora_start")

    def run_folder(self, settings: RunSettings) -> Run:
        """The folder of the run. A fit from a checkpoint uses the checkpoint's; any other fit gets a new one."""
        if self.checkpoint is not None and (found := run_of(self.checkpoint)):
            log.info(f"{'continuing' if self.fits else 'run'} {found.folder}, {self.checkpoint.name}")
        elif not self.fits:
            return Run(Path(settings.root) / settings.name)
        elif _rank() != 0:
            return Run(Path(os.environ.get(RUN_FOLDER, settings.root)))
        else:
            found = new_run(settings)
            log.info(f"run {found.folder}")
        os.environ[RUN_FOLDER] = str(found.folder)
        return found

    @rank_zero_only
    def write_start(self) -> None:
        """Write the settings and the environment that training begins with. A continued run writes them only when
        nothing can be refused any more, since the other commands use the newest config of a run."""
        config = yaml.safe_load(self.parser.inner.dump(self.given, "yaml", False))
        config["ckpt_path"] = None  # belongs to this start, not to the run
        suffix, text = self.run.suffix(), yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (self.run.folder / f"config{suffix}.yaml").write_text(text)
        write_environment(self.run.folder, suffix, ["python", "cli.py", *self.args])

    def fit(self, checkpoint: str | None) -> None:
        """Train, between a measurement of the base and one of the best checkpoint."""
        trainer, model, data = self.trainer, self.model, self.data
        measured: bool = not trainer.fast_dev_run  # type: ignore[attr-defined]
        if measured and checkpoint is None:
            trainer.validate(model, data, verbose=False)
            self.record(before=stage_figures(trainer.callback_metrics, "val"))
            self.advise_on_precision()
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
        if not measured:
            return
        training = self.throughput.figures(trainer.world_size)  # loading best.ckpt sets the counts back to its step
        best = trainer.strategy.broadcast(self.run.best_or_last())
        trainer.loggers = []  # the figures of best.ckpt are no point of the curve
        trainer.validate(model, data, ckpt_path=best if best.is_file() else None, verbose=False)
        after = stage_figures(trainer.callback_metrics, "val")
        self.record(after=after, training=training, checkpoint=best.name)
        if trainer.is_global_zero:
            print_table({"before": self.run.read_summary().get("before", {}), "after": after})
            print_samples(model.answered)
            log.info(f"written to {self.run.folder}")

    @rank_zero_only
    def advise_on_precision(self) -> None:
        """Say which precision is faster on this CPU, if the model is large enough for it to matter."""
        assert self.model.net is not None
        wide = self.model.net.causal_lm.config.hidden_size >= WIDE
        if wide and self.trainer.strategy.root_device.type == "cpu":
            advice = advice_for_cpu(str(self.trainer.precision), bfloat16_gain())
            if advice is not None:
                log.info(advice)

    @rank_zero_only
    def record(self, **figures: Any) -> None:
        self.run.update_summary(**figures)


def _rank() -> int:
    """This process's rank, as far as it is known before there is a Trainer."""
    return int(getattr(rank_zero_only, "rank", 0))
