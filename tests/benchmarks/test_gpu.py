"""The benchmark of a GPU: it goes on where it stopped, says what is missing, and shows what was measured."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.figures import figures
from benchmarks.gpu.jobs import PARTS, Job, jobs
from benchmarks.gpu.machine import missing
from benchmarks.gpu.table import hardware_row, markdown

ARGS = ("--device", "cpu", "--part", "memory", "generate", "learn")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the jobs that a call runs; none is really started. `learn` fails."""
    names: list[str] = []

    def run(job: Job, seconds: float, given: Any) -> dict[str, Any]:
        names.append(job.part)
        assert 0 < seconds <= 480
        return {"figures": {"ours": "1"}, "problem": "broke" if job.part == "learn" else None, "seconds": 1.0}

    monkeypatch.setattr(gpu, "run", run)
    monkeypatch.setattr(gpu, "described", lambda device: f"{device}; torch 1")
    return names


def test_a_second_call_repeats_only_what_failed(
    ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.jsonl"
    gpu.main([*ARGS, "--out", str(out)])
    assert ran == ["memory", "generate", "learn"]
    ran.clear()
    with out.open("ab") as file:
        file.write(b'{"part": "mem')  # a kill cut the last line
    gpu.main([*ARGS, "--out", str(out)])
    assert ran == ["learn"] and "a line is cut" in capsys.readouterr().out
    assert [one["part"] for one in gpu.read(out)] == ["memory", "generate", "learn", "learn"]


def test_another_machine_or_commit_measures_again_and_failed_jobs_come_last() -> None:
    two = [Job("memory", "a", ()), Job("memory", "b", ())]
    known = {"part": "memory", "job": "a", "problem": None, "machine": "x", "commit": "1"}
    assert gpu.left(two, [known], {"machine": "x", "commit": "1"}) == two[1:]
    assert gpu.left(two, [known], {"machine": "x", "commit": "2"}) == two
    assert gpu.left(two, [known], {"machine": "y", "commit": "1"}) == two
    assert gpu.left(two, [known | {"problem": "broke"}], {"machine": "x", "commit": "1"}) == two[::-1]


def test_a_call_ends_in_time_and_says_how_many_jobs_are_left(
    ran: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 0.0, 450.0])
    monkeypatch.setattr("benchmarks.gpu.__main__.time.monotonic", lambda: next(now))
    gpu.main([*ARGS, "--out", str(tmp_path / "gpu.jsonl")])
    assert ran == ["memory"] and "2 jobs are left: the same command goes on with them" in capsys.readouterr().out


def test_what_is_missing_is_one_line_each_and_the_rest_runs(
    ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.main(["--device", "cpu", "--trl-python", "/no/python", "--out", str(tmp_path / "gpu.jsonl")])
    said = capsys.readouterr().out.splitlines()
    for start in ("no GPU: ", "no rows ", "no TRL ", "no Liger kernels: ", "no flash-attn: "):
        assert sum(line.startswith(start) for line in said) == 1, start
    assert ran == ["memory", "generate", "learn"]  # neither tests nor speed
    assert "rows" not in missing("cpu", Path(__file__), sys.executable)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_every_part_has_jobs_with_names_of_their_own(device: str) -> None:
    found = jobs(device, ())
    assert {job.part for job in found} == set(PARTS)
    assert len({(job.part, job.name) for job in found}) == len(found)
    if device == "cuda":
        assert sum(job.part == "memory" for job in found) == 10
        cases = [job for job in found if job.part == "speed" and "trl:liger" in job.args and "plain" in job.args]
        assert len(cases) == 8  # 512 and 4,096 tokens, padded and packed, two dtypes
    lacking = jobs(device, ("trl", "gpu"))
    assert not [job for job in lacking if any(arg.startswith("trl") for arg in job.args)]


def test_a_job_is_a_process_and_its_failure_is_a_result() -> None:
    program = "print('a row' + ' ' * 9 + '1,000 980 0.980'); {}"
    good = gpu.run(Job("memory", "a", ("-c", program.format("pass"))), 60, {})
    assert (good["figures"], good["problem"]) == ({"a row": "measured 1,000 MB, estimated 980 MB, ratio 0.980"}, None)
    assert gpu.run(Job("memory", "a", ("-c", "raise SystemExit('no memory')")), 60, {})["problem"] == "no memory"
    late = gpu.run(Job("memory", "a", ("-c", "import time; time.sleep(60)")), 0.5, {})
    assert late["problem"] == "stopped after 0 s" and late["figures"] == {}


def speed_file(path: Path) -> Path:
    ours = {"tokens_per_second": 66160.0, "mfu": 0.463, "peak_gb": 23.54, "errors": [], "out_of_memory": False}
    trl = {"tokens_per_second": 6900.0, "ours_faster_by": 9.6, "loss_apart": 3e-4, "counts": True, "errors": []}
    plain = {"errors": ["exit code 1: no memory"], "out_of_memory": True, "counts": False}
    sides = {"ours": ours | {"groups": {"attention": 0.053}}, "trl": trl, "plain": plain}
    summary = {"sides": sides | {"trl:liger": trl | {"ours_faster_by": 3.1}}}
    path.write_text(json.dumps({"side": "ours", "step": 1}) + "\n" + json.dumps({"summary": summary}) + "\n")
    return path


def test_figures_are_read_from_what_the_jobs_write(tmp_path: Path) -> None:
    found = figures("speed", "", speed_file(tmp_path / "out"))
    assert found["ours"] == "66,160 tokens/s, MFU 0.463, 23.5 GB" and found["ours, attention"] == "0.053 s"
    assert found["trl"] == "6,900 tokens/s, ours 9.60 times as fast, losses 3.0e-04 apart"
    assert found["plain"] == "INVALID: LOSSES DIFFER, out of memory"
    out = "FAILED tests/a.py::b - AssertionError\n1 failed, 40 passed, 2 skipped in 3.1s"
    assert figures("tests", out, tmp_path) == {
        "tests": "1 failed, 40 passed, 2 skipped",
        "FAILED tests/a.py::b": "failed",
    }
    failed = figures("memory", "0.5b, full      failed     12,345", tmp_path)
    assert failed == {"0.5b, full": "failed; estimated 12,345 MB"}
    assert figures("speed", "", tmp_path / "none") == figures("learn", "", tmp_path / "none") == {}


def test_the_table_shows_the_newest_result_of_each_job_and_the_row_of_the_hardware_page(tmp_path: Path) -> None:
    state = {"machine": "NVIDIA H200; torch 2.13", "commit": "abc", "date": "2026-11-28"}
    speed = {
        "part": "speed", "job": "4096 packed, bfloat16", "figures": figures("speed", "", speed_file(tmp_path / "o")),
        "problem": None, **state,
    }  # fmt: skip
    old = {"part": "tests", "job": "pytest -m gpu", "figures": {"tests": "1 failed"}, "problem": "exit code 1", **state}
    lines = markdown([old, speed, old | {"figures": {"tests": "9 passed"}, "problem": None}]).splitlines()
    assert lines[2] == "| tests | pytest -m gpu | tests | 9 passed |"
    assert "| speed | 4096 packed, bfloat16 | ours | 66,160 tokens/s, MFU 0.463, 23.5 GB |" in lines
    assert lines[-1] == "NVIDIA H200; torch 2.13; abc; 2026-11-28" and "1 failed" not in "".join(lines)
    # Against the fastest setting of TRL; what was not measured is a dash
    assert hardware_row([speed]) == "| NVIDIA H200 | 0.463 | 23.5 | 3.10 | – | – | – | torch 2.13 | abc, 2026-11-28 |"
    assert hardware_row([old]) == ""
