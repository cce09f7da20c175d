import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.rows import files, text_files
from errors import UserError


def read(path: Path) -> list[dict[str, object]]:
    return [row for row, _, _ in files.rows([path])]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
def test_a_table_in_text_gives_texts_with_line_ends_and_quotes(suffix: str, tmp_path: Path) -> None:
    mark = "\t" if "tsv" in suffix else ","
    records = [
        ["id", "instruction", "response"],
        ["7", '"Say ""hi"", é"', '"<think>a\r\nb</think>\n\nc"'],
        ["8", "", "x"],
    ]
    content = ("\ufeff" + "\r\n".join(mark.join(one) for one in records) + "\r\n\r\n").encode()
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    assert read(tmp_path / f"a{suffix}") == [
        {"id": "7", "instruction": 'Say "hi", é', "response": "<think>a\r\nb</think>\n\nc"},
        {"id": "8", "instruction": None, "response": "x"},
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n3,4,5\n", "line 3 has 3 values for 2 columns"),
        ("a,b\n1\n", "line 2 has 1 values for 2 columns"),
        ("a,a\n1,2\n", "has the column 'a' twice"),
        (",,a\n0,1,2\n", "has the column '' twice"),
        ("a;b\n1;2,3\n", "has ';' between its columns, in place of ','. Save it with commas"),
        ("a\tb\n1\t2\n", "between its columns, in place of ','"),
        ('a,b\n1,"2\n3,4\n', "is not a line of a table"),
        ('a,b\n1,"2"x\n', "line 2 is not a line of a table"),
    ],
)
def test_a_table_that_is_not_whole_is_refused_by_line(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        read(tmp_path / "a.csv")
    assert str(tmp_path / "a.csv") in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
def test_utf_16_is_said_with_the_way_out(name: str, encoding: str, tmp_path: Path) -> None:
    content = '{"instruction": "a"}\n'.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(UserError, match=r"is UTF-16.*iconv -f UTF-16 -t UTF-8"):
        read(tmp_path / name)


@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2, max_size=2)
    )
)
def test_any_table_that_python_writes_is_read_back(records: list[list[str]]) -> None:
    import csv
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["a", "b"], *records])
        assert read(path) == [{"a": a or None, "b": b or None} for a, b in records]


def test_a_long_field_is_read(tmp_path: Path) -> None:
    """The limit of Python's reader is 131,072 characters."""
    (tmp_path / "a.csv").write_text(f"a,b\n{'x' * 200_000},1\n")
    assert len(str(read(tmp_path / "a.csv")[0]["a"])) == 200_000 < text_files.LONGEST_ROW
