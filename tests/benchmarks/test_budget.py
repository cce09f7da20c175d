"""The benchmark of budgets: its interval, its picture and its page."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import budget
from benchmarks.budget import HEAD, Line, svg, write

LINE = Line("budget alone", 8, 200, 160, 7.5, 0.5, 0.25, 0.125)


def test_the_interval_is_wilsons() -> None:
    """Values of statsmodels 0.14: proportion_confint(count, nobs, method="wilson")."""
    for right, rows, expected in ((160, 200, (0.7391, 0.8496)), (0, 200, (0.0, 0.0188)), (200, 200, (0.9812, 1.0))):
        assert replace(LINE, right=right, rows=rows).interval == pytest.approx(expected, abs=1e-4)


def test_the_picture_has_a_point_for_each_line() -> None:
    lines = [replace(LINE, way=way, thinking=t) for way in budget.WAYS for t in (0.0, 8.0, 30.0)]
    picture = ET.fromstring(svg(lines))
    assert len([one for one in picture.iter() if one.tag.endswith("circle")]) == 6
    assert all(0 <= float(one.get("cx", -1)) <= budget.WIDTH for one in picture.iter() if one.tag.endswith("circle"))


def test_the_table_takes_the_place_of_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "DOCS", tmp_path)
    page = tmp_path / "thinking.md"
    page.write_text(f"Before.\n\n{HEAD}\n|---|\n| old |\n\nAfter.\n")
    write([LINE, replace(LINE, budget=None)])
    text = page.read_text()
    assert text.startswith(f"Before.\n\n{HEAD}\n|---") and text.endswith("|\n\nAfter.\n") and "old" not in text
    assert "| 8 | budget alone | 80.0 % | 73.9 to 85.0 % | 7.5 | 50 % | 25 % | 0.125 |" in text
    assert "| none | budget alone |" in text and (tmp_path / "budget.svg").exists()


def test_the_page_has_a_place_for_the_table() -> None:
    assert HEAD in (budget.DOCS / "thinking.md").read_text()
