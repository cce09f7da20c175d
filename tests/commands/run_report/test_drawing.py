"""Charts as SVG and PNG."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from commands.run_report.charts import Bars, Chart, Line, charts
from commands.run_report.curves import Curve
from commands.run_report.drawing import DPI, FEW, SIZE, as_svg, write_png
from commands.run_report.read import read_run
from tests.commands.run_report.conftest import HOSTILE
from visible import visible

pytest.importorskip("matplotlib", reason="needs matplotlib")
NS = "{http://www.w3.org/2000/svg}"


def lines(*values: float, **more: object) -> Chart:
    curve = Curve(list(range(len(values))), list(values))
    return Chart("key", "section", "Title", "unit", [Line(visible(HOSTILE), 0, 1, curve, **more)])  # type: ignore[arg-type]


def test_the_svg_has_a_title_a_description_and_no_colour_of_its_own() -> None:
    chart = lines(1.0, 2.0)
    svg = as_svg(chart)
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img" and root.attrib["aria-labelledby"] == "key-title key-desc"
    assert (root[0].tag, root[0].text) == (f"{NS}title", "Title")
    assert not re.findall(r"#[0-9a-f]{6}\b|font-family|<style|<metadata", svg)
    assert "var(--first)" in svg and "var(--ink)" in svg and "width" not in root.attrib


def test_a_text_is_text_whatever_it_holds() -> None:
    root = ElementTree.fromstring(as_svg(lines(1.0, 2.0)))
    assert "$x^2$" in "".join(root.itertext()) and root.find(f".//{NS}b") is None


def test_names_inside_an_svg_are_its_own() -> None:
    chart = lines(1.0, 2.0)
    other = replace(chart, key="other")
    names = [set(re.findall(r' id="([^"]*)"', as_svg(one))) for one in (chart, other)]
    assert names[0] and not names[0] & names[1]
    svg = as_svg(chart)
    assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg)) and all(
        f' id="{a or b}"' in svg for a, b in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg)
    )


@pytest.mark.parametrize("number", [1, 2, FEW, FEW + 1])
def test_intervals_are_drawn_for_any_number_of_points(number: int) -> None:
    plain, with_ends = (as_svg(lines(*[0.5] * number, **more)) for more in ({}, {"intervals": [(0.4, 0.6)] * number}))
    assert with_ends.count("<path") > plain.count("<path")


def test_odd_figures_are_drawn() -> None:
    for values in ((0.0,), (-1e30, 1e30), (1e-300, 1e-290), (5.0, 5.0)):
        ElementTree.fromstring(as_svg(lines(*values)))
    bars = Chart("k", "s", "T", "u", bars=[Bars("data", 1, True, [0.2, 0.8])], labels=["0", "over 9"])
    assert "var(--second)" in as_svg(bars)


def test_a_png_has_every_figure_in_light_colours(make_run: Callable[..., Path]) -> None:
    from PIL import Image  # matplotlib brings it

    for chart in charts([read_run(make_run())])[:2]:
        file = io.BytesIO()
        write_png(chart, file)
        image = Image.open(file).convert("RGB")
        assert image.width == SIZE[0] * DPI and image.getpixel((1, 1)) == (255, 255, 255)
        assert len(image.getcolors(1 << 24) or []) > 50
