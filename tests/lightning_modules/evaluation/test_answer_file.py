import json
import subprocess
import sys
from pathlib import Path

import pytest

from errors import UserError
from lightning_modules.evaluation.answer_file import AnswerFile, parse_answers
from tests.conftest import ROOT

HEADER = {"task": "ab12", "checkpoint": "cd34", "decoding": {"temperature": 0.0}}


def answer(name: str, sample: int = 0, right: bool = True) -> dict[str, object]:
    return {"id": name, "sample": sample, "right": right, "text": "x = 7\n🙂 \ud800"}


def test_answers_are_on_the_disk_as_they_end_and_a_second_opening_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    first = AnswerFile(path, HEADER)
    first.add(answer("q1"))
    first.add(answer("q2", 1))
    assert len(path.read_bytes().splitlines()) == 3  # before it is closed
    first.close()
    before = path.read_bytes()
    again = AnswerFile(path, HEADER)
    assert path.read_bytes() == before
    assert set(again.answers) == {("q1", 0), ("q2", 1)} and again.lines == {("q1", 0): 2, ("q2", 1): 3}
    again.add(answer("q3"))
    assert again.lines[("q3", 0)] == 4 and path.read_bytes().startswith(before)
    lines = path.read_text().splitlines()
    assert all(json.loads(lines[number - 1])["id"] == key[0] for key, number in again.lines.items())


@pytest.mark.parametrize("end", range(1, 30))
def test_a_cut_last_line_is_dropped_and_said(end: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    first = AnswerFile(path, HEADER)
    first.add(answer("q1"))
    first.add(answer("q2"))
    first.close()
    path.write_bytes(path.read_bytes()[:-end])
    again = AnswerFile(path, HEADER)
    assert set(again.answers) == {("q1", 0)}
    assert ("was cut off" in caplog.text) and path.read_bytes().endswith(b"\n")
    again.add(answer("q2"))
    again.close()
    assert set(AnswerFile(path, HEADER).answers) == {("q1", 0), ("q2", 0)}


def test_a_header_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"evalu')
    AnswerFile(path, HEADER).close()
    header, answers, cut = parse_answers(path, "--to")
    assert header == {"evaluation": 1, **HEADER} and not answers and not cut


def test_answers_of_other_settings_are_refused_and_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    AnswerFile(path, HEADER).close()
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"--to: .*another decoding \(\{.temperature.: 0.0\}, and now"):
        AnswerFile(path, HEADER | {"decoding": {"temperature": 0.7}})
    with pytest.raises(UserError, match="another seed"):
        AnswerFile(path, HEADER | {"seed": 1})
    assert path.read_bytes() == before
    AnswerFile(path, HEADER)  # the refusals hold no lock


def test_a_file_that_is_being_written_is_refused(tmp_path: Path) -> None:
    first = AnswerFile(tmp_path / "a.jsonl", HEADER)
    with pytest.raises(UserError, match="is being written by another process"):
        AnswerFile(tmp_path / "a.jsonl", HEADER)
    first.close()
    AnswerFile(tmp_path / "a.jsonl", HEADER).close()


@pytest.mark.parametrize("content", ["text\n", "[1]\n", '{"a": 1}\n', '{"evaluation": 99}\n'])
def test_another_file_is_refused_and_not_overwritten(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match="is not the file of an evaluation"):
        AnswerFile(path, HEADER)
    assert path.read_text() == content


@pytest.mark.parametrize("line", ["{]", "7", '{"id": "q1"}'])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first = AnswerFile(path, HEADER)
    first.add(answer("q1"))
    first.close()
    path.write_bytes(path.read_bytes() + line.encode() + b"\n")
    with pytest.raises(UserError, match="is damaged in line 3"):
        AnswerFile(path, HEADER)


def test_a_folder_in_its_place_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--to"):
        AnswerFile(tmp_path, HEADER)


LIMITED = """
import resource, sys
from pathlib import Path
from errors import UserError
from lightning_modules.evaluation.answer_file import AnswerFile
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    file = AnswerFile(Path(sys.argv[1]), {"task": "t"})
    try:
        for sample in range(100):
            file.add({"id": "q", "sample": sample, "right": True, "text": "x" * 20})
    finally:
        file.close()
except UserError as error:
    print(error)
"""


def test_a_disk_that_takes_a_part_of_a_line_is_named_and_the_file_goes_on(tmp_path: Path) -> None:
    """A buffered file would fail once more while it is closed, and blame another file."""
    path = tmp_path / "answers.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("--to: ") and "answers.jsonl" in done.stdout, done
    again = AnswerFile(path, {"task": "t"})
    assert 1 < len(again.answers) < 10
    again.close()
