"""Sources of rows: built-in problems, local files, or a data set on the hub, each as one lazy stream.

Nothing is read before the first row is requested, and no row is kept.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import hub
from datamodules.rows import builtin, files, folders
from datamodules.rows.pieces import Row, SourceRow, numbered
from datamodules.rows.sampling import Order
from errors import UserError

BUILT_IN: dict[str, builtin.Style] = {"builtin": "think", "builtin-plain": "plain"}
CONFIGS = re.compile(r"(?:available configs|Available): \[(.*?)\]")  # in the messages of datasets
COMMIT = re.compile(r"[0-9a-f]{40}")
SHUFFLE_BUFFER = 1_000  # rows, drawn from up to ten shards at once: the first rows are a fair sample of the data set


@dataclass(frozen=True)
class Source:
    """A stream of rows with a name."""

    name: str
    fingerprint: str  # changes when the rows may have changed
    held_out: Callable[[Row, str], bool]  # whether a row with this instruction is held out
    rows: Callable[[], Iterator[SourceRow]]
    comparable: bool = True  # False if similar instructions are different problems: then no row is a near duplicate
    endless: bool = False
    files: Sequence[Path] = ()  # of a local source
    reading: str = ""  # which files are read, and in which order their rows, in words

    def heads(self, count: int) -> Iterator[tuple[str, list[Row]]]:
        """Yield the name and the first rows of each file, if there are several."""
        for path in self.files if len(self.files) > 1 else ():
            yield str(path), [one.row for one in islice(files.rows([path]), count)]


def open_source(
    name: str,
    revision: str | None,
    split: str,
    heldout_ratio: float,
    seed: int,
    config: str | None = None,
    order: Order = "sampled",
) -> Source:
    """Return the source `builtin` or `builtin-plain`, of a path or glob, or of a hub id.

    `split` and `config` choose a part of the hub data set, or of a folder. If the revision is a full commit, the hub is
    asked only when rows are read.

    Raises UserError for a path that does not exist or has no known format, an empty file, an unknown id, revision or
    split, and a hub that does not answer. `rows` raises UserError for a source that cannot be read to its end.
    """
    if name in BUILT_IN:
        # The base model was pretrained on the same problems, so the held-out problems are the same for every seed.
        # Different problems share their wording by design.
        style = BUILT_IN[name]
        return Source(
            name,
            f"{name} {seed}",
            lambda row, _: builtin.is_held_out(row),
            lambda: numbered(builtin.rows(seed, style)),
            comparable=False,
            endless=True,
        )
    side = HeldOut(heldout_ratio, seed)
    if (found := folders.local_files(name, split, config)).paths:
        paths = found.paths
        told = f"{found.words}; " if found.words else ""
        told += "in the order of the file, from its top" if order == "file" else "sampled from all rows"
        fingerprint = f"{files.fingerprint(paths)} {order} {seed} {side}"
        told += f" (data.order {order})"
        return Source(name, fingerprint, side, lambda: files.rows(paths, order, seed), files=paths, reading=told)
    if not hub.is_hub_id(name) or folders.format_of(Path(name)):
        fix = f"give a {folders.FORMATS_IN_WORDS} file, a folder or glob of them, a hub id, or builtin"
        raise UserError("data.source", name, hub.what_is_there(name), fix)
    if not COMMIT.fullmatch(revision or ""):
        revision = _require(name, revision).sha

    def rows() -> Iterator[SourceRow]:
        _require(name, revision)
        return numbered(_stream(name, config, revision, split, None if order == "file" else seed))

    told = "in the order of the set" if order == "file" else f"sampled from shards, {SHUFFLE_BUFFER:,} rows at a time"
    fingerprint = f"{name} {config} {revision} {split} {order} {seed} {side}"
    return Source(name, fingerprint, side, rows, reading=f"split {split}, {told} (data.order {order})")


def _require(name: str, revision: str | None) -> Any:
    """The `DatasetInfo` of the hub. Raises UserError if the hub lacks the data set or does not answer."""
    info, why = hub.probe("dataset", "data.source", name, revision)
    if info is None:
        raise hub.unreachable("dataset", "data.source", name, why)
    return info


@dataclass(frozen=True)
class HeldOut:
    """Holds out a ratio of the instructions by their hash, so that equal instructions are on one side."""

    ratio: float
    seed: int

    def __call__(self, row: Row, instruction: str) -> bool:
        text = f"{self.seed} {' '.join(instruction.lower().split())}"
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.ratio * 2**64


def _stream(name: str, config: str | None, revision: str | None, split: str, seed: int | None) -> Iterator[Row]:
    """Rows of a hub data set, read by `datasets`; in its order if `seed` is None. Raises UserError for each of its
    exceptions."""
    import datasets

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it prints tracebacks of the errors below
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it prints each attempt
    # huggingface_hub repeats a request for 23 seconds. By default `datasets` repeats that twenty times.
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
    try:
        stream = datasets.load_dataset(name, config, revision=revision, split=split, streaming=True)
        yield from stream if seed is None else stream.shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
    except Exception as error:  # OSError, ValueError, or an exception of datasets, pyarrow, fsspec or the hub
        cause = error.__cause__ or error
        if known := CONFIGS.search(str(error)):
            problem = f"is no part of {name}" if config else f"has to choose a part of {name}"
            fix = f"give one of {known[1].replace(chr(39), '')}"
            raise UserError("data.config", config, problem, fix) from error
        problem = f"cannot be read ({type(cause).__name__}: {' '.join(str(cause).split())[:200]})"
        fix = (
            f"check data.split and data.revision, try again, or run `hf download --repo-type dataset {name} "
            "--local-dir DIR` and set data.source DIR"
        )
        raise UserError("data.source", name, problem, fix) from error
