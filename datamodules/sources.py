"""Where rows come from: built in, a local file or folder, or a data set on the hub, all as one stream of dicts.

Nothing is read before the first row is asked for, and nothing is held: preparing costs what is taken from the stream.
"""

import glob
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hub
from datamodules import equations
from errors import UserError

Row = dict[str, Any]
BUILT_IN: dict[str, equations.Style] = {"builtin": "think", "builtin-plain": "plain"}
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}
COMMIT = re.compile(r"[0-9a-f]{40}")
SHUFFLE_BUFFER = 1_000  # rows; drawn from up to ten shards at once, so a part of a hub set is a fair sample of it


@dataclass(frozen=True)
class Source:
    """`identity` changes whenever the rows may have; `held_out(row, instruction)` decides the side of a row."""

    name: str
    identity: str
    held_out: Callable[[Row, str], bool]
    rows: Callable[[], Iterator[Row]]


def open_source(name: str, revision: str | None, split: str, held_out: float, seed: int) -> Source:
    """The source of this name: `builtin`, `builtin-plain`, a path or glob, else a hub id.

    Raises UserError for a path that does not exist or is of no known format, an empty file, an id or revision that the
    hub does not know, and a hub that does not answer. A hub id with a full commit as its revision asks the hub nothing
    until rows are read.
    """
    if name in BUILT_IN:
        # The base model was pretrained on the same problems, so which are held out is fixed and knows no seed.
        style = BUILT_IN[name]
        return Source(
            name, f"{name} {seed}", lambda row, _: equations.is_held_out(row), lambda: equations.rows(seed, style)
        )
    side = HeldOut(held_out, seed)
    if files := local_files(name):
        stat = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        paths = [str(path) for path in files]
        return Source(
            name,
            f"{stat} {side}",
            side,
            lambda: _stream(name, FORMATS[files[0].suffix], data_files=paths, split="train"),
        )
    if not hub.HUB_ID.fullmatch(name) or Path(name).suffix in FORMATS:
        raise UserError(
            "data.source",
            name,
            "does not exist",
            "give a .parquet, .jsonl or .json file, a folder of them, a hub id, or builtin",
        )
    if not COMMIT.fullmatch(revision or ""):
        revision = _require(name, revision).sha

    def rows() -> Iterator[Row]:
        _require(name, revision)
        return _stream(name, name, revision=revision, split=split, shuffle_seed=seed)

    return Source(name, f"{name} {revision} {split} {seed} {side}", side, rows)


def _require(name: str, revision: str | None) -> Any:
    """The hub's `DatasetInfo`; raises UserError where the hub does not have the set or does not answer."""
    info = hub.probe("dataset", "data.source", name, revision)
    if info is None:
        raise hub.unreachable("dataset", "data.source", name, None)
    return info


@dataclass(frozen=True)
class HeldOut:
    """Holds out a share of the instructions by their hash: however often one occurs, it is on one side only."""

    share: float
    seed: int

    def __call__(self, row: Row, instruction: str) -> bool:
        text = f"{self.seed} {' '.join(instruction.lower().split())}"
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.share * 2**64


def local_files(name: str) -> list[Path]:
    """The data files at a path, in a folder or matching a glob, in order; none if there is nothing there."""
    path = Path(name).expanduser()
    if not path.exists() and (hub.CHECKOUT / name).exists():
        path = hub.CHECKOUT / name
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix in FORMATS)
        if not found:
            raise UserError("data.source", name, f"holds no {', '.join(FORMATS)} file", "give the folder that does")
    else:
        found = [path] if path.exists() else sorted(map(Path, glob.glob(str(path), recursive=True)))
    kinds = {FORMATS.get(p.suffix) for p in found}
    if found and (None in kinds or len(kinds) > 1):
        raise UserError(
            "data.source", name, "is not one kind of .parquet, .jsonl or .json", "give files of one of these kinds"
        )
    for p in found:
        if p.stat().st_size == 0:
            raise UserError("data.source", p, "is empty", "give a file with rows in it")
    return found


def _stream(name: str, path: str, shuffle_seed: int | None = None, **where: Any) -> Iterator[Row]:
    """Rows through `datasets`, whose many exceptions become one line that names the source."""
    import datasets

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it prints tracebacks of what is said below in a line
    try:
        stream = datasets.load_dataset(path, streaming=True, **where)
        if shuffle_seed is not None:
            stream = stream.shuffle(seed=shuffle_seed, buffer_size=SHUFFLE_BUFFER)
        yield from stream
    except Exception as error:  # OSError, ValueError, those of datasets, pyarrow, fsspec and the hub
        cause = error.__cause__ or error
        problem = f"cannot be read ({type(cause).__name__}: {' '.join(str(cause).split())[:200]})"
        raise UserError(
            "data.source", name, problem, "mend or replace the file, or check data.split and data.revision"
        ) from error
