"""A folder with the merged model as a GGUF file, and its card."""

import gc
import logging
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.text.segments import Template
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from hub import model_folder
from lightning_modules.export.card import card_text
from lightning_modules.export.card_facts import Card
from lightning_modules.export.check import Expected, Probe, after_rounding, run_computes
from lightning_modules.export.folder import export_folder
from lightning_modules.export.merged import merge_and_check
from lightning_modules.gguf.gguf_file import write_file
from lightning_modules.gguf.layers import check_layers
from lightning_modules.gguf.metadata import write_metadata
from lightning_modules.gguf.pre_tokenizer import find_pre_tokenizer
from lightning_modules.gguf.read_back import check_file, texts_with_ids
from lightning_modules.gguf.tensor_types import GgufType
from lightning_modules.gguf.vocabulary import write_vocabulary
from lightning_modules.servers.ollama_file import write_ollama_file
from lightning_modules.think_tuner import ThinkTuner

if TYPE_CHECKING:
    from gguf import GGUFWriter

log = logging.getLogger("thinkwright")


def check_package() -> None:
    """Raise UserError if the package gguf is not installed."""
    if find_spec("gguf") is None:
        fix = "pip install '.[gguf]', in the checkout of this program"
        raise UserError("--gguf", None, "needs the package gguf, which is not installed", fix)


def check_base(name: str, revision: str | None, trust_remote_code: bool, tokenizer: ThinkTokenizer) -> None:
    """Raise UserError, before a base is loaded, for layers or a tokenizer that llama.cpp would compute otherwise."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_folder(name, revision), trust_remote_code=trust_remote_code)
    except Exception:  # any; the loading of the base says what is wrong
        return
    check_layers(config)
    log.info(f"pre-tokenizer of llama.cpp that splits texts alike: {find_pre_tokenizer(tokenizer.full)}")


def export_gguf(
    tuner: ThinkTuner, template: Template, folder: Path, card: Card, kind: GgufType, probes: Sequence[Probe] = ()
) -> Path:
    """Write the merged model as a GGUF file of a type, with a model card. Returns the path of the file.

    Give a tuner in float32. The file is read again before the folder gets its name, and the tuner has no net
    afterwards: there would be two models in memory. Raises UserError for a model that has no place in a GGUF file, for
    a type that cannot hold its weights, and for a file that is not read as it was written.
    """
    assert tuner.net is not None
    expected = run_computes(tuner, probes)
    texts = texts_with_ids(tuner.tokenizer.full)
    rows, generation = tuner.net.vocabulary, tuner.generation_config
    model = merge_and_check(tuner.net, expected)
    check_layers(model.config)
    name = f"{card.name}-{kind}.gguf"

    def describe(writer: "GGUFWriter") -> None:
        write_metadata(writer, card, kind, generation)
        write_vocabulary(writer, tuner.tokenizer, template, rows, generation)

    with export_folder(folder) as scratch:
        written = write_file(scratch / name, model, kind, describe)
        if written.kept:
            log.info(f"{written.kept} matrices stay F16: Q8_0 takes rows of 32, 64, … numbers")
        expected = after_rounding(expected, model, kind)
        (scratch / "README.md").write_text(card_text(card, "gguf"), encoding="utf-8")
        write_ollama_file(scratch, tuner, template, card.license, card.max_length, card.one_block, weights=f"./{name}")
        tuner.net = model = None
        gc.collect()
        check_file(scratch / name, written, expected, texts)
        _log_equal(expected, kind)
    return folder / name


def _log_equal(expected: Sequence[Expected], kind: GgufType) -> None:
    asked = [one for one in expected if one.probe.messages]
    # The logits before each written token: greedy decoding writes the same where each is the largest
    same = sum(
        one.logits[len(one.probe.ids) - 1 : -1].argmax(-1).tolist() == list(one.written) if one.written else True
        for one in asked
    )
    other = "" if same == len(asked) else f"; the others part where {kind} changes the order of two tokens"
    log.info(
        f"the file was read again: all weights are as written, {len(asked)} prompts have the ids of training, and "
        f"{same} greedy texts are those of generate{other}"
    )


def quantize_line(file: Path, kind: GgufType) -> str:
    """Return how to make a smaller file."""
    if kind == "Q8_0":
        return "K-quants are made of an F16 file: export --gguf F16, which prints the line"
    target = file.with_name(f"{file.stem.removesuffix(f'-{kind}')}-Q4_K_M.gguf")
    return f"K-quants: llama-quantize {shlex.quote(str(file))} {shlex.quote(str(target))} Q4_K_M"
