"""report: what it writes, what it refuses, and its page in a browser."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import main
from commands.run_report.page import GENERATOR
from tests.cli.test_preview import CHROMIUM, browse
from tests.commands.run_report.conftest import make_run

__all__ = ["make_run"]  # a fixture
MakeRun = Callable[..., Path]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run report with mistakes; return its one line."""

    def run(*args: Any) -> str:
        capsys.readouterr()
        assert main(["report", *map(str, args)]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        return line

    return run


def test_the_report_is_in_the_folder_of_the_run_and_replaces_an_older_one(make_run: MakeRun) -> None:
    pytest.importorskip("matplotlib")
    folder = make_run()
    assert main(["report", str(folder)]) == 0
    first = (folder / "report.html").read_text()
    assert GENERATOR in first and first.count("<svg") == 7
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text() == first


def test_two_runs_and_their_figures_as_png(make_run: MakeRun, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first, second = make_run("a"), make_run("b", summary_json=None)
    assert main(["report", str(first), str(second), "--png", str(tmp_path / "png")]) == 0
    assert (first / "report-beside-demo-b.html").is_file() and not (second / "report.html").exists()
    assert {path.name for path in (tmp_path / "png").iterdir()} >= {"loss.png", "right.png", "lengths.png"}


def test_no_other_file_is_written_over(make_run: MakeRun, said: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = make_run()
    (folder / "report.html").write_text("mine")
    assert "exists and is no report" in said(folder)
    (tmp_path / "mine").mkdir()
    assert "--png" in said(folder, "--to", tmp_path / "new.html", "--png", tmp_path / "mine")
    assert "--to" in said(folder, "--to", folder / "report.html")
    assert "no such folder" in said(folder, "--to", tmp_path / "gone" / "new.html")
    assert (folder / "report.html").read_text() == "mine" and not (tmp_path / "new.html").exists()


def test_wrong_runs_are_refused_in_one_line(make_run: MakeRun, said: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = make_run()
    assert "does not exist" in said(tmp_path / "gone")
    assert "is the same run" in said(folder, f"{folder}/")
    assert "more than two runs" in said("a", "b", "c")
    assert "holds no run yet" in said("--root", tmp_path / "none")
    assert not (folder / "report.html").exists()


def test_without_matplotlib_one_line_names_the_extra(
    make_run: MakeRun, said: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    without = lambda name, *more: None if name == "matplotlib" else find_spec(name, *more)  # noqa: E731
    monkeypatch.setattr("commands.run_report.drawing.find_spec", without)
    line = said(make_run())
    assert line.startswith("error: matplotlib: is not installed, and report needs it") and "'.[report]'" in line


# Reports what the browser made of the page, in the page: only a test's copy of it may run a script
ASK = """<script>
const drawn = [...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().width);
const inks = [...document.querySelectorAll('svg text')].map(one => getComputedStyle(one).fill);
const wide = document.documentElement.scrollWidth - innerWidth;
const ground = getComputedStyle(document.body).backgroundColor;
document.body.innerHTML = '<pre id=told>' + JSON.stringify({drawn, inks, wide, ground}) + '</pre>';
</script></body>"""


@pytest.mark.slow
def test_the_page_opens_without_network_on_wide_and_narrow_screens_in_light_and_dark(
    make_run: MakeRun, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    if CHROMIUM is None:
        pytest.skip("needs chromium to open the page in")
    file = tmp_path / "page.html"
    assert main(["report", str(make_run()), "--to", str(file)]) == 0
    dom, asked = browse(file, tmp_path, "--dump-dom")
    assert asked == [] and dom.count("<svg") == 7 and "<title>Report of demo/run</title>" in dom
    copy = tmp_path / "copy.html"
    copy.write_text(re.sub("<meta http-equiv[^>]*>", "", file.read_text()).replace("</body>", ASK))
    grounds = set()
    for width, scheme in ((1200, 1), (500, 0)):
        more = (f"--window-size={width},900", f"--blink-settings=preferredColorScheme={scheme}")
        dom, _ = browse(copy, tmp_path, "--dump-dom", *more)
        told = json.loads(re.search("<pre id=.told.>(.*?)</pre>", dom)[1])  # type: ignore[index]
        assert told["wide"] <= 0, "the page is wider than the window"
        assert len(told["drawn"]) == 7 and min(told["drawn"]) > 250
        assert told["inks"] and told["ground"] not in told["inks"]
        grounds.add(told["ground"])
    assert len(grounds) == 2
