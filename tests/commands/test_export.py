"""export: what is refused before anything is written. tests/commands/test_load.py compares what is written."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from commands import export
from errors import UserError
from lightning_modules.checkpoints.start_weights import StartWeights
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
        tuner = SimpleNamespace(name="base", revision=None, start=StartWeights(None), evaluation=evaluation)
        return SimpleNamespace(
            run=Run(tmp_path / "run"), checkpoint=Path("best.ckpt"), tuner=tuner, template=None,
            config={"model": model}, step=3,
        )  # fmt: skip

    def write(tuner: Any, template: Any, folder: Path, *_: Any) -> None:
        asked[-1]["folder"] = folder

    monkeypatch.setattr(export, "find", lambda *_: (Run(tmp_path / "run"), Path("best.ckpt")))
    monkeypatch.setattr(export, "load_run", load_run)
    monkeypatch.setattr(export, "export_merged", write)
    monkeypatch.setattr(export, "export_adapter", write)
    return lambda: asked


def test_a_model_is_merged_in_float32_and_never_in_4_bits(loaded_with: Any, tmp_path: Path) -> None:
    assert export.run([]) == 0
    assert loaded_with() == [{"quantize": None, "dtype": "float32", "folder": tmp_path / "run" / "export"}]


def test_an_adapter_keeps_the_dtype_of_the_run(loaded_with: Any, tmp_path: Path) -> None:
    assert export.run(["--adapter"]) == 0
    assert loaded_with() == [{"quantize": None, "folder": tmp_path / "run" / "adapter"}]


@pytest.mark.parametrize("loaded_with", [DecodingSettings(), DecodingSettings(thinking_budget=9)], indirect=True)
def test_an_export_says_that_it_does_not_steer_thinking(loaded_with: Any, request: Any, caplog: Any) -> None:
    assert export.run([]) == 0
    steered = request.node.callspec.params["loaded_with"].controlled
    assert [record.message.startswith("the exported model does not steer") for record in caplog.records] == [
        True
    ] * steered


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
