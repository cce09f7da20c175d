"""Rules of the house that a reader relies on."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY

SOURCES = sorted(
    p for folder in ("commands", "datamodules", "lightning_modules") for p in (ROOT / folder).rglob("*.py")
)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
    return found


def test_data_knows_nothing_of_models() -> None:
    for path in (ROOT / "datamodules").rglob("*.py"):
        assert not imports(path) & {"lightning_modules", "commands", "peft"}, path


def test_models_know_nothing_of_commands() -> None:
    for path in (ROOT / "lightning_modules").rglob("*.py"):
        assert "commands" not in imports(path), path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_outgrows_its_job(path: Path) -> None:
    assert path.stem != "utils"
    assert len(path.read_text().splitlines()) <= 300


def test_files_named_in_the_documents_exist() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        for name in re.findall(r"(?:configs|assets|tests|\.ci)/[\w/.-]+\.(?:yaml|py)", (ROOT / document).read_text()):
            assert (ROOT / name).exists(), f"{document} names {name}"


def test_the_embedded_model_is_small() -> None:
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 8 * 2**20
