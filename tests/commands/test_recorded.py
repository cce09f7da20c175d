"""settings.json: it is what the real parsers say, and counts only as long as no declaration was changed."""

import json
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from cli import TRAINER
from commands import fit_settings, recorded
from commands.parsing import Parser
from commands.preflight import COMMANDS
from commands.record import recorded as as_it_should_be
from commands.recorded import FILE, Recorded, declarations

same_lightning = pytest.mark.skipif(
    json.loads(FILE.read_text())["lightning"] != version("lightning"),
    reason="settings.json is of another version of Lightning, and is not used",
)


def real_parser(command: str) -> Parser:
    if command in TRAINER:
        return fit_settings.build_parser(command)
    found: Parser = import_module(f"commands.{command}").build_parser()
    return found


@same_lightning
def test_the_file_is_what_the_parsers_say() -> None:
    assert json.loads(FILE.read_text()) == as_it_should_be(), "run: python -m commands.record"


@same_lightning
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_is_that_of_the_real_parser(command: str) -> None:
    light, real = Recorded().parser(command), real_parser(command)
    assert light.help() == real.help()
    for key, one in real.settings.items():
        other = light.settings[key]
        assert (other.open, other.names_class, other.heading) == (one.open, one.names_class, one.heading), key


def test_the_file_does_not_count_for_another_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "version", lambda name: "0.1")
    assert not Recorded().usable


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ("    rank: int = 8", "    rank: int = 16", True),
        ('    """Rank."""', '    """The rank."""', True),
        ("scale: float = 1.0", "scale: float = 2.0", True),
        ("return 1", "return 2", False),
        ("import torch", "import numpy", False),
        ('add_argument("--limit")', 'add_argument("--most")', True),
    ],
)
def test_a_declaration_that_was_changed_is_seen(before: str, after: str, changed: bool, tmp_path: Path) -> None:
    text = '''import torch
class Lora:
    rank: int = 8
    """Rank."""
    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
    def double(self) -> int:
        return 1
def add_limit(parser):
    parser.add_argument("--limit")
'''
    file = tmp_path / "some.py"
    file.write_text(text)
    digest = declarations(file)
    assert before in text
    file.write_text(text.replace(before, after))
    assert (declarations(file) != digest) is changed


def test_a_changed_declaration_makes_the_file_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    content: dict[str, Any] = json.loads(FILE.read_text())
    assert "lightning_modules/think_tuner.py" in content["declared"]
    if version("lightning") == content["lightning"]:
        assert Recorded().fresh()
    monkeypatch.setattr(recorded, "declarations", lambda path: "other")
    assert not Recorded().fresh()
