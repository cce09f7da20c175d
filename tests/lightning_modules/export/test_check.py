"""An exported folder that computes something else than the run is found, and is not there afterwards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from commands.probes import probes
from datamodules.tokens.template import load_template
from errors import UserError
from lightning_modules.export import merged
from lightning_modules.export.adapter import export_adapter
from lightning_modules.export.check import Probe
from lightning_modules.export.merged import export_merged
from lightning_modules.export.tokenizer_files import write_tokenizer
from lightning_modules.net.lora import LoraSettings
from lightning_modules.servers.ollama_file import write_ollama_file
from lightning_modules.think_tuner import ThinkTuner
from tests.lightning_modules.export.conftest import CARD

Trained = Callable[..., ThinkTuner]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def one_bit(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("o_proj.weight"))
    tensors[name].view(torch.uint8)[0, 0] ^= 1  # the last bit of a number
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def other_positions(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    rope = config["rope_parameters"]
    edit(folder / "config.json", rope_parameters=rope | {"rope_theta": rope["rope_theta"] * 1.3})


def other_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("### Instruction: ", "### instruction: "))


def failing_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text() + "{{ raise_exception('not this one') }}")


def without_parts(folder: Path) -> None:
    """A template that takes content as a text only."""
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("['text']", "['words']"))


def other_generation(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "generation_config.json", **changes)


def split_tags(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] != "</think>"]
    path.write_text(json.dumps(content))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a bit of a weight": (one_bit, "o_proj.weight' is not read as it was written"),
    "the config": (other_positions, "computes logits that are .* of the largest away"),
    "a missing file": (lambda folder: (folder / "config.json").unlink(), "cannot be opened"),
    "the template": (other_template, "has other ids than in training in the written chat template"),
    "a tag": (split_tags, "has other ids than in training in the written chat template"),
    "a template that fails": (failing_template, "cannot be opened.*not this one"),
    "a template without parts": (without_parts, "cannot be opened"),
    "suppressed ids": (other_generation(suppress_tokens=[5]), r"export: 'suppress_tokens' is \[5\] in the written"),
    "the end": (other_generation(eos_token_id=7), "export: 'eos_token_id' is 7 in the written generation config"),
    "the padding id": (other_generation(pad_token_id=7), "export: 'pad_token_id' is 7 in the written"),
    "the length": (other_generation(max_new_tokens=9), "export: 'max_new_tokens' is 9 in the written"),
    "sampling": (other_generation(do_sample=True), "export: 'do_sample' is True in the written"),
    "the padding": (
        lambda folder: edit(folder / "tokenizer_config.json", padding_side="right"),
        "export: 'padding_side' is right in the written tokenizer",
    ),
}


@pytest.fixture
def asked(tiny_tokenizer: Any) -> list[Probe]:
    return probes(load_template("instruction", None, tiny_tokenizer), tiny_tokenizer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_written_folder_is_one_line_and_leaves_nothing(
    fault: str, dtype: torch.dtype, trained: Trained, asked: list[Probe], tmp_path: Path, monkeypatch: Any
) -> None:
    spoil, words = FAULTS[fault]

    def write(folder: Path, *given: Any) -> None:
        write_ollama_file(folder, *given)
        spoil(folder)

    monkeypatch.setattr(merged, "write_ollama_file", write)
    tuner = trained("qwen2")
    with pytest.raises(UserError, match=words) as found:
        export_merged(tuner, load_template("instruction", None, tuner.tokenizer), tmp_path / "out", CARD, dtype, asked)
    assert len(str(found.value).splitlines()) == 1 and "nothing was written" in str(found.value).lower()
    assert not [path for path in tmp_path.iterdir() if "out" in path.name or path.name.startswith(".")]


@pytest.mark.parametrize("other", ["token", "length"])
def test_another_greedy_text_is_found_where_the_logits_are_equal(
    other: str, trained: Trained, asked: list[Probe], tmp_path: Path, monkeypatch: Any
) -> None:
    """Equal logits without a cache of keys and values do not tell whether transformers writes well with one."""
    from transformers import GenerationMixin

    right = GenerationMixin.generate

    def generate(self: Any, given: Any, **more: Any) -> Any:
        written = right(self, given, **more)
        if other == "length":
            return written[:, :-1]
        written[:, -1] = 5
        return written

    monkeypatch.setattr(GenerationMixin, "generate", generate)
    tuner = trained("qwen2")
    template = load_template("instruction", None, tuner.tokenizer)
    with pytest.raises(UserError, match="is answered otherwise by the written folder than by generate"):
        export_merged(tuner, template, tmp_path / "out", CARD, torch.float32, asked)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["qwen2-tied", "llama"])
def test_a_whole_folder_says_how_much_of_it_was_compared(
    kind: str, dtype: str, trained: Trained, asked: list[Probe], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    tuner = trained(kind)
    template = load_template("instruction", None, tuner.tokenizer)
    export_merged(tuner, template, tmp_path / "out", CARD, getattr(torch, dtype), asked)
    assert tuner.net is None  # two models at once need twice the memory
    lines = [record.message for record in caplog.records if record.message.startswith(("the folder", "rounding"))]
    assert lines[-1].startswith("the folder was read again: 6 prompts have the ids of training, and ")
    assert [line.startswith(f"rounding the weights to {dtype}") for line in lines[:-1]] == [True] * (dtype != "float32")
    if dtype == "float32":
        assert lines[-1].endswith("6 greedy texts are those of generate")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == dtype


def test_a_large_folder_is_written_in_several_files(trained: Trained, asked: list[Probe], tmp_path: Path) -> None:
    tuner = trained("qwen2")
    template = load_template("instruction", None, tuner.tokenizer)
    export_merged(tuner, template, tmp_path / "out", CARD, torch.float32, asked, max_shard_size="100KB")
    *parts, index = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors*"))
    assert len(parts) > 1 and parts[0].startswith("model-00001-of-") and index == "model.safetensors.index.json"


def other_embeddings(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in tensors if "embed_tokens" in name)
    save_file(tensors | {name: tensors[name] * 1.01}, folder / "adapter_model.safetensors")


ADAPTER_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "alpha": (
        lambda folder: edit(folder / "adapter_config.json", lora_alpha=7),
        "computes logits that are .* of the largest away",
    ),
    "embeddings": (other_embeddings, "computes logits that are .* of the largest away"),
    "a missing file": (lambda folder: (folder / "adapter_config.json").unlink(), "cannot be opened"),
    "no generation config": (lambda folder: (folder / "generation_config.json").unlink(), "cannot be opened"),
    **{name: FAULTS[name] for name in ("the template", "a tag", "the end", "the padding")},
}


@pytest.mark.parametrize("fault", ADAPTER_FAULTS)
def test_a_fault_in_the_written_adapter_is_found(
    fault: str, trained: Trained, asked: list[Probe], tmp_path: Path, monkeypatch: Any
) -> None:
    spoil, words = ADAPTER_FAULTS[fault]

    def write(tuner: Any, template: Any, folder: Path) -> None:
        write_tokenizer(tuner, template, folder)
        spoil(folder)

    monkeypatch.setattr("lightning_modules.export.adapter.write_tokenizer", write)
    tuner = trained("qwen2", LoraSettings(rank=4))
    template = load_template("instruction", None, tuner.tokenizer)
    with pytest.raises(UserError, match=words):
        export_adapter(tuner, template, tmp_path / "out", CARD, asked)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name or path.name.startswith(".")]


def test_an_adapter_says_how_much_of_it_was_compared(
    trained: Trained, asked: list[Probe], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    tuner = trained("qwen2", LoraSettings(rank=4))
    export_adapter(tuner, load_template("instruction", None, tuner.tokenizer), tmp_path / "out", CARD, asked)
    assert tuner.net is None
    (line,) = (record.message for record in caplog.records if record.message.startswith("the folder"))
    assert line.endswith("6 prompts have the ids of training, and 6 greedy texts are those of generate")
