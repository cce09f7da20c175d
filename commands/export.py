"""export: write a run's model as a folder for transformers, and compare the folder with the run."""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from commands.export_card import card_of, system_place
from commands.load import load_run
from commands.messages import quiet
from commands.parsing import Parser
from commands.probes import probes
from commands.which_run import add_run_arguments, find, run_config
from datamodules.text.steps import StepSettings
from disk import TEMPORARY, disk_errors, remove_leftovers
from errors import UserError
from hub import local_folder, what_is_there
from lightning_modules.export.adapter import export_adapter
from lightning_modules.export.merged import export_merged
from lightning_modules.export.push import check_push, push
from lightning_modules.gguf.gguf_export import check_base, check_package, export_gguf, quantize_line
from lightning_modules.gguf.tensor_types import GgufType
from lightning_modules.net.base_model import Dtype
from lightning_modules.servers.one_block import check_one_block
from lightning_modules.servers.vllm_parser import vllm_line

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
    parser.add_argument(
        "--dtype", type=Dtype | None, default=None, help="Dtype of the merged weights; null: model.dtype of the run."
    )
    parser.add_argument(
        "--max_shard_size",
        type=str | None,
        default=None,
        help="Largest file of the merged weights, like 2GB; null: one file up to the 50GB of transformers.",
    )
    parser.add_argument(
        "--single_block",
        action="store_true",
        help="The folder is for servers that know one think block in an answer: refuse a run that writes several.",
    )
    parser.add_argument(
        "--gguf",
        type=GgufType | None,
        default=None,
        help="Write the merged model as a GGUF file of this type instead, for llama.cpp and Ollama, into the folder "
        "gguf-TYPE; null: no GGUF file.",
    )
    parser.add_argument(
        "--push",
        type=str | None,
        default=None,
        help="Upload the folder to this repository of the Hugging Face hub, OWNER/NAME. One that does not exist is "
        "created as a private one; its page on the hub can make it public.",
    )
    return parser


def run(args: Sequence[str]) -> int:
    quiet()
    given = build_parser().read(args)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    # Merge in float32 and round once, at the end. Never merge into 4-bit layers: they would round the result to 4 bits.
    # An adapter is compared in float32 as well, in which every difference shows
    overrides: dict[str, Any] = {"quantize": None, "dtype": "float32"}
    # Looked up once: a second look might find a newer run, and would write it into the folder of this one
    found, checkpoint = find(given.run, given.ckpt_path, given.root)
    kind = "adapter" if given.adapter else f"gguf-{given.gguf}" if given.gguf else "export"
    folder = Path(given.to).expanduser() if given.to else found.folder / kind
    check(given)
    check_new(folder)
    if given.single_block:
        thoughts = found.read_summary().get("after", {}).get("thoughts")
        steps = run_config(found)["data"].get("steps") or {}
        check_one_block(steps.get("split", StepSettings().split), thoughts, str(found.folder))
    if given.push:
        base = str(run_config(found)["model"].get("name"))
        if given.adapter and (local := local_folder(base)):
            problem = f"would get an adapter of a base that only this machine has, {local}"
            raise UserError("--push", given.push, problem, "delete --adapter")
        check_push(given.push)
    if given.gguf:
        check_package()
        model = run_config(found)["model"]
        code = bool(model.get("trust_remote_code"))
        overrides["check"] = partial(check_base, str(model.get("name")), model.get("revision"), code)
    loaded = load_run(str(found.folder), str(checkpoint), given.root, **overrides)
    if loaded.tuner.evaluation.decoding.controlled:
        log.warning("the exported model does not steer thinking, as this run's model.evaluation.decoding does")
    log.info(f"chat template: {system_place(loaded.template)}")
    dtype = given.dtype or loaded.config["model"]["dtype"]
    card = card_of(loaded, "" if given.adapter else given.gguf or dtype, given.push)
    compared = probes(loaded.template, loaded.tuner.tokenizer)
    if given.adapter:
        export_adapter(loaded.tuner, loaded.template, folder, card, compared)
        if card.new_tokens:
            log.info("vLLM, llama.cpp and Ollama cannot load embeddings of new tokens: give them the merged model")
    elif given.gguf:
        file = export_gguf(loaded.tuner, loaded.template, folder, card, given.gguf, compared)
        log.info(quantize_line(file, given.gguf))
    else:
        held_in: torch.dtype = getattr(torch, dtype)
        export_merged(loaded.tuner, loaded.template, folder, card, held_in, compared, given.max_shard_size)
        log.info(f"for vLLM: {vllm_line(folder)}")
    print(folder)
    if given.push:
        print(
            push(folder, given.push, f"{card.name}: {'adapter' if given.adapter else given.gguf or 'merged'} weights")
        )
    return 0


def check(given: Any) -> None:
    """Raise UserError for options that have no meaning beside --adapter or --gguf."""
    for option in ("adapter", "dtype", "max_shard_size"):
        if given.gguf and given[option]:
            problem = "has no meaning beside --gguf, which writes merged weights of its own type to one file"
            raise UserError(f"--{option}", None, problem, f"delete --{option} or --gguf")
    if given.gguf and given.to and given.to.endswith(".gguf"):
        problem = "is the name of a file, and export writes a folder with the file and its card"
        raise UserError("--to", given.to, problem, "give a new folder")
    for option in ("dtype", "max_shard_size"):
        if given.adapter and given[option] is not None:
            problem = "is about merged weights, and an adapter has small ones in float32"
            raise UserError(f"--{option}", given[option], problem, f"delete --{option} or --adapter")


def check_new(folder: Path) -> None:
    """Raise UserError if a folder has files or cannot be made, or if a file is in its place or above it."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        below = "" if there == folder else f" is below {there}, which"
        raise UserError("--to", folder, f"{below} {what_is_there(str(there))}".strip(), "give a new folder")
    if there == folder and any(folder.iterdir()):
        raise UserError("--to", folder, "exists and is not empty", "give a new folder")
    remove_leftovers(there)  # also what a kill leaves of the next lines
    tried = there / f"{TEMPORARY}{os.getpid()}-tried"
    with disk_errors("--to", folder):  # before a model is loaded
        tried.mkdir(exist_ok=True)
    with suppress(OSError):  # another process may have deleted it
        tried.rmdir()
