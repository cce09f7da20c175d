"""The folder of prepared rows: it knows its files by their digests, and a damaged file is found before it is read.

`stats.json` holds the DataStats, the digest of every other file, the name of the folder, and a digest of itself.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xxhash

from datamodules.prepare.stats import DataStats
from disk import digest, digests

STATS = "stats.json"


class Damaged(Exception):
    """A file of a prepared folder is missing, or differs from the file that was written. The text begins with its
    path."""


def complete(scratch: Path, name: str, stats: DataStats, files: Sequence[str]) -> None:
    """Write stats.json into a folder that will get this name and holds these files."""
    known = dict(zip(files, digests([scratch / file for file in files]), strict=True))
    content = {"folder": name, "files": known, "stats": asdict(stats)}
    (scratch / STATS).write_text(_with_digest(content))


def read_stats(folder: Path) -> DataStats | None:
    """Return the stats of a folder whose files are all as they were written; None if there is no folder.

    Raises Damaged for any other folder, and PermissionError.
    """
    path = folder / STATS
    try:
        text = path.read_text()
        content: dict[str, Any] = json.loads(text)
        del content["digest"]
        whole = text == _with_digest(content) and content["folder"] == folder.name
    except PermissionError:
        raise
    except OSError as error:
        if not folder.exists() and not folder.is_symlink():
            return None
        raise Damaged(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, RecursionError):
        whole = False
    if not whole:
        raise Damaged(f"{path} is damaged")
    for name, known in content["files"].items():
        try:
            same = digest(folder / name) == known
        except PermissionError:
            raise
        except OSError as error:
            raise Damaged(f"{folder / name} cannot be read ({error.strerror})") from error
        if not same:
            raise Damaged(f"{folder / name} is damaged")
    return DataStats(**content["stats"])


def delete(folder: Path) -> None:
    """Delete a damaged folder, or a file in its place. A process that has opened its files keeps them."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink()


def _with_digest(content: dict[str, Any]) -> str:
    """The text of stats.json; one content has one text."""
    own = xxhash.xxh3_128_hexdigest(json.dumps(content).encode())
    return json.dumps({"digest": own} | content, indent=1)
