"""Commands that answer at once, the table of commands, and the folder that a command runs in."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cli import TRAINER, VERSION, main
from commands.preflight import COMMANDS
from tests.conftest import ROOT

# None of what answers at once may load a library that takes seconds
HEAVY = ("torch", "lightning", "transformers", "datasets", "peft", "jsonargparse")


def run_light(*args: str) -> subprocess.CompletedProcess[str]:
    """Runs cli.main in a process where importing anything heavy is an error."""
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY})); from cli import main; sys.exit(main({list(args)}))"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_and_version_and_mistakes_need_no_library() -> None:
    assert COMMANDS["fit"] in run_light("--help").stdout
    assert run_light("--version").stdout.strip() == VERSION
    assert run_light().returncode == 2
    unknown = run_light("vaildate")
    assert (unknown.returncode, unknown.stderr) == (
        2,
        "error: command: 'vaildate' does not exist. Did you mean validate?\n",
    )
    missing = run_light("fit", "--config", "configs/multi_thnik.yaml")
    assert missing.returncode == 2
    assert "Did you mean configs/multi_think.yaml?" in missing.stderr


def test_without_the_packages_it_says_how_to_get_them() -> None:
    bare = [sys.executable, "-S", "-E", str(ROOT / "cli.py")]  # a Python without site-packages
    for args in (["fit", "--config", str(ROOT / "configs" / "demo.yaml")], ["generate", "--prompt", "Hi"]):
        done = subprocess.run([*bare, *args], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert f"is not installed for {sys.executable}. Run make demo, or . .venv/bin/activate." in line


def test_every_command_has_a_module_of_its_name_or_is_one_of_the_trainer() -> None:
    assert set(TRAINER) < set(COMMANDS)
    files = {path.stem for path in (ROOT / "commands").glob("*.py")}
    assert set(COMMANDS) - set(TRAINER) < files


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("fit", ["--ckpt_path", "--model.lora.rank", "--data.mix.weight", "--trainer.max_epochs"]),
        ("validate", ["--ckpt_path", "--config"]),
        ("test", ["--ckpt_path", "--config"]),
        ("predict", ["--ckpt_path", "--config"]),
        ("preview", ["--html", "--data.source"]),
        ("generate", ["--prompt", "--ckpt_path"]),
        ("estimate", ["--device_gb", "--tflops"]),
        ("export", ["--to", "--ckpt_path"]),
        ("replay", ["  file text", "--precision", "--device"]),
        ("report", ["--to", "--png", "--root"]),
    ],
)
def test_every_command_explains_itself(command: str, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python cli.py {command} [options]\n")
    assert all(flag in text for flag in flags)


SAME_LINE = ("--config", "configs/multi_think.yaml", "--trainer.max_epochs", "2", "--model.lora.rank", "4")


@pytest.mark.parametrize("command", ["fit", "preview", "estimate", "validate"])
def test_commands_take_the_same_settings(command: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--seed_everything", "3", "--ckpt_path", "last", "--run.name", "a", "--checkpoint.every_n_minutes", "1")
    assert main([command, *SAME_LINE, *more, "--print_config"]) == 0
    written = capsys.readouterr()
    config = yaml.safe_load(written.out)
    assert (config["trainer"]["max_epochs"], config["model"]["lora"]["rank"]) == (2, 4)
    assert written.err == f"config {ROOT / 'configs' / 'multi_think.yaml'}\n"  # the checkout's, as this folder has none
    assert main([command, *SAME_LINE, "--trainer.max_epoch", "2"]) == 2
    assert "trainer.max_epoch: there is no such setting. Did you mean trainer.max_epochs?" in capsys.readouterr().err


def test_a_config_of_this_folder_comes_before_the_checkouts(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (in_tmp / "configs").mkdir()
    (in_tmp / "configs" / "multi_think.yaml").write_text("run:\n  name: mine\n")
    assert main(["fit", "--config=configs/multi_think.yaml", "--print_config"]) == 0
    written = capsys.readouterr()
    assert (yaml.safe_load(written.out)["run"]["name"], written.err) == ("mine", "")
    assert main(["fit", "--config=configs/demo.yaml", "-c", "configs/multi_think.yaml", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["run"]["name"], config["data"]["max_length"]) == ("mine", 256)


def test_the_version_is_the_projects() -> None:
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()
    assert Path(ROOT / "CHANGELOG.md").read_text().count(VERSION)


def test_garbage_is_collected_again_when_the_imports_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int]] = []

    def run(args: list[str]) -> int:
        seen.append((gc.isenabled(), gc.get_freeze_count()))
        return 0

    monkeypatch.setattr("commands.evaluate.run", run)
    before = gc.get_freeze_count()
    gc.disable()  # as the program does when it starts
    try:
        assert main(["evaluate"]) == 0
    finally:
        gc.enable()
        gc.unfreeze()
    ((enabled, frozen),) = seen
    assert enabled and frozen > before
