"""The folder with a GGUF file: equal to the run, or not there at all."""

import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, dequantize

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.gguf import gguf_export, gguf_file
from lightning_modules.gguf.gguf_export import check_base, check_package, export_gguf, quantize_line
from lightning_modules.think_tuner import ThinkTuner
from tests.conftest import TEMPLATE, TINY, random_lm
from tests.lightning_modules.export.conftest import CARD
from tests.lightning_modules.gguf.conftest import Made

Make = Callable[..., Made]
KINDS = ("qwen2", "qwen2-tied", "llama")
FULL = replace(
    CARD,
    base="Qwen/Qwen2-0.5B",
    revision="abc",
    name="my run",
    license={"license": "other", "license_name": "tongyi-qianwen", "license_link": "https://example.org/license"},
    datasets=("openai/gsm8k", "me/mine"),
    languages=("en", "zh"),
)


def keys(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


@pytest.mark.parametrize("of", ["F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_says_how_much_of_it_was_compared(
    kind: str, of: Any, make_gguf: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    made = make_gguf(kind, of)
    assert made.tuner.net is None  # two models at once need twice the memory
    assert sorted(path.name for path in made.file.parent.iterdir()) == ["Modelfile", "README.md", f"demo-{of}.gguf"]
    lines = [record.message for record in caplog.records if record.name == "thinkwright"]
    assert lines[-1].startswith("the file was read again: all weights are as written, 6 prompts have the ids of")
    assert [line for line in lines if line.startswith(f"rounding the weights to {of} changes logits by ")]
    kept = [line for line in lines if "stay F16" in line]
    assert kept == (["2 matrices stay F16: Q8_0 takes rows of 32, 64, … numbers"] if of == "Q8_0" else [])
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(made.file).tensors}
    assert {types[name] for name in types if "norm" in name or name.endswith(".bias")} == {"F32"}
    assert types["token_embd.weight"] == types["blk.0.attn_q.weight"] == of
    assert ("output.weight" in types) == ("tied" not in kind)


def test_the_new_tokens_have_their_trained_embeddings(make_gguf: Make) -> None:
    rows: list[torch.Tensor] = []

    def remember(tuner: ThinkTuner) -> None:
        assert tuner.net is not None
        rows.append(tuner.net.causal_lm.get_input_embeddings().embeddings.detach().clone())

    made = make_gguf("qwen2", "F16", remember)
    (tensor,) = (one for one in GGUFReader(made.file).tensors if one.name == "token_embd.weight")
    written = dequantize(tensor.data, tensor.tensor_type)[made.tuner.tokenizer.new_ids]
    np.testing.assert_array_equal(written, rows[0].half().float().numpy())


def test_the_keys_say_what_the_run_is_and_how_it_is_asked(make_gguf: Make) -> None:
    made = make_gguf("llama", "F16")
    found, tokenizer = keys(made.file), made.tuner.tokenizer
    assert found["general.architecture"] == "llama" and found["general.name"] == "demo"
    assert (found["llama.context_length"], found["llama.block_count"], found["llama.vocab_size"]) == (512, 2, 640)
    assert (found["llama.attention.head_count"], found["llama.attention.head_count_kv"]) == (4, 2)
    assert found["llama.rope.dimension_count"] == 8 and found["llama.rope.freq_base"] == 10_000.0
    assert found["tokenizer.ggml.eos_token_id"] == found["tokenizer.ggml.eot_token_id"] == tokenizer.end_id
    assert found["tokenizer.ggml.padding_token_id"] == tokenizer.end_id
    assert found["tokenizer.ggml.add_bos_token"] is False and "tokenizer.ggml.bos_token_id" not in found
    assert found["tokenizer.ggml.suppress_tokens"] == list(range(len(tokenizer), 640))
    assert found["tokenizer.chat_template"] == made.template.exported
    assert found["general.sampling.temp"] == 0.0
    assert not [key for key in found if "base_model" in key or "license" in key]  # a folder of this machine


def test_a_modelfile_for_ollama_names_the_file(make_gguf: Make) -> None:
    made = make_gguf("qwen2", "Q8_0")
    lines = (made.file.parent / "Modelfile").read_text().splitlines()
    assert f"FROM ./{made.file.name}" in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines and "PARAMETER temperature 0" in lines
    assert "ollama create NAME -f Modelfile" in (made.file.parent / "README.md").read_text()


def test_the_keys_name_license_base_and_data(trained: Callable[..., ThinkTuner], tmp_path: Path) -> None:
    found = keys(export_gguf(trained("qwen2"), TEMPLATE, tmp_path / "out", FULL, "Q8_0"))
    assert found["general.license"] == "other" and found["general.license.name"] == "tongyi-qianwen"
    assert found["general.base_model.count"] == 1 and found["general.base_model.0.name"] == "Qwen2-0.5B"
    assert found["general.base_model.0.repo_url"] == "https://huggingface.co/Qwen/Qwen2-0.5B"
    assert found["general.dataset.count"] == 2 and found["general.languages"] == ["en", "zh"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: gguf" in card and "base_model_relation: finetune" in card and "llama-server -m" in card


def spoil(change: Callable[[Any], None]) -> Callable[..., Any]:
    """A writer of files that changes the keys before they are written."""
    write = gguf_file.write_file

    def written(path: Path, model: Any, kind: Any, describe: Any) -> Any:
        def wrongly(writer: Any) -> None:
            describe(writer)
            change(writer)

        return write(path, model, kind, wrongly)

    return written


def key(name: str, value: Any) -> Callable[[Any], None]:
    def change(writer: Any) -> None:
        writer.kv_data[0][name].value = value

    return change


def other_type(writer: Any) -> None:
    types = writer.kv_data[0]["tokenizer.ggml.token_type"].value
    types[545] = 1  # <think> as an ordinary token


FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "the pre-tokenizer": (key("tokenizer.ggml.pre", "default"), "has other ids by the written file than in training"),
    "the template": (key("tokenizer.chat_template", "{{ messages[0]['content'] }}"), "has other ids by the written"),
    "a type": (other_type, "has other ids by the written file than in training"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_keys_is_one_line_and_leaves_nothing(
    fault: str, make_gguf: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words = FAULTS[fault]
    monkeypatch.setattr(gguf_export, "write_file", spoil(change))
    with pytest.raises(UserError, match=words) as found:
        make_gguf("qwen2", "F16")
    assert len(str(found.value).splitlines()) == 1
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("part", "words"),
    [("write_sizes", "computes logits that are .* of the largest away"), ("in_file_order", "is not read as it was")],
)
def test_a_fault_in_the_layers_is_one_line_and_leaves_nothing(
    part: str, words: str, make_gguf: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = getattr(gguf_file, part)

    def sizes(writer: Any, config: Any) -> None:
        own(writer, config)
        writer.kv_data[0]["llama.rope.freq_base"].value *= 1.3

    monkeypatch.setattr(gguf_file, part, sizes if part == "write_sizes" else lambda weight, _: weight)
    with pytest.raises(UserError, match=words):
        make_gguf("llama", "F16")
    assert not leftovers(tmp_path)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if "out" in path.name or path.name.startswith(".")]


def large(tuner: Any) -> None:
    """Give the net a weight that F16 cannot hold, and that changes nothing after it."""
    mlp = tuner.net.causal_lm.model.layers[0].mlp
    with torch.no_grad():
        mlp.up_proj.base_layer.weight[0, 0] = 1e7
        mlp.down_proj.base_layer.weight.zero_()
        mlp.down_proj.lora_B["default"].weight.zero_()


@pytest.mark.parametrize("of", ["F16", "Q8_0"])
def test_a_weight_that_the_type_cannot_hold_leaves_nothing(of: Any, make_gguf: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"--gguf: '{of}' cannot hold .*up_proj.*Give --gguf BF16"):
        make_gguf("qwen2", of, large)
    assert not leftovers(tmp_path)


def test_a_file_of_bf16_holds_large_weights(make_gguf: Make) -> None:
    assert make_gguf("qwen2", "BF16", large).file.is_file()


def test_a_full_disk_is_said_and_leaves_nothing(make_gguf: Make, tmp_path: Path) -> None:
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    most = 60_000  # bytes of a file: within the weights

    def limit(_: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))

    try:
        with pytest.raises(UserError, match=r"--to: .*out' cannot be written: the disk is full"):
            make_gguf("qwen2", "F16", limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not leftovers(tmp_path)


def test_an_interrupt_leaves_nothing(make_gguf: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_export, "check_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_gguf("qwen2", "F16")
    assert not leftovers(tmp_path)


def test_a_folder_with_files_is_not_overwritten(make_gguf: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "demo-F16.gguf").write_text("mine")
    with pytest.raises(UserError, match=r"--to: .*out' exists and is not empty"):
        make_gguf("qwen2", "F16")
    assert (tmp_path / "out" / "demo-F16.gguf").read_text() == "mine"


def test_an_unknown_base_is_refused_before_it_is_loaded(tmp_path: Path, tiny_tokenizer: ThinkTokenizer) -> None:
    random_lm("qwen3").save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match="of the architecture qwen3"):
        check_base(str(tmp_path / "base"), None, False, tiny_tokenizer)
    check_base(str(TINY), None, False, tiny_tokenizer)


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    check_package()
    monkeypatch.setattr(gguf_export, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"--gguf: needs the package gguf, which is not installed. pip install"):
        check_package()


def test_the_line_for_smaller_files_can_be_typed() -> None:
    line = quantize_line(Path("/my runs/demo-F16.gguf"), "F16")
    assert line == "K-quants: llama-quantize '/my runs/demo-F16.gguf' '/my runs/demo-Q4_K_M.gguf' Q4_K_M"
    assert "--gguf F16" in quantize_line(Path("demo-Q8_0.gguf"), "Q8_0")
