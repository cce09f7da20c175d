"""export: write a run's model as a folder for transformers."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from commands.load import load_run
from commands.parsing import Parser
from commands.which_run import add_run_arguments, find
from errors import UserError
from hub import what_is_there
from lightning_modules.export import Card, export_adapter, export_merged

log = logging.getLogger("thinkwright")


def build_parser() -> Parser:
    parser = Parser("export")
    add_run_arguments(parser)
    parser.add_argument(
        "--to", type=str | None, default=None, help="New folder; null: the folder export or adapter in the run folder."
    )
    parser.add_argument(
        "--adapter", action="store_true", help="Write a PEFT adapter of some megabytes instead of the merged model."
    )
    return parser


def run(args: Sequence[str]) -> int:
    given = build_parser().read(args)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    # Merge in float32 and round once, at the end. Never merge into 4-bit layers: they would round the result to 4 bits
    overrides: dict[str, Any] = {"quantize": None} | ({} if given.adapter else {"dtype": "float32"})
    # Looked up once: a second look might find a newer run, and would write it into the folder of this one
    found, checkpoint = find(given.run, given.ckpt_path, given.root)
    folder = Path(given.to).expanduser() if given.to else found.folder / ("adapter" if given.adapter else "export")
    check_new(folder)
    loaded = load_run(str(found.folder), str(checkpoint), given.root, **overrides)
    if loaded.tuner.evaluation.decoding.controlled:
        log.warning("the exported model does not steer thinking, as this run's model.evaluation.decoding does")
    figures = loaded.run.read_summary().get("after", {})
    card = Card(
        loaded.tuner.name, loaded.tuner.revision, figures, loaded.checkpoint, loaded.config["model"].get("quantize"),
        loaded.step, loaded.tuner.start.parents,
    )  # fmt: skip
    if given.adapter:
        export_adapter(loaded.tuner, loaded.template, folder, card)
    else:
        held_in: torch.dtype = getattr(torch, loaded.config["model"]["dtype"])
        export_merged(loaded.tuner, loaded.template, folder, card, held_in)
    print(folder)
    return 0


def check_new(folder: Path) -> None:
    """Raise UserError if a folder has files, or if a file is where it or a folder above it should be."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        below = "" if there == folder else f" is below {there}, which"
        raise UserError("--to", folder, f"{below} {what_is_there(str(there))}".strip(), "give a new folder")
    if there == folder and any(folder.iterdir()):
        raise UserError("--to", folder, "exists and is not empty", "give a new folder")
