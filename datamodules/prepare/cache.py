"""Prepare the rows of all splits once: token ids, roles and DataStats in a folder under `data.cache_dir`.

The name of a folder is a fingerprint of everything that decides its content. A folder gets its name when it is complete
and flushed to the disk, so an interrupted preparation never looks complete. A lock lets one of several ranks and runs
prepare while the others wait. The files of a folder are compared with their digests before they are read; if one is
damaged, the rows are prepared again.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from datamodules.prepare.mix import Part
from datamodules.prepare.pass_over_sources import PassOverSources, Quotas
from datamodules.prepare.prepared_folder import Damaged, complete, delete, read_stats
from datamodules.prepare.stats import DataStats
from datamodules.prepare.token_dataset import TokenDatasetWriter
from datamodules.tokens.tokenizer import ThinkTokenizer
from disk import disk_error, locked, new_folder, remove_leftovers
from errors import UserError

ROOMS = ("rows", "layouts", "text", "tokens", "prepare")  # a change in their code makes prepared folders stale
PACKAGE = Path(__file__).parent.parent

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
    """Return the folder with `{split}.arrow` for each quota, and its stats. The folder is made if it does not exist, or
    is damaged.

    A split may be empty, not all of them. Raises UserError if a source cannot be read, no row is kept, or the folder
    cannot be written.
    """
    folder = cache_dir / fingerprint(parts, tokenizer, quotas, near_duplicate_threshold)
    damaged: Damaged | None = None
    remove_leftovers(cache_dir)
    try:
        try:
            stats = read_stats(folder)  # needs no lock and no right to write
        except Damaged as found:
            stats, damaged = None, found
        if stats is None:
            with locked(folder, lambda: log.info(f"data: another process is preparing {folder}; waiting for it")):
                source_pass = PassOverSources(parts, tokenizer.encoder, quotas, near_duplicate_threshold, num_proc)
                stats = _under_lock(folder, source_pass)
    except OSError as error:
        if damaged is None:
            raise disk_error("data.cache_dir", cache_dir, error) from error
        problem = f"{damaged}, and the rows cannot be prepared again there ({error.strerror or error})"
        raise UserError("data.cache_dir", None, problem, f"delete {folder}, or give another folder") from error
    return folder, stats


def _under_lock(folder: Path, source_pass: PassOverSources) -> DataStats:
    """Return the stats of the folder; make the folder, unless another process has made it before the lock was free."""
    try:
        if (stats := read_stats(folder)) is not None:
            return stats
    except Damaged as damaged:
        log.warning(f"data: {damaged}; preparing the rows again")
        delete(folder)
    try:
        with new_folder(folder) as scratch:
            _write(source_pass, scratch)
            complete(scratch, folder.name, source_pass.stats, [f"{split}.arrow" for split in source_pass.quotas])
    except FileExistsError:  # the disk has no locks, and another process was faster
        if (stats := read_stats(folder)) is None:
            raise
        return stats
    return source_pass.stats


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
