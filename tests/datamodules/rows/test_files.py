import gzip
import json
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.rows import files, folders, json_files, text_files
from datamodules.rows.arrow_files import END_OF_STREAM
from datamodules.rows.pieces import SourceRow
from datamodules.rows.sources import open_source
from errors import UserError

ROWS: list[dict[str, Any]] = [
    {"instruction": f"Ask {i}", "response": "é\u2028" * i, "turns": [{"value": f"{i}"}], "none": None}
    for i in range(600)
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def read(name: Path | str, split: str = "train") -> list[dict[str, Any]]:
    return plain(files.rows(folders.local_files(str(name), split).paths))


def plain(rows: Iterable[SourceRow]) -> list[dict[str, Any]]:
    return [row for row, _, _ in rows]


def compressed(path: Path, content: bytes) -> None:
    with pa.output_stream(str(path), compression=text_files.COMPRESSED[path.suffix]) as out:
        out.write(content)


def arrow(path: Path, new: Callable[..., Any]) -> None:
    table = pa.Table.from_pylist(ROWS)
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=250)


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=250),
    "a.jsonl": lambda path: path.write_bytes(LINES),
    "bom.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + LINES),
    "crlf.jsonl": lambda path: path.write_bytes(b"\r\n \r\n" + LINES.replace(b"\n", b"\r\n")),
    "a.jsonl.gz": lambda path: compressed(path, LINES),
    "a.jsonl.zst": lambda path: compressed(path, LINES),
    "two.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES[:50_000]) + gzip.compress(LINES[50_000:])),
    "lines.json": lambda path: path.write_bytes(LINES),
    "array.json": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "array.json.gz": lambda path: compressed(path, json.dumps(ROWS).encode()),
    "stream.arrow": lambda path: arrow(path, pa.ipc.new_stream),
    "file.arrow": lambda path: arrow(path, pa.ipc.new_file),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    assert read(tmp_path / name) == ROWS


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.jsonl.zst", "array.json", "stream.arrow", "file.arrow"])
@pytest.mark.parametrize("ratio", [0.1, 0.6, 0.999])
def test_a_cut_file_is_named_and_never_looks_complete(name: str, ratio: float, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(path.read_bytes()[: int(ratio * path.stat().st_size)])
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert f"data.source: '{path}' cannot be read" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_arrow_stream_cut_between_two_batches_never_looks_complete(tmp_path: Path) -> None:
    """A killed writer leaves complete batches without the end-of-stream mark."""
    arrow(tmp_path / "a.arrow", pa.ipc.new_stream)
    content = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(content.removesuffix(END_OF_STREAM))
    with pytest.raises(UserError, match="the end-of-stream mark is missing"):
        read(tmp_path / "a.arrow")


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.jsonl.zst", "a.arrow", "b.json.gz"])
def test_files_of_another_format_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"<html>404</html>" * 9)
    with pytest.raises(UserError, match=f"{name}' cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{oops", "Expecting property name enclosed in double quotes at column 2"),
        ('{"a": 1} {"b": 2}', "Extra data at column 10"),
        ('{"a": "cut', "Unterminated string starting at column 7"),
        ('["a"]', "it is list"),
        ("3", "it is int"),
        ("null", "it is NoneType"),
        ("[" * 100_000, "recursion"),
        ('{"a": ' + "9" * 5_000 + "}", "4300"),
    ],
    ids=lambda value: value[:20],
)
def test_a_line_without_a_json_object_is_named_by_file_and_number(line: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text(f'{{"a": 1}}\n\n{line}\n{{"a": 2}}\n')
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"data.source: '{path}' cannot be read: line 3 is not a JSON object (")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"a": 1}, 2]', "object 2 is not a JSON object (it is int)"),
        ('[{"a": 1}, {oops}' + " " * 99 + "]", "object 2 is not a JSON object (Expecting property name"),
        ('[{"a": 1}, {"a": 2}', "object 3 is not a JSON object (the array does not end)"),
    ],
)
def test_an_array_element_that_is_no_object_is_named(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.json")
    assert problem in str(caught.value)


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.booleans()))), st.integers(1, 9))
def test_an_array_gives_the_same_rows_for_any_read_size(rows: list[dict[str, Any]], size: int) -> None:
    import io
    from unittest import mock

    stream = io.TextIOWrapper(io.BytesIO(json.dumps(rows).encode()), encoding="utf-8")
    with mock.patch.object(json_files, "READ_CHARACTERS", size):
        assert [piece.content[0] for piece in json_files.array_pieces(Path("a.json"), stream)] == rows


def broken_text(path: Path) -> None:
    """Two rows, the second with Latin-1 bytes in a string and in a nested one."""
    bad = b"caf\xe9"
    if path.suffix == ".jsonl":
        path.write_bytes(b'{"a": "fine", "b": [{"c": "d"}]}\n{"a": "caf\xe9", "b": [{"c": "caf\xe9"}]}\n')
        return
    strings = pa.array([b"fine", bad]).view(pa.string())
    nested = pa.array([b"d", bad]).view(pa.string())
    lists = pa.ListArray.from_arrays([0, 1, 2], pa.StructArray.from_arrays([nested], ["c"]))
    table = pa.table({"a": strings, "b": lists})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.arrow"])
def test_invalid_utf8_becomes_lone_surrogates(name: str, tmp_path: Path) -> None:
    broken_text(tmp_path / name)
    bad = "caf\udce9"
    assert read(tmp_path / name) == [{"a": "fine", "b": [{"c": "d"}]}, {"a": bad, "b": [{"c": bad}]}]


def test_a_saved_data_set_is_read_by_split(tmp_path: Path) -> None:
    import datasets

    rows = [{"a": f"{i}", "b": [{"c": "d"}]} for i in range(10)]
    whole = datasets.Dataset.from_list(rows)
    whole.save_to_disk(tmp_path / "one", num_shards=3)
    assert read(tmp_path / "one") == rows
    both = datasets.DatasetDict({"train": whole, "test": whole.select(range(3, 5))})
    both.save_to_disk(tmp_path / "both")
    assert read(tmp_path / "both") == rows
    assert read(tmp_path / "both", split="test") == rows[3:5]
    with pytest.raises(UserError, match=r"data.split: 'validation' is not in .*both. It has train, test\."):
        read(tmp_path / "both", split="validation")
    next((tmp_path / "one").glob("data-00001*")).unlink()
    with pytest.raises(UserError, match=r"data-00001.*is missing in this saved data set"):
        read(tmp_path / "one")


def test_folders_and_globs_skip_other_files(tmp_path: Path) -> None:
    """The folder is like one of `hf download --local-dir`: a README, descriptions, a hidden cache and data."""
    for name in ("deep/er/b.jsonl", "deep/a.jsonl", ".cache/old.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"a": name}))
    (tmp_path / "deep" / "README.md").write_text("read me")
    (tmp_path / "dataset_infos.json").write_text("{}")
    found = [{"a": "deep/a.jsonl"}, {"a": "deep/er/b.jsonl"}]
    assert read(tmp_path) == found
    assert read(f"{tmp_path}/**") == found
    assert read(f"{tmp_path}/**/b.*") == found[1:]
    assert read(f"{tmp_path}/de*") == found
    assert folders.local_files(f"{tmp_path}/*.jsonl", "train").paths == []


def test_files_of_two_formats_are_refused(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.jsonl"):
        WRITERS[name](tmp_path / name)
    for place in (tmp_path, tmp_path / "*"):
        with pytest.raises(UserError, match="does not have one format of"):
            read(place)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "array.json", "file.arrow"])
def test_a_stream_reads_only_a_part_of_the_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is opened when it is read, so a missing later file does no harm before."""
    WRITERS[name](tmp_path / name)
    missing = tmp_path / f"missing{''.join(Path(name).suffixes)}"
    stream = files.rows([tmp_path / name, missing])
    assert plain(islice(stream, 600)) == ROWS
    with pytest.raises(UserError, match=r"missing.*cannot be read"):
        next(stream)


def saved_data_set(folder: Path, state: object) -> Path:
    """A folder like one of `datasets`, with this state.json, and rows both in it and beside it."""
    folder.mkdir()
    for path in (folder / "data.arrow", folder.parent / "beside.arrow"):
        arrow(path, pa.ipc.new_stream)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps(state))
    return folder


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"_data_files": [{"filename": "../beside.arrow"}]}, "'../beside.arrow', which is no file of this folder"),
        ({"_data_files": [{"filename": "/etc/passwd"}]}, "which is no file of this folder"),
        ({"_data_files": [{"filename": ".."}]}, "which is no file of this folder"),
        ({"_data_files": [{"filename": "a" * 5_000}]}, "which is no file of this folder"),
        ({"_data_files": [{"filename": "a\0b"}]}, "which is no file of this folder"),
        ({"_data_files": [{"filename": "\ud800"}]}, "which is no file of this folder"),
        ({"_data_files": [{"filename": 3}]}, "3, which is no file of this folder"),
        ({"_data_files": [{}]}, "None, which is no file of this folder"),
        ({"_data_files": [["data.arrow"]]}, "which is no file of this folder"),
        ({"_data_files": {"filename": "data.arrow"}}, "lists no files"),
        ({"_data_files": "data.arrow"}, "lists no files"),
        ({"_data_files": [{"filename": "gone.arrow"}]}, "gone.arrow' is missing in this saved data set"),
        ({"_data_files": []}, "contains no"),
        ({}, "lists no files"),
        ([], "holds no JSON object"),
        (None, "holds no JSON object"),
    ],
)
def test_a_state_file_that_is_wrong_or_names_files_elsewhere_is_one_line(
    state: object, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(saved_data_set(tmp_path / "saved", state))
    assert str(caught.value).startswith("data.source: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, "\xff", '{"_data_files": NaN}'])
def test_a_state_file_that_is_damaged_is_one_line(text: str, tmp_path: Path) -> None:
    folder = saved_data_set(tmp_path / "saved", {})
    (folder / "state.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"data\.source: '.*state\.json' "):
        read(folder)


@pytest.mark.parametrize("content", [[], {}, {"splits": "train"}, {"splits": ["../train"]}, {"splits": [1]}])
def test_a_list_of_splits_that_is_wrong_is_one_line(content: object, tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"data\.source: '.*dataset_dict\.json' "):
        read(tmp_path)


def test_the_fingerprint_covers_all_bytes_and_no_times(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    before, middle = files.fingerprint([path]), len(LINES) // 2
    path.write_bytes(LINES)
    assert files.fingerprint([path]) == before
    for k in range(middle, middle + 50):
        path.write_bytes(LINES[:k] + bytes([LINES[k] ^ 1]) + LINES[k + 1 :])
        assert files.fingerprint([path]) != before


def test_the_fingerprint_covers_the_names_that_rows_get_from_their_files(tmp_path: Path) -> None:
    names = [("a/x.jsonl", "b/x.jsonl"), ("a/x.jsonl", "c/x.jsonl")]
    for name in {one for pair in names for one in pair}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(LINES)
    first, second = ([tmp_path / one for one in pair] for pair in names)
    assert files.fingerprint(first) != files.fingerprint(second)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_a_row_that_would_fill_the_memory_is_named_before_it_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_files, "LONGEST_ROW", 10_000)
    monkeypatch.setattr(json_files, "READ_CHARACTERS", 1_000)
    path = tmp_path / name
    data = ('{"a": 1}\n' + '{"a": "' + "x" * 10**6).encode()
    if name == "a.json":
        data = b"[" + data.replace(b"\n", b",")
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    rows = files.rows([path])
    assert next(rows).row == {"a": 1}
    with pytest.raises(UserError, match=r"(line|object) 2 is longer than 33,554,432 bytes"):
        next(rows)


@pytest.mark.parametrize("more", ['[{"a": 2}]', "x", "]", '{"a": 2}'])
def test_text_after_an_array_is_not_lost_in_silence(more: str, tmp_path: Path) -> None:
    path = tmp_path / "two.json"
    path.write_text('[{"a": 1}]\n' + more)
    with pytest.raises(UserError, match="text follows the end of the array, after object 1"):
        list(files.rows([path]))
    path.write_text('[{"a": 1}]\n \n')
    assert plain(files.rows([path])) == [{"a": 1}]


def test_a_link_to_itself_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    with pytest.raises(UserError, match=r"data\.source: .*cannot be opened \(Too many levels of symbolic links\)"):
        open_source(str(tmp_path / "loop.jsonl"), None, "train", 0.1, 0)
