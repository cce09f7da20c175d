"""A config names classes of known modules only, and no other module is imported."""

import sys
from pathlib import Path

import pytest

from commands.fit_settings import fit_parser
from errors import UserError

SPY = "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\nclass Callback: ...\n"


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file when it is imported; the path of that file."""
    (tmp_path / "spy_module.py").write_text(SPY)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("spy_module", None)
    return tmp_path / "imported"


@pytest.mark.parametrize(
    "args",
    [
        ["--trainer.callbacks+=spy_module.Callback"],
        ["--trainer.callbacks", "spy_module.Callback"],
        ["--trainer.callbacks", "[{class_path: spy_module.Callback}]"],
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=spy_module.Callback"],
        ["--trainer.callbacks", "[{class_path: LambdaCallback, init_args: {on_fit_start: spy_module.Callback}}]"],
        ["--trainer.logger.class_path=spy_module.Callback"],
        ["--trainer.strategy", "spy_module.Callback"],
        ["--trainer.plugins", "spy_module.Callback"],
        ["--trainer.profiler", "spy_module.Callback"],
        ["--trainer.accelerator", "spy_module.Callback"],
        ["--trainer", "{callbacks: [{class_path: spy_module.Callback}]}"],
        ["--trainer", "part.yaml"],
        ["--trainer.callbacks", "list.yaml"],
        ["--config", "whole.yaml"],
        ["--config", "allowing.yaml"],
    ],
    ids=" ".join,
)
def test_a_class_of_an_unknown_module_is_refused_before_it_is_imported(
    args: list[str], spy: Path, in_tmp: Path
) -> None:
    (in_tmp / "part.yaml").write_text("callbacks: [{class_path: spy_module.Callback}]\n")
    (in_tmp / "list.yaml").write_text("[{class_path: spy_module.Callback}]\n")
    (in_tmp / "whole.yaml").write_text("trainer: {callbacks: [{class_path: spy_module.Callback}]}\n")
    (in_tmp / "allowing.yaml").write_text("allow_modules: [spy_module]\n")
    with pytest.raises(UserError, match=r"--allow_modules spy_module|Give it on the command line"):
        fit_parser("fit").read(["--model.name", "x", *args])
    assert not spy.exists()


def test_an_allowed_module_is_imported(spy: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.callbacks: 'spy_module.Callback' is not valid"):  # no callback
        fit_parser("fit").read(
            ["--model.name", "x", "--allow_modules", "spy_module", "--trainer.callbacks+=spy_module.Callback"]
        )
    assert spy.exists()


@pytest.mark.parametrize(
    "args",
    [
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss"],
        ["--trainer.callbacks+=lightning.pytorch.callbacks.LearningRateMonitor"],
        ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.filename=run.a.b"],
        ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir", "my.folder"],
        ["--data.filters", "{subject: [os.path]}"],
    ],
    ids=" ".join,
)
def test_known_classes_and_other_texts_pass(args: list[str]) -> None:
    assert fit_parser("fit").read(["--model.name", "x", *args]).model.name == "x"
