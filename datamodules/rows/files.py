"""Local files as one stream of dicts: parquet, JSON lines or arrays (also .gz, .zst, .bz2), arrow, save_to_disk.

A stream costs what is taken from it: a few rows of a file are in memory, never a file. What cannot be read ends in a
line that names the file and, for JSON lines, the line.
"""

import glob
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hub
from errors import UserError

Row = dict[str, Any]
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".arrow": "arrow"}
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}  # of JSON; what pyarrow decompresses by itself
KINDS = ".parquet, .jsonl, .json (also .gz or .zst) or .arrow"
KEY = "data.source"
ROWS_AT_ONCE = 256  # of parquet; a row is some 10 KB, with its nested columns as Python objects some 30
ARRAY_AT_ONCE = 1 << 20  # characters of a JSON array
EDGE = 1 << 16  # bytes of a file's beginning and end that its identity is made of
ABOUT_DATA = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}  # JSON beside data
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format


def kind_of(path: Path) -> str | None:
    """`parquet`, `json` or `arrow`; None for a file that is none of them or a description of data."""
    if path.name in ABOUT_DATA:
        return None
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    kind = FORMATS.get(suffix)
    return None if kind != "json" and path.suffix in COMPRESSED else kind


def local_files(name: str, split: str) -> list[Path]:
    """The data files at a path, in a folder or matching a glob, in order; none if there is nothing there.

    `split` chooses in a folder that `DatasetDict.save_to_disk` wrote, and is not looked at elsewhere. Raises UserError
    for a folder without data, a split it lacks, files of more than one kind and files without content.
    """
    path = Path(name).expanduser()
    if not path.exists() and (hub.CHECKOUT / name).exists():
        path = hub.CHECKOUT / name
    if path.is_dir():
        found = _in_folder(path, name, split)
    elif path.exists():
        found = [path]
    else:
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        files = [p for p in matches if p.is_file()] or [f for p in matches for f in _in_folder(p, name, split)]
        # "data/**" also matches what lies beside the data, like a README; a lone "*.csv" is a mistake to be told of
        found = [p for p in files if kind_of(p)] or files
    kinds = {kind_of(p) for p in found}
    if found and (None in kinds or len(kinds) > 1):
        raise UserError(KEY, name, f"is not one kind of {KINDS}", "give files of one of these kinds")
    for p in found:
        if p.stat().st_size == 0:
            raise UserError(KEY, p, "is empty", "give a file with rows in it")
    return found


def _in_folder(folder: Path, name: str, split: str) -> list[Path]:
    """Data files in a folder: those that its state.json lists, as `datasets` saved it, else all that are not hidden."""
    if (folder / "dataset_dict.json").is_file():
        splits = _json_file(folder / "dataset_dict.json").get("splits", [])
        if split not in splits:
            raise UserError("data.split", split, f"is not in {name}", f"it has {', '.join(splits)}")
        folder = folder / split
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        state = _json_file(folder / "state.json")
        found = [folder / file["filename"] for file in state.get("_data_files", [])]
        if missing := next((p for p in found if not p.is_file()), None):
            raise UserError(KEY, missing, "is missing from what save_to_disk wrote", "save the data set again")
    else:
        below = (p for p in folder.rglob("*") if not any(part[0] == "." for part in p.relative_to(folder).parts))
        found = sorted(p for p in below if p.is_file() and kind_of(p))
    if not found:
        raise UserError(KEY, name, f"holds no {KINDS} file", "give the folder that does")
    return found


def _json_file(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def identity(paths: list[Path]) -> str:
    """Changes whenever the rows may have: names, sizes, times, and a hash of each file's beginning and end.

    The bytes tell apart what a copy, a `touch -r` or a coarse clock makes look the same. Raises UserError for a file
    that cannot be opened.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            stat = path.stat()
            with path.open("rb") as file:
                edges = [file.read(EDGE)]
                file.seek(max(0, stat.st_size - EDGE))
                edges.append(file.read(EDGE))
        except OSError as error:
            raise _unreadable(path, error) from error
        digest.update(repr((path.name, stat.st_size, stat.st_mtime_ns, *edges)).encode())
    return digest.hexdigest()


def rows(paths: list[Path]) -> Iterator[Row]:
    """The rows of these files, one after the other; raises UserError that names the file where one cannot be read."""
    for path in paths:
        yield from READERS[kind_of(path) or ""](path)


def _unreadable(path: Path, error: Exception) -> UserError:
    """The one line for a file that its library refuses."""
    problem = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:160]})"
    return UserError(KEY, path, problem, "it may be cut off: copy or download it again")


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # In small pieces, not a column of a row group at once: 124 MB instead of 234 for a group of 25,000 real rows.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16, page_checksum_verification=True) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                yield from _plain(batch)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _arrow(path: Path) -> Iterator[Row]:
    """Both of arrow's formats: the file, which begins with its name, and the stream, which `datasets` writes."""
    import pyarrow as pa

    try:
        with pa.OSFile(str(path)) as source:
            if source.read(6) == b"ARROW1":
                file = pa.ipc.open_file(source)
                batches = map(file.get_batch, range(file.num_record_batches))
            else:
                # A stream cut between two batches reads like a whole one, but for this mark.
                source.seek(max(0, source.size() - len(END_OF_STREAM)))
                if source.read() != END_OF_STREAM:
                    raise ValueError("the mark of its end is missing")
                source.seek(0)
                batches = iter(pa.ipc.open_stream(source))
            for batch in batches:
                for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                    yield from _plain(batch.slice(start, ROWS_AT_ONCE))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _plain(batch: Any) -> list[Row]:
    """The rows of a pyarrow.RecordBatch; bytes that are not UTF-8 become lone surrogates, as in JSON."""
    import pyarrow as pa

    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        schema = pa.schema([(field.name, _binary(field.type)) for field in batch.schema])
        return [_text(row) for row in pa.Table.from_batches([batch]).cast(schema).to_pylist()]


def _binary(kind: Any) -> Any:
    """This pyarrow.DataType with bytes where it has strings."""
    import pyarrow as pa

    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(_binary(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _binary(field.type)) for field in kind])
    return kind


def _text(value: Any) -> Any:
    """This value with strings where it has bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return [_text(item) for item in value]
    return {key: _text(item) for key, item in value.items()} if isinstance(value, dict) else value


def _json(path: Path) -> Iterator[Row]:
    """JSON lines, or in a .json file one array of objects."""
    try:
        array = ".jsonl" not in path.suffixes and _text_of(path).read(1 << 12).lstrip().startswith("[")
        yield from (_json_array if array else _json_lines)(path, _text_of(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def _text_of(path: Path) -> io.TextIOWrapper:
    """A file's decompressed text; bytes that are not UTF-8 become lone surrogates, for the check of the row to see."""
    import pyarrow as pa

    stream = pa.input_stream(str(path), compression=COMPRESSED.get(path.suffix))
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _json_lines(path: Path, text: io.TextIOWrapper) -> Iterator[Row]:
    for number, line in enumerate(text, 1):
        if line.isspace():
            continue
        try:
            row = json.loads(line.rstrip())
        except json.JSONDecodeError as error:
            raise _not_json(
                path, f"line {number}", f"{error.msg.removesuffix(' at')} at column {error.colno}"
            ) from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
            raise _not_json(path, f"line {number}", str(error)) from error
        yield _object(row, path, f"line {number}")


def _json_array(path: Path, text: io.TextIOWrapper) -> Iterator[Row]:
    """The objects of an array, with as much of its text in memory as the longest needs."""
    decode = json.JSONDecoder().raw_decode
    between = re.compile(r"[\s,]*")
    buffer, at, number = text.read(ARRAY_AT_ONCE).lstrip()[1:], 0, 1
    while True:
        at = between.match(buffer, at).end()  # type: ignore[union-attr]  # it matches the empty string too
        if buffer.startswith("]", at):
            return
        try:
            row, at = decode(buffer, at)
        except json.JSONDecodeError as error:
            # Either the text is wrong here or the rest of it is still to be read: then the decoder stopped at the
            # end of the buffer, or at the beginning of a string that has none.
            unfinished = error.pos > len(buffer) - 16 or error.msg.startswith("Unterminated string")
            more = text.read(max(ARRAY_AT_ONCE, len(buffer))) if unfinished else ""
            if not more:
                why = "the array does not end" if unfinished else error.msg
                raise _not_json(path, f"object {number}", why) from error
            buffer, at = buffer[at:] + more, 0
            continue
        except (ValueError, RecursionError) as error:
            raise _not_json(path, f"object {number}", str(error)) from error
        yield _object(row, path, f"object {number}")
        number += 1


def _object(value: Any, path: Path, where: str) -> Row:
    if isinstance(value, dict):
        return value
    raise _not_json(path, where, f"but {type(value).__name__}")


def _not_json(path: Path, where: str, why: str) -> UserError:
    return UserError(KEY, path, f"cannot be read: {where} is not a JSON object ({why[:160]})", "mend or remove it")


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {"parquet": _parquet, "json": _json, "arrow": _arrow}
