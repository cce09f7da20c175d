"""A few cases of each kind of torture hold, and the page on reliability promises only what is tortured."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from errors import UserError
from tests.conftest import ROOT
from tests.torture import table
from tests.torture.file_operations import FileOperations, Operation
from tests.torture.kinds import KINDS
from tests.torture.suite import Case, Outcome, run_cases

PAGE = ROOT / "docs" / "reliability.md"


def torture(*args: str) -> None:
    command = [sys.executable, "-m", "tests.torture", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]


@pytest.mark.slow
def test_a_few_cases_of_each_kind_hold() -> None:
    torture("--quick")


@pytest.mark.torture
@pytest.mark.parametrize("kind", KINDS)
def test_all_cases_hold(kind: str) -> None:
    torture("--kind", kind)


def test_the_page_on_reliability_has_a_row_for_each_kind_and_no_other() -> None:
    between = PAGE.read_text(encoding="utf-8").split(table.BEGIN)[1].split(table.END)[0]
    assert re.findall(r"^\| ([a-z ]+) \|", between, re.MULTILINE)[1:] == list(KINDS)


def outcomes(failed: str | None = None) -> tuple[list[Case], list[Outcome]]:
    cases = [Case(kind, 0, "words", lambda: None, tried=10) for kind in KINDS]
    return cases, [Outcome(case, ["because"] if case.kind == failed else [], 0.1) for case in cases]


def test_the_table_in_a_page_is_replaced_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nSTALE\n{table.END}\nafter\n")
    table.write(page, *outcomes(failed="kills"), 60)
    text = page.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\n")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "STALE" not in text
    (row,) = re.findall(r"^\| kills \|.*", text, re.MULTILINE)
    assert row.endswith("| 10 | 9 |")


def test_a_page_does_not_get_the_table_of_a_part(tmp_path: Path) -> None:
    cases, done = outcomes()
    for given in ((cases[1:], done[1:]), (cases, done[1:])):
        with pytest.raises(UserError, match="would get the table of a part"):
            table.write(tmp_path / "page.md", *given, 60)


def test_a_failure_is_printed_with_the_command_that_repeats_it() -> None:
    assert "--kind races --seed 0" in table.text(*outcomes(failed="races"), 60)


def test_every_case_is_run_once_and_a_broken_check_is_a_failure() -> None:
    def breaks() -> None:
        raise ZeroDivisionError("of the check")

    cases = [Case("kills", seed, "words", breaks if seed == 3 else lambda: None) for seed in range(8)]
    found = {outcome.case.seed: outcome.failures for outcome in run_cases(cases, jobs=2, minutes=1)}
    assert found == {seed: ["ZeroDivisionError of the check"] if seed == 3 else [] for seed in range(8)}


def test_no_case_begins_after_the_time() -> None:
    assert not list(run_cases([Case("kills", 0, "words", lambda: None)], jobs=1, minutes=-1))


WRITER = """
import os, sys
from pathlib import Path
from tests.torture.file_operations import FileOperations
folder = Path(sys.argv[1])
seen = []
FileOperations(folder, lambda operation: seen.append(str(operation))).install()
(folder / "a").mkdir()
(folder / "a" / "run-17").write_text("text")
with open(folder / "b", "wb") as file:
    file.write(b"bytes")
    file.flush()
    os.fsync(file.fileno())
os.replace(folder / "b", folder / "c")
os.link(folder / "c", folder / "d")
(folder / "d").unlink()
(folder / "c").read_bytes()
print("\\n".join(seen))
"""


def test_each_change_of_a_file_is_counted_and_reading_is_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "new folder 1 of a", "open 1 of a/run-#", "write 1 of a/run-#", "open 1 of b", "write 1 of b", "flush 1 of b",
        "rename 1 of c", "link 1 of d", "delete 1 of d",
    ]  # fmt: skip


def test_what_varies_between_two_runs_has_no_place_in_the_name_of_a_file(tmp_path: Path) -> None:
    operations = FileOperations(tmp_path, lambda _: None)
    for name, same in (
        ("runs/x/2026-11-27_19-00-01/last.ckpt", "runs/x/#-#-#_#-#-#/last.ckpt"),
        (".writing-812-9911-step-0000004.ckpt", ".writing-#-#-step-#.ckpt"),
        ("cache/b7f397aa7ec6b152/train.arrow", "cache/#/train.arrow"),
    ):
        assert operations.name(str(tmp_path / name)) == same
    assert operations.name("/elsewhere/file") is None
    assert str(Operation("write", "a/b", 2)) == "write 2 of a/b"
