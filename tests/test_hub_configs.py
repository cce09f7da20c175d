"""A data set of the hub with several configs: one has to be chosen, and the error names them."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import ROOT
from tests.stand_ins.hub import Hub, Repository

NAME = "owner/several"
CARD = """---
configs:
- config_name: think
  data_files: [{split: train, path: think/a.jsonl}, {split: test, path: think/b.jsonl}]
- config_name: plain
  data_files: [{split: train, path: plain/a.jsonl}]
---
"""
READ = """
import sys
from datamodules.rows.sources import open_source
from errors import UserError
config, split, order = sys.argv[1:]
try:
    rows = open_source("owner/several", None, split, 0.1, 0, config or None, order).rows()
    print([(row["n"], str(place)) for row, place, _ in rows])
except UserError as error:
    print(error)
"""
Read = Callable[..., str]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    """Return what a process prints that reads a config of the data set."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "README.md").write_text(CARD)
    for name, numbers in (("think/a", range(3)), ("think/b", range(3, 5)), ("plain/a", range(5, 7))):
        (folder / f"{name}.jsonl").parent.mkdir(exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in numbers))
    cache = tmp_path_factory.mktemp("cache")
    with Hub({("datasets", NAME): Repository(folder)}).serving() as hub:

        def run(config: str, split: str = "train", order: str = "file") -> str:
            command = [sys.executable, "-c", READ, config, split, order]
            done = subprocess.run(
                command, cwd=ROOT, env=hub.environment(cache), capture_output=True, text=True, timeout=60, check=True
            )
            return done.stdout.strip()

        yield run


def test_a_config_and_a_split_are_chosen(read: Read) -> None:
    assert read("think") == "[(0, '0'), (1, '1'), (2, '2')]"
    assert read("think", "test") == "[(3, '0'), (4, '1')]"
    assert read("plain") == "[(5, '0'), (6, '1')]"
    assert sorted(n for n, _ in eval(read("think", order="sampled"))) == [0, 1, 2]


def test_the_configs_are_named_if_none_or_a_wrong_one_is_given(read: Read) -> None:
    assert read("") == f"data.config: has to choose a part of {NAME}. Give one of think, plain."
    assert read("thnik") == f"data.config: 'thnik' is no part of {NAME}. Give one of think, plain."
