"""export: write a run's model as a folder for transformers."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from commands.load import add_run_arguments, load_run
from commands.parsing import Parser
from errors import UserError
from lightning_modules.export import Card, export_adapter, export_merged


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
    loaded = load_run(given.run, given.ckpt_path, given.root, **overrides)
    folder = Path(given.to).expanduser() if given.to else loaded.run.folder / ("adapter" if given.adapter else "export")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("--to", folder, "exists and is not empty", "give a new folder")
    figures = loaded.run.read_summary().get("after", {})
    card = Card(
        loaded.tuner.name, loaded.tuner.revision, figures, loaded.checkpoint, loaded.config["model"].get("quantize")
    )
    if given.adapter:
        export_adapter(loaded.tuner, loaded.template, folder, card)
    else:
        held_in: torch.dtype = getattr(torch, loaded.config["model"]["dtype"])
        export_merged(loaded.tuner, loaded.template, folder, card, held_in)
    print(folder)
    return 0
