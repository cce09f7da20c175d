"""The settings of fit, which preview, estimate and others take as well; model and data are built from them here."""

from collections.abc import Collection
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer

from commands.parsing import Parser
from datamodules.magpie import MagpieDataModule
from lightning_modules.checkpoints.checkpoint_callback import CheckpointSettings
from lightning_modules.run.folder import RunSettings
from lightning_modules.think_tuner import ThinkTuner

TITLES = {
    "run": "where the run is kept",
    "model": "the base model, what of it is trained, and how",
    "data": "the rows, how they become tokens, and how those become batches",
    "checkpoint": "when a checkpoint is written; best.ckpt is written after each validation that is the best so far",
    "trainer": "Lightning's Trainer; https://lightning.ai/docs/pytorch/stable/common/trainer.html has the long form",
}
TRAINER = {"max_epochs": 3, "num_sanity_val_steps": 0, "enable_model_summary": False, "use_distributed_sampler": False}
SAME_AS_FIT = " Takes every setting of fit (python cli.py fit --help)"


def fit_parser(command: str, description: str, ckpt_path: str, shown: Collection[str] = ()) -> Parser:
    """A parser for the settings of fit. `ckpt_path` is its help; --help lists the groups in `shown`."""
    parser = Parser(command, description)
    parser.add_config()
    parser.add_argument("--ckpt_path", type=str | None, help=ckpt_path)
    parser.add_argument("--seed_everything", type=int, default=1, help="Seed of the adapters' start and of dropout.")
    titles = {key: title if key in shown else None for key, title in TITLES.items()}
    parser.add_class_arguments(RunSettings, "run", titles["run"])
    # Not settings: the tags and new tokens of the model are those of the data, the tokenizer of the data is the model's
    parser.add_class_arguments(ThinkTuner, "model", titles["model"], skip=("tags", "new_tokens"))
    parser.add_class_arguments(MagpieDataModule, "data", titles["data"], skip=("tokenizer", "tokenizer_revision"))
    parser.add_class_arguments(CheckpointSettings, "checkpoint", titles["checkpoint"])
    parser.add_class_arguments(Trainer, "trainer", titles["trainer"], defaults=TRAINER, brief=True)
    return parser


def built(parser: Parser, given: Namespace, *groups: str) -> Any:
    """Some groups of the settings, with the classes that they name built."""
    return parser.inner.instantiate_classes(Namespace({group: given[group] for group in groups}))  # type: ignore[no-untyped-call]


def build_data(parser: Parser, given: Namespace) -> MagpieDataModule:
    settings, model = vars(built(parser, given, "data").data), given.model
    return MagpieDataModule(**settings, tokenizer=model.name, tokenizer_revision=model.revision)


def build_model(parser: Parser, given: Namespace) -> ThinkTuner:
    settings = built(parser, given, "model", "data")
    return ThinkTuner(**vars(settings.model), tags=settings.data.tags, new_tokens=settings.data.new_tokens)
