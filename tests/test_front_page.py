"""The front page names what is there, and every link in a document leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    ROOT / "configs/README.md",
    ROOT / "benchmarks/README.md",
]
PACKAGES = ("datamodules", "lightning_modules")


def files_of_the_tree(readme: str) -> list[str]:
    """Return the paths of the tree under "The way of the data", in its order; a folder's files follow its name."""
    found = re.search(r"^```\n(datamodules/.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert found
    paths, package, folder = [], "", ""
    for line in found[1].splitlines():
        if name := re.match(r"( *)(\w+)/", line):
            package = package if name[1] else name[2]
            folder = f"{package}/{name[2]}" if name[1] else package
        paths += [f"{folder}/{file}" for file in re.findall(r"\w+\.py", line)]
    return paths


def test_the_tree_names_every_file_of_the_packages_once() -> None:
    named = files_of_the_tree((ROOT / "README.md").read_text())
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"]
    assert len(named) == len(set(named))
    assert {path.relative_to(ROOT).as_posix() for path in files} == set(named)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_leads_to_a_file(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert link.startswith("https://") or (document.parent / link).exists(), f"{document.name} links to {link}"


def test_the_front_page_is_short_and_its_picture_small() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
    assert (ROOT / "docs/demo.gif").stat().st_size < 400_000
