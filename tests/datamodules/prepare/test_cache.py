import errno
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.prepare import cache as module
from datamodules.prepare.cache import prepare, shortfall
from datamodules.prepare.mix import Part
from datamodules.prepare.pass_over_sources import Quotas
from datamodules.prepare.stats import DataStats
from datamodules.prepare.token_dataset import TokenDataset
from datamodules.rows.sources import open_source
from datamodules.text.segments import Role
from datamodules.text.steps import StepSettings
from datamodules.tokens.process import ProcessingConfig
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from tests.conftest import ROOT, TEMPLATE

ALL: Quotas = {"train": None, "val": None}


def rows(count: int, **more: object) -> list[dict[str, object]]:
    return [
        {"instruction": f"Ask {i}", "response": f"<think>A {i}. B.</think>c {i}", "conversation_id": f"r{i}", **more}
        for i in range(count)
    ]


def part(path: Path, data: list[dict[str, object]], **config: Any) -> Part:
    path.write_text("".join(json.dumps(row) + "\n" for row in data))
    return Part(open_source(str(path), None, "train", 0.25, 0), ProcessingConfig(TEMPLATE, **config))


@pytest.fixture
def made(tmp_path: Path, tiny_tokenizer: ThinkTokenizer) -> Callable[..., tuple[Path, DataStats]]:
    """Prepare one part into a cache of this test only."""

    def run(one: Part, quotas: Quotas = ALL, num_proc: int = 1, near: float | None = 0.8) -> tuple[Path, DataStats]:
        return prepare([one], tiny_tokenizer, quotas, near, tmp_path / "cache", num_proc)

    return run


def test_prepared_rows_have_the_ids_of_the_tokenizer(
    tmp_path: Path, tiny_tokenizer: ThinkTokenizer, made: Callable[..., tuple[Path, DataStats]]
) -> None:
    folder, stats = made(part(tmp_path / "a.jsonl", rows(700)))
    train, val = TokenDataset(folder / "train.arrow"), TokenDataset(folder / "val.arrow")
    assert len(train) == stats.kept["train"] > 512  # more than one record batch
    assert len(train) + len(val) == stats.read == 700
    assert train.lengths.sum() == stats.tokens["train"]
    last = train[len(train) - 1]
    assert tiny_tokenizer.decode(last.ids.tolist()).endswith(f"c {last.row_id[1:]}<|im_end|>")
    assert last.ids.dtype == np.int32
    assert last.roles.dtype == np.int8
    assert (train.supervised[-1], train.lengths[-1]) == ((last.roles != Role.PROMPT).sum(), len(last.ids))
    assert last.index == len(train) - 1


def test_equal_rows_are_prepared_once_and_any_change_prepares_anew(
    tmp_path: Path, made: Callable[..., tuple[Path, DataStats]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = part(tmp_path / "a.jsonl", rows(40))
    first, stats = made(one)
    monkeypatch.setattr(module, "_write", lambda *_: pytest.fail("prepared again"))
    assert made(one) == (first, stats)
    assert made(one, num_proc=2)[0] == first
    monkeypatch.undo()
    others = [
        made(replace(one, config=ProcessingConfig(TEMPLATE, **change)))[0]
        for change in (
            {"max_length": 256},
            {"steps": StepSettings(split="none")},
            {"steps": StepSettings(split="paragraph")},
            {"filters": {"tokens": {"min": 1}}},
            {"overlong": "truncate"},
        )
    ]
    others.append(made(one, {"train": 5, "val": None})[0])
    others.append(made(one, near=None)[0])
    others.append(made(part(tmp_path / "a.jsonl", rows(41)))[0])
    assert len({first, *others}) == 9


CODE = [path for room in module.ROOMS for path in sorted((module.PACKAGE / room).glob("*.py"))]


def test_a_change_in_any_file_of_the_preparing_rooms_prepares_anew(
    tmp_path: Path, tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(module.PACKAGE, tmp_path / "datamodules", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "datamodules")
    one = part(tmp_path / "a.jsonl", rows(1))

    def name() -> str:
        return module.fingerprint([one], tiny_tokenizer, ALL, None)

    before = name()
    assert len(CODE) > 20
    for path in (tmp_path / "datamodules" / path.relative_to(Path(module.__file__).parent.parent) for path in CODE):
        text = path.read_text()
        path.write_text(text + "# changed\n")
        assert name() != before, path
        path.write_text(text)
    assert name() == before


def test_every_module_that_preparing_imports_is_in_these_rooms() -> None:
    script = "import sys, datamodules.prepare.cache; print(*(m for m in sys.modules if m.startswith('datamodules.')))"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {name.split(".")[1] for name in found.split()} == set(module.ROOMS)


def test_an_interrupted_preparation_leaves_nothing(
    tmp_path: Path, made: Callable[..., tuple[Path, DataStats]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = part(tmp_path / "a.jsonl", rows(2_000))

    def broken() -> Any:
        for i, row in enumerate(one.source.rows()):
            if i == 1_000:
                raise KeyboardInterrupt
            yield row

    with pytest.raises(KeyboardInterrupt):
        made(replace(one, source=replace(one.source, rows=broken)))
    assert list((tmp_path / "cache").iterdir()) == []
    assert made(one)[1].read == 2_000


@pytest.mark.parametrize("name", ["train.arrow", "val.arrow", "stats.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
        lambda path: os.truncate(path, 100),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_file_is_named_and_its_rows_are_prepared_again(
    tmp_path: Path,
    made: Callable[..., tuple[Path, DataStats]],
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], None],
) -> None:
    one = part(tmp_path / "a.jsonl", rows(40))
    folder, stats = made(one)
    train = (folder / "train.arrow").read_bytes()
    damage(folder / name)
    with caplog.at_level(logging.WARNING, "thinkwright"):
        assert made(one) == (folder, stats)
    (record,) = caplog.records
    assert str(folder / name) in record.message
    assert record.message.endswith("preparing the rows again")
    assert (folder / "train.arrow").read_bytes() == train
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_prepared_rows_are_read_where_nothing_can_be_written_and_damage_there_is_one_line(
    tmp_path: Path, made: Callable[..., tuple[Path, DataStats]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = part(tmp_path / "a.jsonl", rows(40))
    folder, stats = made(one)

    def read_only(*_: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("locked", "new_folder", "delete"):
        monkeypatch.setattr(module, name, read_only)
    assert made(one) == (folder, stats)
    os.truncate(folder / "val.arrow", 5)
    words = (
        rf"data.cache_dir: {folder}/val.arrow is damaged, .*Read-only file system\). Delete {folder}, or give another"
    )
    with pytest.raises(UserError, match=words):
        made(one)


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from datamodules.magpie import MagpieDataModule
from errors import UserError
try:
    data = MagpieDataModule(source=sys.argv[1], cache_dir=sys.argv[2], train_rows=None, val_rows=None, num_proc=1)
    folder, stats = data._prepare("fit")
    print(folder.name, stats.read)
except UserError as error:
    sys.exit(f"error: {{error}}")
"""


def preparing(source: Path, cache: Path, **more: Any) -> subprocess.Popen[str]:
    script = SCRIPT.format(root=str(ROOT))
    arguments = [sys.executable, "-c", script, str(source), str(cache)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


@pytest.mark.slow
def test_a_killed_preparation_never_looks_complete_and_is_deleted(tmp_path: Path) -> None:
    one = part(tmp_path / "a.jsonl", rows(60_000))
    assert one.source.name
    killed = preparing(tmp_path / "a.jsonl", tmp_path / "cache")
    while not list((tmp_path / "cache").glob(".writing-*/train.arrow")):
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not list((tmp_path / "cache").glob("*/stats.json"))
    again = preparing(tmp_path / "a.jsonl", tmp_path / "cache")
    out, err = again.communicate()
    assert out.endswith(" 60000\n"), err
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [out.split()[0]]


@pytest.mark.parametrize("damaged", [False, True])
def test_runs_that_start_together_prepare_once(
    tmp_path: Path, tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    one = part(tmp_path / "a.jsonl", rows(300))
    if damaged:
        folder, _ = prepare([one], tiny_tokenizer, ALL, None, tmp_path / "cache")
        os.truncate(folder / "train.arrow", 1_000)
    writes: list[int] = []
    write = module._write

    def counted(*args: Any) -> None:
        writes.append(1)
        write(*args)

    monkeypatch.setattr(module, "_write", counted)
    found: list[tuple[Path, DataStats]] = []
    threads = [
        threading.Thread(target=lambda: found.append(prepare([one], tiny_tokenizer, ALL, None, tmp_path / "cache")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(writes) == 1
    assert all(asdict(stats) == asdict(found[0][1]) for _, stats in found)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_no_incomplete_folder(tmp_path: Path) -> None:
    part(tmp_path / "a.jsonl", rows(20_000))

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    full = preparing(tmp_path / "a.jsonl", tmp_path / "cache", preexec_fn=small_files)
    _, err = full.communicate()
    assert full.returncode == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "data.cache_dir" in line
    assert "Free some space, or give a folder on another disk" in line
    assert "Traceback" not in err
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (rows(3, response="<think>never"), r"leaves no row for train of 3 read \(3 think block never closed"),
        (rows(40, response="<think>a</think>" + "x " * 600), r"longer than data.max_length\). Raise .* \(512\)"),
        ([{"topic": "a", "body": "b"}], r"data.columns: 'the data' has the columns topic, body, which are no layout"),
        ([], "is empty"),
    ],
)
def test_data_without_a_kept_row_is_refused(
    tmp_path: Path, made: Callable[..., tuple[Path, DataStats]], data: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        made(part(tmp_path / "a.jsonl", data))


def test_filters_that_keep_nothing_are_named(tmp_path: Path, made: Callable[..., tuple[Path, DataStats]]) -> None:
    with pytest.raises(
        UserError,
        match=r"data\.filters: .*leaves no row for train of 9 read \(9 data\.filters\.difficulty is not met\)",
    ):
        made(part(tmp_path / "a.jsonl", rows(9, difficulty="easy"), filters={"difficulty": ["hard"]}))
    with pytest.raises(UserError, match=r"data\.filters: 'dificulty' is not a column.*Did you mean difficulty\?"):
        made(part(tmp_path / "a.jsonl", rows(9, difficulty="easy"), filters={"dificulty": ["easy"]}))


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path: Path, tiny_tokenizer: ThinkTokenizer) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data.cache_dir"):
        prepare([part(tmp_path / "a.jsonl", rows(40))], tiny_tokenizer, ALL, None, tmp_path / "file" / "cache")


def test_a_shortfall_is_printed() -> None:
    stats = DataStats(read=50, kept={"train": 30, "val": 4})
    assert list(shortfall(stats, {"train": 40, "val": None, "test": 9}, ("train", "val"))) == [
        "data.train_rows: 40 requested, 30 kept of 50 read; using these"
    ]
