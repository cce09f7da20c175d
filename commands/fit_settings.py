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

GROUPS: dict[str, tuple[Any, str]] = {
    "run": (RunSettings, "where the run is kept: runs/NAME/TIME"),
    "model": (ThinkTuner, "the base model, what of it is trained, and how"),
    "data": (MagpieDataModule, "the rows, and how they become tokens and batches"),
    "checkpoint": (CheckpointSettings, "when checkpoints are written, besides best.ckpt after a validation"),
    "trainer": (Trainer, "settings of Lightning's Trainer, in short; its documentation has more"),
}
# Not settings: the model has the tags and new tokens of the data, and the data has the tokenizer of the model
LINKED = {"model": ("tags", "new_tokens"), "data": ("tokenizer", "tokenizer_revision")}
TRAINER = {"max_epochs": 3, "num_sanity_val_steps": 0, "enable_model_summary": False, "use_distributed_sampler": False}
CKPT = "last, best, a run's folder or a .ckpt file"
TO_CONTINUE = f"Continue from this checkpoint: {CKPT}; give the run's config, too. null starts a new run."
TO_MEASURE = f"The checkpoint: {CKPT}. null is the newest run's best."


def fit_parser(command: str, more: str = "", ckpt_path: str = "Not used here.", shown: Collection[str] = ()) -> Parser:
    """A parser for the settings of fit. --help lists the groups in `shown`, and `ckpt_path` as that option's help."""
    parser = Parser(command, more if command == "fit" else f"{more} Takes every setting of fit (fit --help).".lstrip())
    parser.hidden, parser.brief = GROUPS.keys() - set(shown), ["trainer"]
    parser.add_config()
    parser.add_argument("--ckpt_path", type=str | None, help=ckpt_path)
    parser.add_argument("--seed_everything", type=int, default=1, help="Seed of the adapters' start and of dropout.")
    parser.add_allowed_modules()
    for key, (kind, title) in GROUPS.items():
        parser.add_class_arguments(kind, key, title, LINKED.get(key, ()), **(TRAINER if key == "trainer" else {}))
    return parser


def build_parser(command: str) -> Parser:
    """The parser of fit, validate, test or predict."""
    return fit_parser(command, "", *((TO_CONTINUE, GROUPS) if command == "fit" else (TO_MEASURE, ("run",))))


def build_data(parser: Parser, given: Namespace) -> MagpieDataModule:
    settings, model = vars(parser.build(given, "data").data), given.model
    return MagpieDataModule(**settings, tokenizer=model.name, tokenizer_revision=model.revision)


def build_model(parser: Parser, given: Namespace) -> ThinkTuner:
    settings = parser.build(given, "model", "data")
    settings.model.evaluation.decoding.check(group="model.evaluation.decoding.")
    return ThinkTuner(**vars(settings.model), tags=settings.data.tags, new_tokens=settings.data.new_tokens)
