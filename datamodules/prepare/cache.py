"""Rows -> token ids and roles on disk, once: as many as asked for that survive, and a count of what did not and why.

A prepared folder is named by a fingerprint of all that decides its content. It is written beside its place and moved
there whole, under a lock: of ranks and runs that ask at the same time one prepares and the others wait, and a
broken-off preparation leaves nothing that is taken for a whole one.
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

from datamodules.prepare.pass_over_sources import Part, PassOverSources, Quotas
from datamodules.prepare.stats import Report
from datamodules.prepare.token_dataset import TokenDatasetWriter
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError

ROOMS = ("rows", "text", "tokens", "prepare")  # of the code that prepares: a change there makes old folders stale

log = logging.getLogger("thinkwright")


def fingerprint(
    parts: Sequence[Part], tokenizer: ThinkTokenizer, quotas: Quotas, near_duplicate_threshold: float | None
) -> str:
    """Equal exactly when the prepared rows would be."""
    package = Path(__file__).parent.parent
    code = b"".join(file.read_bytes() for room in ROOMS for file in sorted((package / room).glob("*.py")))
    mixed = [(part.source.identity, asdict(part.recipe), part.weight) for part in parts]
    key = [mixed, tokenizer.fingerprint, quotas, near_duplicate_threshold, hashlib.sha256(code).hexdigest()]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def prepare(
    parts: Sequence[Part],
    tokenizer: ThinkTokenizer,
    quotas: Quotas,
    near_duplicate_threshold: float | None,
    cache_dir: Path,
    num_proc: int = 1,
) -> tuple[Path, Report]:
    """The folder with `{split}.arrow` for each quota, and its report; made here unless it is there already.

    Raises UserError if a source cannot be read or holds no row, none of those wanted survives, or the folder cannot be
    written to its end.
    """
    folder = cache_dir / fingerprint(parts, tokenizer, quotas, near_duplicate_threshold)
    done = folder / "report.json"
    if not done.is_file():
        with _writing(cache_dir, folder) as scratch:
            if not done.is_file():  # it is not: nobody else had the lock
                survey = PassOverSources(parts, tokenizer.encoder, quotas, near_duplicate_threshold, num_proc)
                _write(survey, scratch)
                (scratch / "report.json").write_text(json.dumps(asdict(survey.report), indent=1))
                os.rename(scratch, folder)
    return folder, Report(**json.loads(done.read_text()))


@contextmanager
def _writing(cache_dir: Path, folder: Path) -> Iterator[Path]:
    """An empty scratch folder that is gone afterwards, and the lock on `folder`. Errors of the disk become one line."""
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
            shutil.rmtree(scratch, ignore_errors=True)  # of one that was killed
            scratch.mkdir()
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            lock.release()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        problem = f"cannot be written ({error.strerror or error}); nothing is left of it"
        fix = "make room or give a folder on another disk" if full else "give a folder that can"
        raise UserError("data.cache_dir", cache_dir, problem, fix) from error


def _write(survey: PassOverSources, folder: Path) -> None:
    from tqdm import tqdm

    wanted = list(survey.quotas.values())
    total = sum(rows for rows in wanted if rows) if all(wanted) else None
    writers = {split: TokenDatasetWriter(folder / f"{split}.arrow") for split in survey.quotas}
    with tqdm(total=total, desc="preparing", unit=" rows", disable=None, smoothing=0.05) as bar:
        for outcome, _, split in survey:
            if split is not None:
                writers[split].add(outcome.row_id, outcome.group, outcome.supervised, outcome.ids, outcome.roles)
                bar.update()
            if not survey.report.read % 500:
                bar.set_postfix_str(f"{survey.report.read:,} read", refresh=False)
    survey.report.digests = {split: writer.close() for split, writer in writers.items()}
    survey.require_rows()


def shortfall(report: Report, quotas: Mapping[str, int | None]) -> Iterator[str]:
    """What to say where fewer rows survived than were asked for."""
    for split, wanted in quotas.items():
        kept = report.kept.get(split, 0)
        if wanted and kept < wanted:
            yield (
                f"data.{split}_rows: {wanted:,} asked for, {kept:,} of {report.read:,} rows read survive; using those"
            )
