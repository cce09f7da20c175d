"""export: what is refused before anything is written. tests/commands/test_load.py compares what is written."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from commands import export
from errors import UserError
from lightning_modules.evaluation.answers import EvalSettings
from lightning_modules.generation.decoding import DecodingSettings
from lightning_modules.run.folder import Run

Settings = dict[str, Any]


@pytest.fixture
def loaded_with(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Settings]]:
    """The settings with which `export` loads a model; no model is loaded and none is written."""
    asked: list[Settings] = []
    model = {"dtype": "bfloat16", "quantize": "nf4"}
    decoding = request.param if hasattr(request, "param") else DecodingSettings()

    def load_run(run: str | None, ckpt_path: str | None, root: str, **settings: Any) -> Any:
        asked.append(settings)
        evaluation = EvalSettings(decoding=decoding)
        tuner = SimpleNamespace(evaluation=evaluation, tokenizer=None)
        return SimpleNamespace(
            run=Run(tmp_path / "run"), checkpoint=Path("best.ckpt"), tuner=tuner, template=None,
            config={"model": model}, step=3,
        )  # fmt: skip

    def write(tuner: Any, template: Any, folder: Path, card: Any, *more: Any) -> None:
        asked[-1]["folder"] = folder
        asked[-1]["more"] = more[0] if more and isinstance(more[0], torch.dtype) else None

    def write_gguf(tuner: Any, template: Any, folder: Path, *more: Any) -> Path:
        write(tuner, template, folder, *more)
        return folder / "demo.gguf"

    monkeypatch.setattr(export, "find", lambda *_: (Run(tmp_path / "run"), Path("best.ckpt")))
    monkeypatch.setattr(export, "load_run", load_run)
    monkeypatch.setattr(export, "card_of", lambda *_: SimpleNamespace(name="demo", new_tokens=True))
    monkeypatch.setattr(export, "system_place", lambda _: "A system message stands first.")
    monkeypatch.setattr(export, "probes", lambda *_: [])
    monkeypatch.setattr(export, "export_merged", write)
    monkeypatch.setattr(export, "export_adapter", write)
    monkeypatch.setattr(export, "export_gguf", write_gguf)
    monkeypatch.setattr(export, "check_base", lambda *given: asked.append({"base": given}))
    return lambda: asked


def test_a_model_is_merged_in_float32_and_never_in_4_bits(loaded_with: Any, tmp_path: Path) -> None:
    assert export.run([]) == 0
    folder = tmp_path / "run" / "export"
    assert loaded_with() == [{"quantize": None, "dtype": "float32", "folder": folder, "more": torch.bfloat16}]


def test_an_adapter_is_compared_in_float32(loaded_with: Any, tmp_path: Path) -> None:
    assert export.run(["--adapter"]) == 0
    folder = tmp_path / "run" / "adapter"
    assert loaded_with() == [{"quantize": None, "dtype": "float32", "folder": folder, "more": None}]


def test_the_dtype_is_that_of_the_run_or_the_given_one(loaded_with: Any) -> None:
    assert export.run(["--dtype", "float16"]) == 0
    assert loaded_with()[0]["more"] == torch.float16


@pytest.mark.parametrize("loaded_with", [DecodingSettings(), DecodingSettings(thinking_budget=9)], indirect=True)
def test_an_export_says_that_it_does_not_steer_thinking(loaded_with: Any, request: Any, capsys: Any) -> None:
    assert export.run([]) == 0
    steered = request.node.callspec.params["loaded_with"].controlled
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("for vLLM: vllm serve ")
    assert lines[-2] == "chat template: A system message stands first."
    assert [line.startswith("the exported model does not steer") for line in lines[:-2]] == [True] * steered


def test_a_run_with_several_blocks_is_refused_for_servers_that_know_one(
    loaded_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a model is loaded; a run whose config has no steps splits them as it does by default."""
    for steps in ({"split": "sentence"}, {"split": "none"}):
        monkeypatch.setattr(export, "run_config", lambda _, steps=steps: {"data": {"steps": steps}})
        if steps["split"] == "none":
            assert export.run(["--single_block"]) == 0
        else:
            with pytest.raises(UserError, match=r"--single_block: the run learned .* \(data.steps.split sentence\)"):
                export.run(["--single_block"])
            assert loaded_with() == []


@pytest.mark.parametrize("option", [("--dtype", "float16"), ("--max_shard_size", "2GB")])
def test_options_of_merged_weights_have_no_meaning_for_an_adapter(loaded_with: Any, option: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=f"{option[0]}: '{option[1]}' is about merged weights.*Delete {option[0]}"):
        export.run(["--adapter", *option])
    assert loaded_with() == []


def test_a_push_is_tried_before_a_model_is_loaded_and_done_after_the_export(
    loaded_with: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[Any] = []
    monkeypatch.setattr(export, "run_config", lambda _: {"model": {"name": "Qwen/Qwen2-0.5B"}})
    monkeypatch.setattr(export, "check_push", lambda name: done.append((name, len(loaded_with()))))

    def push(*given: Any) -> str:
        done.append(given)
        return "https://huggingface.co/me/x"

    monkeypatch.setattr(export, "push", push)
    folder = tmp_path / "run" / "adapter"
    assert export.run(["--adapter", "--push", "me/x"]) == 0
    assert done == [("me/x", 0), (folder, "me/x", "demo: adapter weights")]
    assert capsys.readouterr().out == f"{folder}\nhttps://huggingface.co/me/x\n"


def test_an_adapter_of_a_base_that_only_this_machine_has_is_not_uploaded(
    loaded_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "run_config", lambda _: {"model": {"name": "assets/tiny-qwen"}})
    with pytest.raises(UserError, match=r"--push: 'me/x' would get an adapter of a base that only this machine has, /"):
        export.run(["--adapter", "--push", "me/x"])
    assert loaded_with() == []


def test_a_folder_with_files_is_not_overwritten(loaded_with: Any, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert export.run(["--to", str(tmp_path / "there")]) == 0  # an empty folder is fine
    (tmp_path / "there" / "file").touch()
    with pytest.raises(UserError, match=r"--to: .*there' exists and is not empty\. Give a new folder"):
        export.run(["--to", str(tmp_path / "there")])
    assert len(loaded_with()) == 1  # the second was refused before the model was loaded


def test_a_file_in_the_way_is_said(loaded_with: Any, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    ways = {"/dev/null/x": "is below /dev/null, which is a pipe or a device", __file__: "is a file"}
    for to, problem in (ways | {str(tmp_path / "loop" / "x"): "cannot be opened"}).items():
        with pytest.raises(UserError, match=f"--to: .*{problem}.*Give a new folder"):
            export.run(["--to", to])
    assert loaded_with() == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here refuses new ones to everybody")
def test_a_place_that_takes_no_folder_is_said_before_a_model_is_loaded(loaded_with: Any) -> None:
    with pytest.raises(UserError, match=r"--to: '/proc/x' .*cannot be made"):
        export.run(["--to", "/proc/x"])
    assert loaded_with() == []


def test_a_gguf_file_is_made_of_a_model_in_float32_that_was_looked_at_before(
    loaded_with: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "run_config", lambda _: {"model": {"name": "some/base", "revision": "abc"}})
    assert export.run(["--gguf", "Q8_0"]) == 0
    folder = tmp_path / "run" / "gguf-Q8_0"
    (of_model,) = loaded_with()
    of_model.pop("check")("its tokenizer")  # called before the base is loaded
    assert loaded_with().pop() == {"base": ("some/base", "abc", False, "its tokenizer")}
    assert of_model == {"quantize": None, "dtype": "float32", "folder": folder, "more": None}
    said = capsys.readouterr()
    assert said.out == f"{folder}\n" and said.err.splitlines()[-1].startswith("K-quants are made of an F16 file")


@pytest.mark.parametrize(
    "option", [("--adapter",), ("--dtype", "float16"), ("--max_shard_size", "2GB"), ("--to", "model.gguf")]
)
def test_options_that_have_no_meaning_beside_gguf_are_refused(loaded_with: Any, option: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=f"{option[0]}: .*(beside --gguf|name of a file)"):
        export.run(["--gguf", "F16", *option])
    assert loaded_with() == []
