"""What answers at once, and the table of commands."""

import subprocess
import sys
from pathlib import Path

import pytest

from cli import COMMANDS, VERSION, main
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


def test_the_table_of_commands_is_the_program() -> None:
    from lightning.pytorch.cli import LightningCLI

    assert set(COMMANDS) == {*LightningCLI.subcommands(), "preview", "estimate", "generate", "export", "replay"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    expected = {
        "preview": ["--html", "--data.source"],
        "generate": ["--prompt", "--ckpt_path"],
        "estimate": ["--model.lora", "--trainer.devices"],
        "export": ["--to", "--ckpt_path"],
        "replay": ["--precision", "--device"],
    }.get(command, ["--model.lora", "--data.source", "--ckpt_path"])
    assert all(flag in text for flag in expected)


def test_the_help_of_fit_documents_every_setting_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    for words in (
        "Peak learning rate",
        "each step gets a think block",
        "Adapters on a frozen base",
        "Folder of all runs",
    ):
        assert " ".join(words.split()) in " ".join(text.split())


def test_the_version_is_the_projects() -> None:
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()
    assert Path(ROOT / "CHANGELOG.md").read_text().count(VERSION)
