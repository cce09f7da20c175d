"""Local files as one stream of rows: parquet, JSON lines or arrays (also .gz, .zst, .bz2), arrow, save_to_disk.

A stream is lazy: a few rows are in memory, never a whole file. A file that cannot be read raises UserError, which names
the file and, for JSON lines, the line.
"""

import glob
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import hub
from datamodules.rows.arrow_files import arrow_rows, parquet_rows
from disk import digests, is_file_name
from errors import UserError

Row = dict[str, Any]
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".arrow": "arrow"}
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}  # of JSON files; pyarrow decompresses these
FORMATS_IN_WORDS = ".parquet, .jsonl, .json (also .gz or .zst) or .arrow"
SETTING = "data.source"  # named in the errors
READ_CHARACTERS = 1 << 20  # characters of a JSON array read at once
LONGEST_ROW = 1 << 25  # characters of a row of JSON: 32 million, so that a file of one line does not fill the memory
TOO_LONG = f"is longer than {LONGEST_ROW:,} characters"
SAVE_AGAIN = "save the data set again"
METADATA = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}  # JSON files without rows


def format_of(path: Path) -> str | None:
    """Return `parquet`, `json` or `arrow`; None for any other file and for metadata."""
    if path.name in METADATA:
        return None
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    file_format = FORMATS.get(suffix)
    return None if file_format != "json" and path.suffix in COMPRESSED else file_format


def local_files(name: str, split: str) -> list[Path]:
    """Return the data files at a path, in a folder or of a glob, in order; an empty list if nothing exists there.

    `split` only chooses a split of a folder that `DatasetDict.save_to_disk` wrote. Raises UserError for a folder
    without data, a missing split, files of more than one format and empty files.
    """
    path = Path(name).expanduser()
    if not path.exists() and (hub.CHECKOUT / name).exists():
        path = hub.CHECKOUT / name
    if path.is_dir():
        found = _in_folder(path, name, split)
    elif path.exists():
        found = [path]
    else:
        found_names = sorted(glob.glob(str(path), recursive=True))
        matches = [Path(match) for match in found_names if os.path.exists(match)]  # no link to nowhere or to itself
        files = [p for p in matches if p.is_file()] or [f for p in matches for f in _in_folder(p, name, split)]
        # "data/**" also matches other files, like a README: they are skipped. "*.csv" matches nothing else: an error.
        found = [p for p in files if format_of(p)] or files
    formats = {format_of(p) for p in found}
    if found and (None in formats or len(formats) > 1):
        raise UserError(SETTING, name, f"does not have one format of {FORMATS_IN_WORDS}", "give files of one format")
    for p in found:
        if p.stat().st_size == 0:
            raise UserError(SETTING, p, "is empty", "give a file with rows in it")
    return found


def _in_folder(folder: Path, name: str, split: str) -> list[Path]:
    """The data files in a folder: the files that state.json of `datasets` lists, else all files except hidden ones."""
    if (folder / "dataset_dict.json").is_file():
        splits = _json_file(folder / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not all(is_file_name(one) for one in splits):
            raise UserError(SETTING, folder / "dataset_dict.json", "names no splits", SAVE_AGAIN)
        if split not in splits:
            raise UserError("data.split", split, f"is not in {name}", f"it has {', '.join(splits)}")
        folder = folder / split
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        found = _saved_files(folder)
    else:
        below = (p for p in folder.rglob("*") if not any(part[0] == "." for part in p.relative_to(folder).parts))
        found = sorted(p for p in below if p.is_file() and format_of(p))
    if not found:
        raise UserError(SETTING, name, f"contains no {FORMATS_IN_WORDS} file", "give the folder with the data files")
    return found


def _saved_files(folder: Path) -> list[Path]:
    """The files that the state.json of `datasets` lists. Raises UserError for a file that is missing or elsewhere."""
    path = folder / "state.json"
    listed = _json_file(path).get("_data_files")
    if not isinstance(listed, list):
        raise UserError(SETTING, path, "lists no files", SAVE_AGAIN)
    names = [file.get("filename") if isinstance(file, dict) else file for file in listed]
    for file in names:
        if not is_file_name(file):
            raise UserError(SETTING, path, f"lists {file!r:.100}, which is no file of this folder", SAVE_AGAIN)
        if not (folder / file).is_file():
            raise UserError(SETTING, folder / file, "is missing in this saved data set", SAVE_AGAIN)
    return [folder / str(file) for file in names]


def _json_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise UserError(SETTING, path, "holds no JSON object", SAVE_AGAIN)
    return content


def fingerprint(paths: list[Path]) -> str:
    """Return a hash of each file's name and content. Raises UserError for a file that cannot be opened."""
    try:
        known = [(path.name, one) for path, one in zip(paths, digests(paths), strict=True)]
    except OSError as error:
        raise _unreadable(Path(error.filename or paths[0]), error) from error
    return hashlib.blake2b(repr(known).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def rows(paths: list[Path]) -> Iterator[Row]:
    """Yield the rows of these files in order. Raises UserError for a file that cannot be read."""
    for path in paths:
        yield from READERS[format_of(path) or ""](path)


def _unreadable(path: Path, error: Exception) -> UserError:
    """The error for a file that its library refuses."""
    problem = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:160]})"
    return UserError(SETTING, path, problem, "it may be cut off: copy or download it again")


def _tables(path: Path) -> Iterator[Row]:
    """Rows of a parquet or arrow file."""
    import pyarrow as pa

    try:
        yield from (parquet_rows if format_of(path) == "parquet" else arrow_rows)(path)
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise _unreadable(path, error) from error


def _json(path: Path) -> Iterator[Row]:
    """Rows of JSON lines, or of one array of objects in a .json file."""
    try:
        array = ".jsonl" not in path.suffixes and _open_text(path).read(1 << 12).lstrip().startswith("[")
        yield from (_json_array if array else _json_lines)(path, _open_text(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def _open_text(path: Path) -> io.TextIOWrapper:
    """The decompressed text. Bytes that are not UTF-8 become lone surrogates, so that only their row is dropped."""
    import pyarrow as pa

    stream = pa.input_stream(str(path), compression=COMPRESSED.get(path.suffix))
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _json_lines(path: Path, text: io.TextIOWrapper) -> Iterator[Row]:
    for number in count(1):
        if not (line := text.readline(LONGEST_ROW + 1)):
            return
        if len(line) > LONGEST_ROW:
            raise UserError(SETTING, path, f"cannot be read: line {number} {TOO_LONG}", "fix or remove it")
        if line.isspace():
            continue
        try:
            row = json.loads(line.rstrip())
        except json.JSONDecodeError as error:
            raise _not_json(
                path, f"line {number}", f"{error.msg.removesuffix(' at')} at column {error.colno}"
            ) from error
        except (ValueError, RecursionError) as error:  # thousands of digits or brackets
            raise _not_json(path, f"line {number}", str(error)) from error
        yield _object(row, path, f"line {number}")


def _json_array(path: Path, text: io.TextIOWrapper) -> Iterator[Row]:
    """Rows of an array. Memory grows with the longest object, not with the file."""
    decode = json.JSONDecoder().raw_decode
    between = re.compile(r"[\s,]*")
    buffer, at, number = text.read(READ_CHARACTERS).lstrip()[1:], 0, 1
    while True:
        at = between.match(buffer, at).end()  # type: ignore[union-attr]  # always matches, at least the empty string
        if buffer.startswith("]", at):
            if (buffer[at + 1 :] + text.read(READ_CHARACTERS)).strip():
                problem = f"cannot be read: text follows the end of the array, after object {number - 1}"
                raise UserError(SETTING, path, problem, "put all rows into one array, or write one object per line")
            return
        try:
            row, at = decode(buffer, at)
        except json.JSONDecodeError as error:
            # Either the JSON is wrong, or more text has to be read. In the second case the decoder stopped at the end
            # of the buffer or at the beginning of an unterminated string.
            unfinished = error.pos > len(buffer) - 16 or error.msg.startswith("Unterminated string")
            if unfinished and len(buffer) - at > LONGEST_ROW:
                problem = f"cannot be read: object {number} {TOO_LONG}"
                raise UserError(SETTING, path, problem, "fix or remove it") from None
            more = text.read(max(READ_CHARACTERS, len(buffer))) if unfinished else ""
            if not more:
                why = "the array does not end" if unfinished else error.msg
                raise _not_json(path, f"object {number}", why) from error
            buffer, at = buffer[at:] + more, 0
            continue
        except (ValueError, RecursionError) as error:
            raise _not_json(path, f"object {number}", str(error)) from error
        yield _object(row, path, f"object {number}")
        number += 1


def _object(value: Any, path: Path, place: str) -> Row:
    if isinstance(value, dict):
        return value
    raise _not_json(path, place, f"it is {type(value).__name__}")


def _not_json(path: Path, place: str, why: str) -> UserError:
    return UserError(SETTING, path, f"cannot be read: {place} is not a JSON object ({why[:160]})", "fix or remove it")


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {"parquet": _tables, "json": _json, "arrow": _tables}
