"""A run's model without a Trainer, for the commands that use it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings

from commands.parsing import Complaint, Parser
from datamodules.magpie import MagpieDataModule
from datamodules.text.segments import Template
from datamodules.text.tags import Tags
from datamodules.tokens.template import load_template
from errors import UserError
from lightning_modules.checkpoints.checkpoint_file import KEY, read_checkpoint
from lightning_modules.run.folder import Run, RunSettings, find_checkpoint, locate
from lightning_modules.think_tuner import ThinkTuner


@dataclass(frozen=True)
class Loaded:
    run: Run
    checkpoint: Path
    tuner: ThinkTuner
    template: Template
    config: dict[str, Any]  # the run's


def add_run_arguments(parser: Parser) -> None:
    """How a command is told which run it is about."""
    parser.add_argument("--run", type=str | None, default=None, help="Folder runs/NAME/TIME; else the newest run.")
    parser.add_argument("--ckpt_path", type=str | None, default=None, help="A .ckpt file, best or last; else best.")
    parser.add_argument("--root", type=str, default=RunSettings().root, help="Folder of all runs.")


def find(run: str | None, ckpt_path: str | None, root: str) -> tuple[Run, Path]:
    """The run and checkpoint meant. Raises UserError where there is none."""
    if run is not None:
        found = Run(Path(run).expanduser())
        found.config()  # says so if it is not a run
        checkpoint = {"last": found.last, "best": found.best, None: found.best_or_last()}.get(ckpt_path)
        return found, checkpoint or find_checkpoint(str(ckpt_path), root, None)
    return locate(ckpt_path, root, None, otherwise="--run")


def load_run(
    run: str | None, ckpt_path: str | None, root: str, content: dict[str, Any] | None = None, **model: Any
) -> Loaded:
    """The model of a run with the checkpoint's weights, or with those of `content` if it was read already; `model`
    overrides settings of the run's config."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    found, checkpoint = find(run, ckpt_path, root)
    content = content or read_checkpoint(checkpoint)
    parser = Parser()
    parser.add_class_arguments(ThinkTuner, "model")
    parser.add_class_arguments(MagpieDataModule, "data")
    config = yaml.safe_load(found.config().read_text())
    # The command line links these, so that a saved config has them only once
    linked = {
        "tags": config["data"].get("tags") or asdict(Tags()),
        "new_tokens": config["data"].get("new_tokens") or [],
    }
    try:
        parsed = parser.parse_object(
            {
                "model": config["model"] | linked | model,
                "data": config["data"],
            }
        )
    except (Complaint, KeyError) as error:
        raise UserError(
            "--run", found.config(), f"is of another version ({' '.join(str(error).split())})", "mend the file"
        ) from error
    built = parser.instantiate_classes(parsed)
    tuner: ThinkTuner = built.model
    tuner.lora_start = content[KEY].get("lora_start")
    tuner.configure_model()
    tuner.on_load_checkpoint(content)
    tuner.load_state_dict(content["state_dict"], strict=False)
    template = load_template(built.data.template_setting, built.data.system, tuner.tokenizer)
    return Loaded(found, checkpoint, tuner, template, config)
