"""A damaged file of a prepared folder is found before it is read."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules.prepare import prepared_folder
from datamodules.prepare.prepared_folder import STATS, Damaged, complete, delete, read_stats
from datamodules.prepare.stats import DataStats
from datamodules.prepare.token_dataset import TokenDatasetWriter
from datamodules.tokens.process import ProcessedExample

NAME = "0123456789abcdef"
FILES = ["train.arrow", "val.arrow"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / NAME
    made.mkdir()
    for name in FILES:
        writer = TokenDatasetWriter(made / name)
        for row in range(20):
            writer.add(ProcessedExample(f"é {row}"))
        writer.close()
    complete(made, NAME, DataStats(read=40, kept={"train": 20, "val": 20}, dropped={"é": 1}), FILES)
    return made


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_whole_folder_gives_the_stats_that_were_written(folder: Path) -> None:
    assert read_stats(folder) == DataStats(read=40, kept={"train": 20, "val": 20}, dropped={"é": 1})


def test_a_missing_folder_is_not_damaged(tmp_path: Path) -> None:
    assert read_stats(tmp_path / NAME) is None


def test_each_flipped_bit_is_found_and_the_file_named(folder: Path) -> None:
    draw, paths = random.Random(0), [folder / name for name in (STATS, *FILES)]
    for _ in range(200):
        path = draw.choice(paths)
        bit = draw.randrange(8 * path.stat().st_size)
        flip(path, bit)
        with pytest.raises(Damaged, match=str(path)):
            read_stats(folder)
        flip(path, bit)
    assert read_stats(folder) is not None


@pytest.mark.parametrize("name", [STATS, *FILES])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: os.truncate(path, 0),
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.write_text('{"digest": 1}'),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("/nowhere")),
    ],
)
def test_a_cut_missing_or_foreign_file_is_named(folder: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(folder / name)
    with pytest.raises(Damaged, match=str(folder / name)):
        read_stats(folder)


def test_whole_files_of_another_folder_are_not_taken(folder: Path) -> None:
    other = shutil.copytree(folder, folder.with_name("f" * 16))
    with pytest.raises(Damaged, match=STATS):
        read_stats(other)


def test_stats_that_were_edited_are_not_taken(folder: Path) -> None:
    content = json.loads((folder / STATS).read_text())
    content["stats"]["read"] = 41
    (folder / STATS).write_text(json.dumps(content, indent=1))
    with pytest.raises(Damaged, match=STATS):
        read_stats(folder)


def test_a_file_that_may_not_be_read_is_not_taken_for_damaged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(prepared_folder, "digest", refused)
    with pytest.raises(PermissionError):
        read_stats(folder)


def test_whatever_is_in_the_place_of_a_folder_can_be_deleted(folder: Path, tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to("/nowhere")
    for path in (folder, file, link):
        delete(path)
        assert read_stats(path) is None
