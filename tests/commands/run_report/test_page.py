"""The page: what is on it, and texts that try to be more than text."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from commands.run_report.answers import Sample
from commands.run_report.charts import charts
from commands.run_report.page import GENERATOR, STEPS_SHOWN, evenly, page
from commands.run_report.read import RunRecord, read_run
from tests.commands.run_report.conftest import HOSTILE, METRICS, evaluation

MakeRun = Callable[..., Path]
VOID = {"meta", "br", "i"}


class Reader(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def made(*runs: RunRecord) -> str:
    found = charts(runs)
    return page(runs, found, [f"<svg><title>{one.key}</title></svg>" for one in found], "0.1.0")


def test_the_page_has_all_that_the_run_tells(make_run: MakeRun) -> None:
    text = made(read_run(make_run()))
    read = Reader(text)
    assert read.open == [] and GENERATOR in text and "What is missing" not in text
    for told in (
        "demo/run", "ended, after step 20", "Loss", "1 gained, 0 lost", "gained x", "lost y", "step 20: right",
        "<think>One more.</think>", "python cli.py fit --run.name 'a b'", "versions torch", "2.13.0", "lora: {rank: 8}",
        "66.7%", "Tokens", "Thoughts",
    ):  # fmt: skip
        assert told in read.text, told


def test_no_text_of_a_run_becomes_markup(make_run: MakeRun) -> None:
    calm = read_run(make_run("a"))
    folder = make_run("b", config_yaml=f"model: {{name: '{HOSTILE.replace(chr(39), '')}'}}\n".replace("\x1b", ""))
    evaluation(folder / "evaluations/t-base-1.jsonl", "none", {HOSTILE: False}, HOSTILE)
    evaluation(folder / "evaluations/t-2.jsonl", "abc", {HOSTILE: True}, HOSTILE)
    wild = read_run(folder)
    wild.name = wild.state = HOSTILE
    wild.samples = [Sample(0, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)]
    wild.starts = [{"command": [HOSTILE], HOSTILE: {HOSTILE: HOSTILE}}]
    wild.before = wild.before | {f"answer_match/{HOSTILE}": 0.5}
    wild.missing = [HOSTILE]
    text = made(calm, wild)
    read = Reader(text)
    assert read.open == [] and not {"script", "b onclick", "img"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert not re.search("[\x1b\u202e]", text) and "␛" in text and "⟨U+202E⟩" in text
    assert read.text.count("alert(1)") >= 10


def test_the_page_asks_nothing_of_a_network(make_run: MakeRun) -> None:
    read = Reader(made(read_run(make_run())))
    assert not {"script", "link", "img", "iframe"} & set(read.tags)
    assert not [value for name, value in read.attributes if name in ("src", "href")]
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in read.attributes


@pytest.mark.parametrize(
    "files",
    [
        {"metrics_csv": None, "summary_json": None, "samples_md": None, "environment_json": None},
        {"metrics_csv": METRICS[:60], "summary_json": "{", "config_yaml": None},
    ],
)
def test_a_page_of_a_run_that_lacks_nearly_all_says_so(files: dict[str, str | None], make_run: MakeRun) -> None:
    folder = make_run(**files)
    for path in (folder / "evaluations").iterdir():
        path.unlink()
    read = Reader(made(read_run(folder)))
    assert "What is missing" in read.text and "no evaluation yet: python cli.py evaluate" in read.text
    assert "Nothing is known of this." in read.text


def test_two_runs_are_marked_and_their_settings_compared(make_run: MakeRun) -> None:
    text = made(read_run(make_run("a")), read_run(make_run("b", config_yaml="model: {lora: {rank: 64}}\n")))
    assert "A: <b>demo/a</b>" in text and "B: <b>demo/b</b>" in text
    assert re.search(r"model\.lora\.rank</th><td>8</td><td>64</td>", text)


def test_samples_of_many_validations_are_chosen_evenly() -> None:
    many = [Sample(step, "0", "right", "", "", "") for step in range(100)]
    steps = [one.step for one in evenly(many, STEPS_SHOWN)]
    assert len(steps) == STEPS_SHOWN and (steps[0], steps[-1]) == (0, 99) and sorted(set(steps)) == steps
    assert evenly(many[:3], STEPS_SHOWN) == many[:3]
