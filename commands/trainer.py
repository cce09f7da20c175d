"""fit, validate, test and predict: Lightning's CLI over ThinkTuner and MagpieDataModule, with runs kept in folders."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from commands.parsing import Complaint, Parser, explain
from commands.preflight import check_hardware, config_files
from datamodules.magpie import MagpieDataModule
from datamodules.tokenize import ThinkTokenizer
from errors import INTERRUPTED, TERMINATED, UserError
from hub import model_folder
from lightning_modules.callbacks import (
    CheckpointSettings,
    MetricsCsv,
    SampleTable,
    TensorBoard,
    Throughput,
    WayOn,
    WritePredictions,
    checkpoint_callbacks,
)
from lightning_modules.checkpoint import KEY, CheckedCheckpointIO, check_identity, identity, read_checkpoint
from lightning_modules.runs import Run, RunSettings, find_checkpoint, locate, new_run, run_of
from lightning_modules.summary import print_samples, print_table, stage_figures
from lightning_modules.think_tuner import ThinkTuner

log = logging.getLogger("thinkwright")
RUN_FOLDER = "THINKWRIGHT_RUN_FOLDER"  # tells the processes that DDP starts which folder the first one made
NOT_FOR_USERS = (
    "LightningCLI's args parameter", ".*LeafSpec.*", ".*does not have many workers.*", ".*in eval mode.*",
    ".*smaller than the logging interval.*", ".*Checkpoint directory .* exists.*", ".*Experiment logs directory.*",
    "Be aware that when using `ckpt_path`.*", ".*could not find the monitored key.*",
)  # fmt: skip


def run(args: Sequence[str]) -> int:
    """Runs the command line `args`, the command first; returns the exit code."""
    quiet()
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    try:
        ThinkCLI(args)
    except Complaint as complaint:
        raise explain(complaint, args) from complaint
    except MisconfigurationException as error:
        raise UserError(
            "trainer", None, " ".join(str(error).split()).rstrip("."), "change the trainer settings"
        ) from error
    except SIGTERMException:
        return TERMINATED
    except SystemExit as stop:  # how Lightning ends a fit after Ctrl-C; --help and --print_config end this way, too
        return INTERRUPTED if isinstance(stop.__context__, KeyboardInterrupt) else int(stop.code or 0)
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

    def __init__(self, args: Sequence[str]) -> None:
        self.command = args[0]
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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_class_arguments(RunSettings, "run")
        parser.add_class_arguments(CheckpointSettings, "checkpoint")
        # The tokenizer is the model's: with another one the ids would mean other words
        parser.link_arguments("model.name", "data.tokenizer")
        parser.link_arguments("model.revision", "data.tokenizer_revision")
        # The tags that the data is rendered with are those that the model has rows for
        parser.link_arguments("data.tags.open", "model.tags.open")
        parser.link_arguments("data.tags.close", "model.tags.close")

    def _parse_ckpt_path(self) -> None:
        """Lightning lets hyper-parameters in a checkpoint overrule the command line; ours hold none."""

    # Before anything is loaded

    def before_instantiate_classes(self) -> None:
        self.settings = self.config[self.command]
        model = self.settings.model
        check_hardware(self.settings.trainer, model.dtype, torch.cuda.device_count(), model.quantize)
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
        chosen = self.config_init[self.command].trainer
        self.run = self.run_folder()
        callbacks, loggers = _as_list(chosen.callbacks), []
        if self.command == "fit":
            self.throughput = Throughput()
            samples = SampleTable(self.run.folder / "samples.md")
            callbacks += [
                samples,
                self.throughput,
                WayOn(self.run),
                *checkpoint_callbacks(self.run, self.config_init.fit.checkpoint),
            ]
            if chosen.logger is not False:
                loggers = [
                    MetricsCsv(self.run.folder),
                    TensorBoard(self.run.folder),
                    *(_as_list(chosen.logger) if chosen.logger is not True else []),
                ]
        elif self.command == "predict":
            callbacks.append(WritePredictions(self.run))
        if self.command != "fit":
            kwargs["enable_checkpointing"] = False
        return super().instantiate_trainer(
            callbacks=callbacks, logger=loggers, plugins=[*_as_list(chosen.plugins), CheckedCheckpointIO()], **kwargs
        )

    def check_what_is_named(self) -> None:
        model: ThinkTuner = self.model
        folder = model_folder(model.name, model.revision)
        self.datamodule.open_sources()
        assert self.datamodule.template  # says so where it does not suit the model
        if self.checkpoint is not None:
            tokenizer = ThinkTokenizer.load(model.name, model.revision, model.tags)
            saved = read_checkpoint(self.checkpoint)[KEY]
            known = identity(folder, False, tokenizer, model.lora)
            if self.command == "fit":  # elsewhere adapters of a 4-bit base may be tried on the whole one
                known["quantize"] = model.quantize
            check_identity(saved["identity"], saved["base"], known)
            model.lora_start = saved.get("lora_start")

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
        if self.command == "fit" and _rank() == 0:
            config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))[self.command]
            config["ckpt_path"] = None  # a fact of this start, not a setting of the run
            found.new_config().write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        return found

    # Around Lightning's own

    def before_fit(self) -> None:
        """Measures the base as it is, so that the end can be held against it."""
        if self.checkpoint is None and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.trainer.validate(self.model, self.datamodule, verbose=False)
            self.record(before=stage_figures(self.trainer.callback_metrics, "val"))

    def after_fit(self) -> None:
        """Measures the best checkpoint, and prints and keeps the table of before and after."""
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        best = self.trainer.strategy.broadcast(self.run.best_or_last())
        self.trainer.loggers = []  # what best.ckpt reaches is not a point at the end of the curve
        self.trainer.validate(self.model, self.datamodule, ckpt_path=best if best.is_file() else None, verbose=False)
        after = stage_figures(self.trainer.callback_metrics, "val")
        self.record(
            after=after, training=self.throughput.figures(), data=asdict(self.datamodule.report), checkpoint=best.name
        )
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


def _as_list(given: Any) -> list[Any]:
    return [] if given is None else list(given) if isinstance(given, list) else [given]
