"""The model of a run without a Trainer: for generate, export and replay."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError

from commands.fit_settings import GROUPS, LINKED, build_data, build_model
from commands.parsing import Parser
from commands.which_run import find, run_config
from datamodules.magpie import MagpieDataModule
from datamodules.same_rows import go_on_with_template
from datamodules.text.segments import Template
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from hub import is_hub_id, local_folder, what_is_there
from lightning_modules.checkpoints.checkpoint_file import read_checkpoint, require_parts
from lightning_modules.checkpoints.content import CheckpointContent
from lightning_modules.run.folder import Run
from lightning_modules.think_tuner import ThinkTuner


@dataclass(frozen=True)
class Opened:
    """A run whose settings and checkpoint were read and found to fit this version. No weights of a base are loaded."""

    run: Run
    checkpoint: Path
    tuner: ThinkTuner  # without its net
    data: MagpieDataModule
    config: dict[str, Any]  # of the run
    content: CheckpointContent
    saved: dict[str, Any]  # the checkpoint

    def load(self, trained: bool = True) -> "Loaded":
        """Load the base, and put the checkpoint's weights on it; not if not `trained`: the model before its training.

        Raise UserError for a base or a checkpoint that does not fit this version. One model can be loaded.
        """
        self.tuner.lora_start = self.content.lora_start
        self.tuner.configure_model()
        if trained:
            self.tuner.on_load_checkpoint(self.saved)
            self.tuner.load_state_dict(self.saved["state_dict"], strict=False)
        step = self.saved.get("global_step")
        return Loaded(self.run, self.checkpoint, self.tuner, self.data.template, self.config, step, self.data)


@dataclass(frozen=True)
class Loaded:
    """A run's model with the weights of a checkpoint."""

    run: Run
    checkpoint: Path
    tuner: ThinkTuner
    template: Template
    config: dict[str, Any]  # of the run
    step: int | None  # optimizer steps done at the checkpoint; None in a replay file
    data: MagpieDataModule


def load_run(
    run: str | None,
    ckpt_path: str | None,
    root: str,
    checkpoint: dict[str, Any] | None = None,
    check: Callable[[ThinkTokenizer], None] | None = None,
    **model: Any,
) -> Loaded:
    """Return the model of a run with the weights of its checkpoint: `open_run`, and then `Opened.load`.

    `check` is called with the tokenizer before the model is loaded.
    """
    opened = open_run(run, ckpt_path, root, checkpoint, **model)
    if check is not None:
        check(opened.data.think_tokenizer)
    return opened.load()


def open_run(
    run: str | None, ckpt_path: str | None, root: str, checkpoint: dict[str, Any] | None = None, **model: Any
) -> Opened:
    """Return a run with its checkpoint, before the base is loaded.

    `checkpoint` is the file's content if it was read before. `model` overrides settings of the run's config. Raise
    UserError for a config or a checkpoint that does not fit this version.
    """
    found, path = find(run, ckpt_path, root)
    if checkpoint is None:
        checkpoint = read_checkpoint(path)
        require_parts(checkpoint, path, ["state_dict"])
    config = run_config(found)
    parser = Parser("generate")
    for group in ("model", "data"):
        parser.add_class_arguments(GROUPS[group][0], group, skip=LINKED[group])
    try:
        given = parser.inner.parse_object({"model": config["model"] | model, "data": config["data"]})
    except (ArgumentError, KeyError) as error:
        problem = f"does not fit this version ({' '.join(str(error).split())})"
        raise UserError("--run", found.config(), problem, "correct the file") from error
    parser.check(given)
    _check_base(str((config["model"] | model).get("name")), found)
    tuner, data = build_model(parser, given), build_data(parser, given)
    content = CheckpointContent.of(checkpoint, path)
    tuner.identity.check(content)
    tuner.start.go_on(content.parents)
    go_on_with_template(data, content.data)
    return Opened(found, path, tuner, data, config, content, checkpoint)


def _check_base(name: str, run: Run) -> None:
    """Raise UserError if the folder of the base is not there any more. An id of the hub is looked up later."""
    if local_folder(name) is None and not is_hub_id(name):
        fix = f"put it back, or give its new place as model.name in {run.config()}"
        raise UserError("model.name", name, f"was the base of this run, and {what_is_there(name)} now", fix)
