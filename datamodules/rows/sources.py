"""Where rows come from: built in, local files, or a data set on the hub, all as one stream of dicts.

Nothing is read before the first row is asked for, and nothing is held: preparing costs what is taken from the stream.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hub
from datamodules.rows import builtin, files
from datamodules.rows.files import Row
from datamodules.text.malformed import MalformedPolicy
from datamodules.text.response import Columns, Tags
from errors import UserError

BUILT_IN: dict[str, builtin.Style] = {"builtin": "think", "builtin-plain": "plain"}
COMMIT = re.compile(r"[0-9a-f]{40}")
SHUFFLE_BUFFER = 1_000  # rows; drawn from up to ten shards at once, so a part of a hub set is a fair sample of it


@dataclass(frozen=True)
class Source:
    """`identity` changes whenever the rows may have; `held_out(row, instruction)` decides the side of a row.

    `comparable` is False where alike instructions are different problems, so that none is a near duplicate.
    """

    name: str
    identity: str
    held_out: Callable[[Row, str], bool]
    rows: Callable[[], Iterator[Row]]
    comparable: bool = True
    endless: bool = False


@dataclass
class MixedSource:
    """One of several sources; what is null is as it is for data."""

    name: str
    """As data.source."""
    weight: float | None = None
    """Its share of the rows kept, against the weights of the others; where all are null, each gives all it has."""
    revision: str | None = None
    """Commit of the hub data set."""
    split: str = "train"
    """Split of the hub data set."""
    columns: Columns | None = None
    """Names of its columns."""
    tags: Tags | None = None
    """What opens and closes its thoughts."""
    untidy: MalformedPolicy | None = None
    """What is done about its untidy responses."""
    where: dict[str, Any] | None = None
    """Which of its rows are wanted."""


def check_sources(given: Sequence[MixedSource], rows: Mapping[str, int | None]) -> None:
    """Raises UserError for a mix that cannot be, and for numbers of rows, by split, that its sources cannot give."""
    if not given:
        raise UserError("data.mix", "[]", "names no source", "give one or more, or null for data.source alone")
    for one in given:
        if one.weight is not None and not 0 < one.weight < float("inf"):
            raise UserError("data.mix", f"weight {one.weight}", "is not above 0", "give a share like 0.25")
    if len({one.weight is None for one in given}) > 1:
        raise UserError("data.mix", None, "some sources have a weight and some none", "give all one, or none")
    for split, count in rows.items():
        if count is not None and count < 1:
            fix = "give the number of rows, or null for all"
            raise UserError(f"data.{split}_rows", count, "is below 1", fix)
        if count is None and any(one.name in BUILT_IN for one in given):
            fix = "give the number of rows"
            raise UserError(f"data.{split}_rows", "null", "asks for all of an endless source", fix)


def open_source(name: str, revision: str | None, split: str, held_out: float, seed: int) -> Source:
    """The source of this name: `builtin`, `builtin-plain`, a path or glob, else a hub id.

    `split` is that of a hub set, or of a folder that `DatasetDict.save_to_disk` wrote. A hub id with a full commit as
    its revision asks the hub nothing until rows are read.

    Raises UserError for a path that does not exist or is of no known format, an empty file, an id, revision or split
    that is not there, and a hub that does not answer; its `rows` raise it for what cannot be read to its end.
    """
    if name in BUILT_IN:
        # The base model was pretrained on the same problems, so which are held out is fixed and knows no seed. They
        # share their wording by design.
        style = BUILT_IN[name]
        return Source(
            name,
            f"{name} {seed}",
            lambda row, _: builtin.is_held_out(row),
            lambda: builtin.rows(seed, style),
            comparable=False,
            endless=True,
        )
    side = HeldOut(held_out, seed)
    if paths := files.local_files(name, split):
        return Source(name, f"{files.identity(paths)} {side}", side, lambda: files.rows(paths))
    if not hub.HUB_ID.fullmatch(name) or files.kind_of(Path(name)):
        fix = f"give a {files.KINDS} file, a folder or glob of them, a hub id, or builtin"
        raise UserError("data.source", name, "does not exist", fix)
    if not COMMIT.fullmatch(revision or ""):
        revision = _require(name, revision).sha

    def rows() -> Iterator[Row]:
        _require(name, revision)
        return _stream(name, revision, split, seed)

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


def _stream(name: str, revision: str | None, split: str, seed: int) -> Iterator[Row]:
    """Rows of a hub set through `datasets`, whose many exceptions become one line that names the set."""
    import datasets

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it prints tracebacks of what is said below in a line
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # and this each of its tries
    # huggingface_hub tries every request again for 23 seconds. By default `datasets` goes through that twenty times.
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    try:
        stream = datasets.load_dataset(name, revision=revision, split=split, streaming=True)
        yield from stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
    except Exception as error:  # OSError, ValueError, those of datasets, pyarrow, fsspec and the hub
        cause = error.__cause__ or error
        problem = f"cannot be read ({type(cause).__name__}: {' '.join(str(cause).split())[:200]})"
        fix = (
            f"check data.split and data.revision, try again, or run `hf download --repo-type dataset {name} "
            "--local-dir DIR` and set data.source DIR"
        )
        raise UserError("data.source", name, problem, fix) from error
