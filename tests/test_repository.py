"""Rules of the project: the direction of imports, the size of files, and names in documents that exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY

# The rooms (folders) and single files of a package, in their order: each imports only from those before it
ORDER = {
    "datamodules": ["rows", "layouts", "text", "tokens", "prepare", "batches", "same_rows", "magpie", "preview"],
    "lightning_modules": [
        "internals", "ranks", "fused", "net", "update", "judge", "generation", "evaluation", "run", "checkpoints",
        "think_tuner", "servers", "export", "gguf", "estimate",
    ],
}  # fmt: skip
APART = {("text", "rows"), ("layouts", "rows")}  # allowed by the order, and still not wanted
# What lightning_modules may import from datamodules; CONTRIBUTING.md names the same
FROM_DATA = {
    "Batch": "datamodules.batches.collate",
    "Role": "datamodules.text.segments",
    "Template": "datamodules.text.segments",
    "Tags": "datamodules.text.tags",
    "find_loop": "datamodules.text.repetition",
    "ThinkTokenizer": "datamodules.tokens.tokenizer",
}
LARGEST_FILE = 300  # lines
PACKAGES = ("commands", *ORDER)
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ROOMS = sorted(path.parent for package in ORDER for path in (ROOT / package).glob("*/__init__.py"))


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the modules that a file imports, with the imported name; also those of type checks and of functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from ((str(node.module), name.name) for name in node.names)
        elif isinstance(node, ast.Import):
            yield from ((name.name, "") for name in node.names)


def packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module, _ in imports(path)}


def room(path: Path) -> str:
    """The name of a file's room in its package, or of the file if it is in no room."""
    return path.relative_to(ROOT).parts[1].removesuffix(".py")


def rooms_used(path: Path) -> set[str]:
    """The other rooms of its own package that a file imports from."""
    package = path.relative_to(ROOT).parts[0]
    used = {module.split(".")[1] for module, _ in imports(path) if module.startswith(f"{package}.")}
    return used - {room(path)}


def test_data_knows_nothing_of_models() -> None:
    for path in (ROOT / "datamodules").rglob("*.py"):
        assert not packages(path) & {"lightning_modules", "commands", "peft"}, path


def test_models_know_nothing_of_commands() -> None:
    for path in (ROOT / "lightning_modules").rglob("*.py"):
        assert "commands" not in packages(path), path


@pytest.mark.parametrize("package", ORDER)
def test_every_room_has_its_place_in_the_order(package: str) -> None:
    found = {room(path) for path in (ROOT / package).rglob("*.py")} - {"__init__"}
    assert found == set(ORDER[package])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_rooms_before_it(path: Path) -> None:
    """So there is no circle of rooms either. Imports for type checks and inside functions count, too."""
    package = path.relative_to(ROOT).parts[0]
    if package in ORDER and room(path) != "__init__":
        order = ORDER[package]
        before = set(order[: order.index(room(path))])
        assert rooms_used(path) <= before
        assert not {(room(path), used) for used in rooms_used(path)} & APART


def test_models_know_of_data_only_the_allowed_names() -> None:
    for path in (ROOT / "lightning_modules").rglob("*.py"):
        for module, name in imports(path):
            if module.split(".")[0] == "datamodules":
                assert FROM_DATA.get(name) == module, f"{path} imports {name} from {module}"


def test_the_rules_for_contributors_name_what_models_know_of_data() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert not [name for name in FROM_DATA if not re.search(rf"`{name}`", text)]


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_has_several_files_and_says_what_is_in_it(path: Path) -> None:
    files = [file for file in path.glob("*.py") if file.name != "__init__.py"]
    assert len(files) > 1
    body = ast.parse((path / "__init__.py").read_text())
    assert len(body.body) == 1, "an __init__.py of a room is a docstring and nothing else"
    docstring = ast.get_docstring(body) or ""
    assert not [file.name for file in files if not re.search(rf"\b{file.stem}\b", docstring)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_too_long_or_named_utils(path: Path) -> None:
    assert path.stem != "utils"
    assert len(path.read_text().splitlines()) <= LARGEST_FILE


PRIVATE = re.compile(
    r"\._signal_connector|batch_progress|_batches_that_stepped|\.val_loop\b|token_adapter|trainable_tokens_delta"
    r"|_gradient_checkpointing_func|aten\._\w+"
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_apis_of_libraries_are_used_in_one_room(path: Path) -> None:
    if path.parent.name != "internals":
        assert not PRIVATE.findall(path.read_text())


def test_files_named_in_the_documents_exist() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        for name in re.findall(r"(?:configs|assets|tests|\.ci)/[\w/.-]+\.(?:yaml|py)", (ROOT / document).read_text()):
            assert (ROOT / name).exists(), f"{document} names {name}"


def test_the_embedded_model_is_small() -> None:
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 8 * 2**20


# A generation config cannot have code of its own
LOADS = re.compile(r"\b(?!GenerationConfig\b)(?:Auto\w+|\w+Config|\w+Tokenizer\w*)\.(?:from_pretrained|from_config)\(")


@pytest.mark.parametrize("path", [*SOURCES, ROOT / "hub.py"], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_loader_of_transformers_says_whether_code_of_a_model_may_run(path: Path) -> None:
    """Without the argument transformers asks at a terminal, and takes a y for an answer."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and LOADS.match(f"{ast.unparse(node.func)}("):
            given = {keyword.arg for keyword in node.keywords}
            assert "trust_remote_code" in given or None in given, f"{path}:{node.lineno}"
