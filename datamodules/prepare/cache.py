"""Prepare the rows of all splits once: token ids, roles and DataStats in a folder under `data.cache_dir`.

The name of a folder is a fingerprint of everything that decides its content. A folder is written under another name and
renamed when it is complete, so an interrupted preparation never looks complete. A lock lets one of several ranks and
runs prepare while the others wait.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from datamodules.prepare.mix import Part
from datamodules.prepare.pass_over_sources import PassOverSources, Quotas
from datamodules.prepare.stats import DataStats
from datamodules.prepare.token_dataset import TokenDatasetWriter
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError

ROOMS = ("rows", "text", "tokens", "prepare")  # a change in their code makes prepared folders stale
PACKAGE = Path(__file__).parent.parent
STATS = "stats.json"  # written last: a folder with it is complete

log = logging.getLogger("thinkwright")


def fingerprint(
    parts: Sequence[Part], tokenizer: ThinkTokenizer, quotas: Quotas, near_duplicate_threshold: float | None
) -> str:
    """Return a hash of everything that decides the prepared rows: sources, settings, tokenizer and code."""
    code = b"".join(file.read_bytes() for room in ROOMS for file in sorted((PACKAGE / room).glob("*.py")))
    mixed = [(part.source.fingerprint, asdict(part.config), part.weight) for part in parts]
    key = [mixed, tokenizer.fingerprint, quotas, near_duplicate_threshold, hashlib.sha256(code).hexdigest()]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def prepare(
    parts: Sequence[Part],
    tokenizer: ThinkTokenizer,
    quotas: Quotas,
    near_duplicate_threshold: float | None,
    cache_dir: Path,
    num_proc: int = 1,
) -> tuple[Path, DataStats]:
    """Return the folder with `{split}.arrow` for each quota, and its stats. The folder is made if it does not exist.

    A split may be empty, not all of them. Raises UserError if a source cannot be read, no row is kept, or the folder
    cannot be written.
    """
    folder = cache_dir / fingerprint(parts, tokenizer, quotas, near_duplicate_threshold)
    done = folder / STATS
    if not done.is_file():
        with _writing(cache_dir, folder) as scratch:
            if not done.is_file():  # no other process made it before the lock was free
                source_pass = PassOverSources(parts, tokenizer.encoder, quotas, near_duplicate_threshold, num_proc)
                _write(source_pass, scratch)
                (scratch / STATS).write_text(json.dumps(asdict(source_pass.stats), indent=1))
                os.rename(scratch, folder)
    return folder, DataStats(**json.loads(done.read_text()))


@contextmanager
def _writing(cache_dir: Path, folder: Path) -> Iterator[Path]:
    """Yield an empty scratch folder under the lock on `folder`, then delete it. Raises UserError for disk errors."""
    from filelock import FileLock, Timeout

    scratch = cache_dir / f".preparing-{folder.name}"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache_dir / f".{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info(f"data: another process is preparing {folder}; waiting for it")
            lock.acquire()
        try:
            shutil.rmtree(scratch, ignore_errors=True)  # left by a killed process
            scratch.mkdir()
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            lock.release()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        problem = f"cannot be written ({error.strerror or error}); the incomplete folder was deleted"
        fix = "make room or give a folder on another disk" if full else "give a folder that can be written"
        raise UserError("data.cache_dir", cache_dir, problem, fix) from error


def _write(source_pass: PassOverSources, folder: Path) -> None:
    """Write the kept rows of each split, with a progress bar."""
    from tqdm import tqdm

    stats, wanted = source_pass.stats, list(source_pass.quotas.values())
    total = sum(rows for rows in wanted if rows) if all(wanted) else None
    writers = {split: TokenDatasetWriter(folder / f"{split}.arrow") for split in source_pass.quotas}
    with tqdm(total=total, desc="preparing", unit=" rows", disable=None, smoothing=0.05) as bar:
        for example, _, split in source_pass:
            if split is not None:
                writers[split].add(example)
                bar.update()
            if not stats.read % 500:
                bar.set_postfix_str(f"{stats.read:,} read", refresh=False)
    stats.digests = {split: writer.close() for split, writer in writers.items()}
    if not any(stats.kept.values()):
        source_pass.require_rows()


def shortfall(stats: DataStats, quotas: Mapping[str, int | None], splits: Sequence[str]) -> Iterator[str]:
    """Yield a line for each of some splits with fewer kept rows than its quota."""
    for split in splits:
        wanted, kept = quotas[split], stats.kept.get(split, 0)
        if wanted and kept < wanted:
            yield f"data.{split}_rows: {wanted:,} requested, {kept:,} kept of {stats.read:,} read; using these"
