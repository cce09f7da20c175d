"""fit, validate, test and predict: Lightning's CLI over ThinkTuner and MagpieDataModule, with runs kept in folders."""

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
from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only

from commands.equip import Equipment, equip, equip_fit, equip_predict
from commands.parsing import Complaint, Parser, explain, missing_package
from commands.preflight import check_hardware, check_launch, config_files
from datamodules.magpie import MagpieDataModule
from errors import UserError
from hub import model_folder
from lightning_modules.checkpoints.checkpoint_callback import CheckpointCallback, CheckpointSettings
from lightning_modules.checkpoints.checkpoint_file import read_and_keep
from lightning_modules.checkpoints.content import CheckpointContent
from lightning_modules.checkpoints.replay_file import ReplayFiles
from lightning_modules.evaluation.summary import print_samples, print_table, stage_figures
from lightning_modules.internals.lightning_internals import disable_signal_handlers
from lightning_modules.run.callbacks import RunStart
from lightning_modules.run.environment import write_environment
from lightning_modules.run.failure_watchdog import FailureWatchdog
from lightning_modules.run.folder import Run, RunSettings, find_checkpoint, locate, new_run, run_of
from lightning_modules.run.signals import Signals, Stopped
from lightning_modules.run.throughput import Throughput
from lightning_modules.think_tuner import ThinkTuner
from lightning_modules.update.precision import WIDE, advice_for_cpu, bfloat16_gain

log = logging.getLogger("thinkwright")
RUN_FOLDER = "THINKWRIGHT_RUN_FOLDER"  # tells the processes that DDP starts which folder the first one made
NOT_FOR_USERS = (
    "LightningCLI's args parameter", ".*LeafSpec.*", ".*in eval mode.*",
    ".*smaller than the logging interval.*", ".*Checkpoint directory .* exists.*", ".*Experiment logs directory.*",
    "Be aware that when using `ckpt_path`.*", ".*your dataloader is not resumable.*",
    "Detected call of `lr_scheduler.step.*",
)  # fmt: skip


def run(args: Sequence[str]) -> int:
    """Runs the command line `args`, the command first; returns the exit code."""
    quiet()
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    watchdog = FailureWatchdog()
    try:
        with Signals().taken() as signals:
            ThinkCLI(args, signals, watchdog)
            watchdog.close()
    except Complaint as complaint:
        raise explain(complaint, args) from complaint
    except Stopped as stopped:
        # A process that the first rank started must not be killed, with that one, for the code it ends with
        return 0 if watchdog.child else stopped.exit_code
    except UserError:
        if watchdog.told:
            return 0 if watchdog.child else 2
        raise
    except MisconfigurationException as error:
        raise UserError(
            "trainer", None, " ".join(str(error).split()).rstrip("."), "change the trainer settings"
        ) from error
    except (ModuleNotFoundError, ValueError) as error:  # jsonargparse wraps what a class named in the config raises
        if (missing := missing_package(error)) is None:
            raise
        problem = f"asks for a package that is not installed ({' '.join(str(missing).split())})"
        raise UserError("trainer", None, problem, "pip install it, or leave that class out") from error
    except SystemExit as stop:  # --help and --print_config end this way
        return int(stop.code or 0)
    return 0


def quiet() -> None:
    """Our own notices, once however many ranks there are, and of the libraries only what a user can act on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO if _rank() == 0 else logging.ERROR)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in NOT_FOR_USERS:
        warnings.filterwarnings("ignore", pattern)


def run_in_question(args: Sequence[str]) -> tuple[Run, Path]:
    """The run and checkpoint that `args` without --config speak of: those of --ckpt_path, else the newest run's."""
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--ckpt_path")
    peek.add_argument("--run.root", dest="root", default=RunSettings().root)
    peek.add_argument("--run.name", dest="name")
    given, _ = peek.parse_known_args(list(args[1:]))
    return locate(given.ckpt_path, given.root, given.name, otherwise="--config")


class ThinkCLI(LightningCLI):
    """Parses, checks, builds and runs; `args` begin with fit, validate, test or predict."""

    def __init__(self, args: Sequence[str], signals: Signals, watchdog: FailureWatchdog) -> None:
        self.command, self.args, self.signals, self.watchdog = args[0], args, signals, watchdog
        self.saved: CheckpointContent | None = None  # of the checkpoint in question
        self.in_question: tuple[Run, Path] | None = None
        parser_kwargs: dict[str, Any] = {}
        if self.command != "fit" and not config_files(args) and not {"-h", "--help"} & set(args):
            # Nothing is said about model and data, so they are those of the run in question
            self.in_question = run_in_question(args)
            parser_kwargs[self.command] = {"default_config_files": [str(self.in_question[0].config())]}
        super().__init__(
            ThinkTuner,
            MagpieDataModule,
            args=list(args),
            parser_class=Parser,
            parser_kwargs=parser_kwargs,
            save_config_callback=None,
            seed_everything_default=1,
            auto_configure_optimizers=False,
            trainer_defaults={
                "max_epochs": 3,
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,
                "use_distributed_sampler": False,
            },
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning asks the object
        """Only the command in question: the settings of each take a third of a second to read from the source."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunSettings, "run")
        parser.add_class_arguments(CheckpointSettings, "checkpoint")
        # The tokenizer is the model's: with another one the ids would mean other words
        parser.link_arguments("model.name", "data.tokenizer")
        parser.link_arguments("model.revision", "data.tokenizer_revision")
        # The tags that the data is rendered with are those that the model has rows for
        parser.link_arguments("data.tags.open", "model.tags.open")
        parser.link_arguments("data.tags.close", "model.tags.close")
        parser.link_arguments("data.new_tokens", "model.new_tokens")

    def _parse_ckpt_path(self) -> None:
        """Lightning lets hyper-parameters in a checkpoint overrule the command line; ours hold none."""

    # Before anything is loaded

    def before_instantiate_classes(self) -> None:
        self.settings = self.config[self.command]
        model = self.settings.model
        check_hardware(self.settings.trainer, model.dtype, torch.cuda.device_count(), model.quantize)
        check_launch(self.settings.trainer, torch.cuda.device_count(), os.environ)
        given, root, name = self.settings.ckpt_path, self.settings.run.root, self.settings.run.name
        if self.command == "fit":
            self.checkpoint = find_checkpoint(given, root, name) if given else None
        elif self.in_question is not None:
            self.checkpoint = self.in_question[1]
        else:
            self.checkpoint = find_checkpoint(given or "best", root, name)
        self.settings.ckpt_path = str(self.checkpoint) if self.checkpoint else None
        if self.command in ("validate", "test"):
            self.settings.verbose = False  # our table comes instead

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Checks that what is named exists, then makes or finds the run's folder and attaches what writes into it."""
        self.check_what_is_named()
        self.run = self.run_folder()
        if self.command == "fit" and self.checkpoint is None:
            self.keep_start()
        self.datamodule.trains = self.command == "fit"
        self.model.gradients.replay = ReplayFiles(self.run)
        self.model.cancelled = lambda: bool(self.signals.received)
        given = self.equipment(self.config_init[self.command].trainer)
        if self.command != "fit":
            kwargs["enable_checkpointing"] = False
        if "ModelParallel" in type(self.config_init[self.command].trainer.strategy).__name__:
            kwargs["inference_mode"] = False  # some releases of torch put sharded weights together only without
        trainer = super().instantiate_trainer(
            callbacks=given.callbacks, logger=given.loggers, plugins=given.plugins, precision=given.precision, **kwargs
        )
        disable_signal_handlers(trainer)
        return trainer

    def equipment(self, chosen: Any) -> Equipment:
        if self.command == "fit":
            self.throughput, checkpoints = Throughput(), self.config_init.fit.checkpoint
            own = CheckpointCallback(self.run, checkpoints, self.signals, self.saved)
            start = RunStart(self.run, self.keep_start if self.checkpoint else None)
            return equip_fit(chosen, self.run, self.watchdog, start, self.throughput, own)
        return (equip_predict if self.command == "predict" else equip)(chosen, self.run, self.watchdog)

    def check_what_is_named(self) -> None:
        model: ThinkTuner = self.model
        model_folder(model.name, model.revision)
        self.datamodule.open_sources()
        assert self.datamodule.template  # says so where it does not suit the model
        if self.checkpoint is not None:
            self.saved = read_and_keep(self.checkpoint)
            model.identity.check(self.saved, resumes=self.command == "fit")
            model.lora_start = self.saved.lora_start

    def run_folder(self) -> Run:
        """The folder of the run: a fit from a checkpoint goes on in that checkpoint's, any other fit gets a new one."""
        if self.checkpoint is not None and (found := run_of(self.checkpoint)):
            log.info(f"{'continuing' if self.command == 'fit' else 'run'} {found.folder}, {self.checkpoint.name}")
        elif self.command != "fit":
            return Run(Path(self.settings.run.root) / self.settings.run.name)
        elif _rank() != 0:
            return Run(Path(os.environ.get(RUN_FOLDER, self.settings.run.root)))
        else:
            found = new_run(RunSettings(self.settings.run.name, self.settings.run.root))
            log.info(f"run {found.folder}")
        os.environ[RUN_FOLDER] = str(found.folder)
        return found

    @rank_zero_only
    def keep_start(self) -> None:
        """Writes with what settings and on what machine training begins. Of a run that goes on only once nothing can be
        refused any more: its newest config is what the other commands go by."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))[self.command]
        config["ckpt_path"] = None  # a fact of this start, not a setting of the run
        suffix, text = self.run.suffix(), yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (self.run.folder / f"config{suffix}.yaml").write_text(text)
        write_environment(self.run.folder, suffix, ["python", "cli.py", *self.args])

    # Around Lightning's own

    def before_fit(self) -> None:
        """Measures the base as it is, so that the end can be held against it."""
        if self.checkpoint is None and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.trainer.validate(self.model, self.datamodule, verbose=False)
            self.record(before=stage_figures(self.trainer.callback_metrics, "val"))
            self.say_what_suits_the_cpu()

    @rank_zero_only
    def say_what_suits_the_cpu(self) -> None:
        wide = self.model.net.causal_lm.config.hidden_size >= WIDE
        if wide and self.trainer.strategy.root_device.type == "cpu":
            advice = advice_for_cpu(str(self.trainer.precision), bfloat16_gain())
            if advice is not None:
                log.info(advice)

    def after_fit(self) -> None:
        """Measures the best checkpoint, and prints and keeps the table of before and after."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        training = self.throughput.figures(self.trainer.world_size)  # loading best.ckpt sets them back to its step
        best = self.trainer.strategy.broadcast(self.run.best_or_last())
        self.trainer.loggers = []  # what best.ckpt reaches is not a point at the end of the curve
        self.trainer.validate(self.model, self.datamodule, ckpt_path=best if best.is_file() else None, verbose=False)
        after = stage_figures(self.trainer.callback_metrics, "val")
        self.record(after=after, training=training, checkpoint=best.name)
        if self.trainer.is_global_zero:
            print_table({"before": self.run.read_summary().get("before", {}), "after": after})
            print_samples(self.model.answered)
            log.info(f"written to {self.run.folder}")

    def after_validate(self) -> None:
        self.print_figures("val")

    def after_test(self) -> None:
        self.print_figures("test")

    def print_figures(self, stage: str) -> None:
        if self.trainer.is_global_zero:
            print_table({stage: stage_figures(self.trainer.callback_metrics, stage)})

    @rank_zero_only
    def record(self, **figures: Any) -> None:
        self.run.update_summary(**figures)


def _rank() -> int:
    """This process's rank, as far as it is known before there is a Trainer."""
    return int(getattr(rank_zero_only, "rank", 0))
