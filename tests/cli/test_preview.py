"""preview, as a user types it, and its page in a browser."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli import main
from datamodules.text.segments import Role
from tests.cli.conftest import DEMO
from tests.conftest import ROOT, TINY

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# The proxy is not there: the browser, which has questions of its own, has no network
OFFLINE = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--virtual-time-budget=3000",
    "--proxy-server=http://127.0.0.1:9",
)  # fmt: skip
ROWS = [
    {
        "id": "good",
        "instruction": "Say [bold]hi[/bold] 好🦊",
        "response": "<think>One 好.\nTwo é.</think>\n\n<b>&amp; 7</b>",
    },
    {"id": "cut", "instruction": "What?", "response": "<think>never closed"},
    {"id": "late", "instruction": "No opening?", "response": "So it is.</think>Yes."},
    {"id": "long", "instruction": "Long?", "response": f"<think>{'word ' * 90}</think>b"},
    {"id": "half", "instruction": "Half \ud83e", "response": "<think>Hm.</think>c"},
]
TEXT = """data:
  source: rows.jsonl
  order: file
  max_length: 128
  train_rows: null
  val_rows: null
  near_duplicate_threshold: null
"""


@pytest.fixture
def rows(in_tmp: Path) -> Path:
    """A folder with five rows and a config that names them and has settings of the trainer."""
    (in_tmp / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (in_tmp / "rows.yaml").write_text(f"{TEXT}model:\n  name: {TINY}\n  lora: null\ntrainer:\n  devices: 7\n")
    return in_tmp


@pytest.fixture
def preview(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*args: str) -> str:
        capsys.readouterr()
        assert main(["preview", *args]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*args: str) -> str:
        capsys.readouterr()
        assert main(["preview", *args]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return run


def test_the_demos_data_is_shown_and_no_model_is_loaded(in_tmp: Path) -> None:
    code = f"""
import sys
from cli import main
assert main(["preview", "--config", {DEMO!r}, "--limit", "50", "--rows", "1", "--html", "page.html"]) == 0
assert not {{"peft", "transformers.models.qwen2.modeling_qwen2"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=in_tmp, capture_output=True, text=True, check=False,
                          env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "50 rows read" in done.stdout and "[thought]Okay" in done.stdout and done.stdout.count("[prompt]###") == 1
    assert done.stderr.split() == ["written", "to", "page.html"]
    assert [path.name for path in in_tmp.iterdir()] == ["page.html"], "something was cached or left behind"


def test_every_row_is_written_with_its_split_or_the_reason_why_it_is_dropped(
    rows: Path, preview: Callable[..., str], tiny_tokenizer: Any
) -> None:
    preview("--config", "rows.yaml", "--jsonl", "all.jsonl")
    found = {row["row_id"]: row for row in map(json.loads, (rows / "all.jsonl").read_text().splitlines())}
    assert [(row["row"], name) for name, row in found.items()] == [
        (0, "good"),
        (1, "cut"),
        (2, "late"),
        (3, "long"),
        (4, "half"),
    ]
    good, cut, late, long, half = found.values()
    assert good["thoughts"] == ["One 好.", "Two é."] and good["answer"] == "\n\n<b>&amp; 7</b>"
    assert good["reason"] is None and good["split"] in ("train", "val") and good["source"] == "rows.jsonl"
    assert tiny_tokenizer.decode(good["input_ids"]).endswith("</think>\n\n<b>&amp; 7</b><|im_end|>")
    assert len(good["roles"]) == len(good["input_ids"]) and set(good["roles"]) == set(map(int, Role))
    assert late["notes"] == ["no opening tag (repaired)"]
    assert (cut["reason"], cut["split"], cut["input_ids"]) == (
        "think block never closed (data.malformed_overrides.unclosed); "
        "no answer after the thoughts (data.malformed_overrides.no_answer)",
        None,
        [],
    )
    assert (half["instruction"], half["reason"]) == ("Half \ud83e", "not valid UTF-8")
    assert long["reason"] == "longer than data.max_length" and len(long["input_ids"]) > 128


def test_the_later_setting_wins(rows: Path, preview: Callable[..., str]) -> None:
    (rows / "more.yaml").write_text("data:\n  max_length: 512\n")
    assert "5 rows read" in (text := preview("--config", "rows.yaml")) and "3 dropped" in text
    assert "2 dropped" in preview("--config", "rows.yaml", "--config=more.yaml")
    assert "3 dropped" in preview("--config=more.yaml", "-c", "rows.yaml")
    assert "2 dropped" in preview("--config", "rows.yaml", "--data.max_length", "512")
    assert "2 rows read" in preview("--config", "rows.yaml", "--limit", "2")


def test_a_row_is_found_by_its_position_and_by_its_id(rows: Path, preview: Callable[..., str]) -> None:
    for wanted in ("2", "late"):
        text = preview("--config", "rows.yaml", "--row", wanted)
        assert "row 2 · late · rows.jsonl" in text and "So it is.</think>Yes." in text
        assert "no opening tag (repaired)" in text and "step 1 of 1" in text
        assert re.search(r"\d+ +\d+ +opening tag +yes +<think>", text)
    assert "dropped: think block never closed" in preview("--config", "rows.yaml", "--row", "cut")


def test_the_id_that_is_printed_is_the_one_that_is_taken(
    rows: Path, preview: Callable[..., str], refused: Callable[..., str]
) -> None:
    """In mixes, for ids that are numbers, for rows without an id and in any order."""
    for name, ids in (("a", [3, 1, None, "x"]), ("b", [1, "y\x07", 0])):
        given = [{"id": i, "instruction": f"{name} {k}?", "response": "<think>t</think>u"} for k, i in enumerate(ids)]
        (rows / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    mix = ("--config", "rows.yaml", "--data.mix", "[{name: a.jsonl}, {name: b.jsonl}]", "--data.order", "sampled")
    printed = re.findall(r"row (\d+) · (\S+) · (\S+) · \w+ · \d+ tokens", preview(*mix, "--rows", "9"))
    assert len(printed) == 7 and {name for _, name, _ in printed} >= {"3", "1", "2", "x", "0"}
    for position, name, source in printed:
        title = f"row {position} · {name} · {source} ·"
        assert title in preview(*mix, "--row", f"{source}:{name}")
        assert title in preview(*mix, "--row", f"@{position}")
        if name != "1":
            assert title in preview(*mix, "--row", name)
    assert "--row: '1' is the id of a row in several sources. Give a.jsonl:1 or b.jsonl:1." in refused(
        *mix, "--row", "1"
    )
    assert "row 6 ·" in preview(*mix, "--row", "6"), "a number that is no id is a position"


def test_the_response_can_be_rebuilt_from_its_line(rows: Path, preview: Callable[..., str]) -> None:
    response = "First.\n<think>a</think> between <think>b</think>\n\nlast"
    (rows / "rows.jsonl").write_text(json.dumps({"id": "r", "instruction": "Q", "response": response}) + "\n")
    preview("--config", "rows.yaml", "--jsonl", "one.jsonl")
    row = json.loads((rows / "one.jsonl").read_text())
    assert row["messages"][-1] == {"role": "assistant", "text": response, "reasoning": None}
    parts = [f"<think>{text}</think>" if role == "thought" else text for role, text in row["passages"]]
    assert "".join(parts) == response


def test_dropped_rows_are_shown_with_their_texts_and_the_place_of_the_fault(
    rows: Path, preview: Callable[..., str]
) -> None:
    text = preview("--config", "rows.yaml", "--dropped")
    assert "row 1 · cut · rows.jsonl · dropped" in text and "▶1<think>never closed▶2" in text
    assert "▶1 dropped: think block never closed (data.malformed_overrides.unclosed)" in text
    assert "row 3 · long" in text and "\ndropped: longer than data.max_length" in text and "Long?" in text
    assert "Half ⟨U+D83E⟩" in text and "Hm." in text
    assert "5 rows read" in text and "3 dropped" in text, "the counts follow"
    assert "a row with several reasons is counted under each of them" in text
    assert "Say [bold]hi" not in text and "So it is." not in text, "a kept row is shown"


def test_dropped_rows_are_chosen_by_a_shape_or_by_words_of_a_reason(rows: Path, preview: Callable[..., str]) -> None:
    for wanted, found in (("unclosed", "cut"), ("no_answer", "cut"), ("LONGER than", "long"), ("UTF-8", "half")):
        text = preview("--config", "rows.yaml", "--dropped", wanted)
        titles = re.findall(r"row \d · (\w+) · rows.jsonl", text)
        assert titles == [found]
    assert len(re.findall(r"row \d · ", preview("--config", "rows.yaml", "--dropped", "--rows", "2"))) == 2
    (rows / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    assert "no row was dropped" in preview("--config", "rows.yaml", "--dropped", "unclosed")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), ["--config", "is not given", "configs/demo.yaml"]),
        (("--config", "nowhere.yaml"), ["--config", "'nowhere.yaml'", "does not exist"]),
        (("--config", "rows.yaml", "--html", "rows.yaml"), ["--html: 'rows.yaml' exists. Give a new name."]),
        (("--config", "rows.yaml", "--jsonl", "rows.jsonl"), ["--jsonl: 'rows.jsonl' exists. Give a new name."]),
        (("--config", "rows.yaml", "--jsonl", "a", "--html", "./a"), ["--jsonl", "is also the file of --html"]),
        (("--config", "rows.yaml", "--html", "no/such/page.html"), ["--html", "cannot be written"]),
        (("--config", "rows.yaml", "--row", "9"), ["--row", "'9'", "not among the 5 rows read"]),
        (("--config", "rows.yaml", "--row", "1", "--html", "a"), ["--row", "Remove --html"]),
        (("--config", "rows.yaml", "--row", "1", "--dropped"), ["--row", "--dropped"]),
        (("--config", "rows.yaml", "--dropped", "nestd"), ["--dropped: 'nestd' is in no reason", "never closed"]),
        (("--config", "rows.yaml", "--rows", "-1"), ["rows", "'-1'"]),
        (("--config", "rows.yaml", "--limit", "0"), ["limit", "'0'", "null for all"]),
        (("--config", "rows.yaml", "--data.max_lenght", "9"), ["data.max_lenght", "Did you mean data.max_length?"]),
        (("--config", "rows.yaml", "--data.max_length", "many"), ["data.max_length", "'many'", "int"]),
        (("--config", "rows.yaml", "--data.max_length", "1"), ["data.max_length", "from 8 to"]),
        (("--config", "rows.yaml", "--model.name", "no/such/folder"), ["model.name", "'no/such/folder'"]),
        (("--config", "wrong.yaml"), ["data.max_lenght", "Did you mean data.max_length?"]),
        (("--config", "typo.yaml"), ["dtaa", "Did you mean data?"]),
        (("--config", "trainer.yaml"), ["trainer.what: there is no such setting"]),
        (("--config", "rows.yaml", "--model.lora.rnak", "4"), ["model.lora.rnak", "Did you mean model.lora.rank?"]),
        (("--config", "list.yaml"), ["--config", "'list.yaml' holds no settings"]),
        (("--config", "flat.yaml"), ["data: '5' is not valid"]),
        (("--config", "broken.yaml"), ["--config", "'broken.yaml' is not YAML"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(
    args: tuple[str, ...], words: list[str], rows: Path, refused: Callable[..., str]
) -> None:
    files = {
        "wrong": "data:\n  max_lenght: 5\n",
        "typo": "dtaa: {}\n",
        "trainer": "trainer:\n  what: 1\n",
        "list": "[1]",
        "flat": "data: 5",
        "broken": "a: [1",
    }
    for name, text in files.items():
        (rows / f"{name}.yaml").write_text(text)
    before = {path: path.read_bytes() for path in rows.iterdir()}
    line = refused(*args)
    assert all(word in line for word in words), line
    assert {path: path.read_bytes() for path in rows.iterdir()} == before


def test_an_error_leaves_no_incomplete_file(rows: Path, refused: Callable[..., str]) -> None:
    with (rows / "rows.jsonl").open("a") as file:
        file.write("no json\n")
    assert "data.source" in refused("--config", "rows.yaml", "--jsonl", "all.jsonl", "--html", "page.html")
    assert {path.name for path in rows.iterdir()} == {"rows.jsonl", "rows.yaml"}


def test_without_a_config_it_uses_that_of_the_newest_run(rows: Path, preview: Callable[..., str]) -> None:
    for name, length in (("2026-01-01_00-00-00", 128), ("2026-01-02_00-00-00", 512)):
        (rows / "runs" / "mine" / name).mkdir(parents=True)
        text = (rows / "rows.yaml").read_text().replace("max_length: 128", f"max_length: {length}")
        (rows / "runs" / "mine" / name / "config.yaml").write_text(text)
    assert "2 dropped" in preview()


# In a browser


def browse(page: Path, folder: Path, *more: str) -> tuple[str, list[str]]:
    """(the rendered DOM, what the page asked the network for)."""
    assert CHROMIUM is not None
    log = folder / "net.json"
    profile = ("--user-data-dir=" + str(folder / "profile"), f"--log-net-log={log}")
    done = subprocess.run(
        [CHROMIUM, *OFFLINE, *profile, *more, page.as_uri()], capture_output=True, timeout=120, check=True
    )
    starts = re.findall(r'"initiator":"([^"]*)".*?"url":"(https?:[^"]*)"', log.read_text())
    return done.stdout.decode(), [url for initiator, url in starts if initiator != "not an origin"]


@pytest.fixture
def html(rows: Path, preview: Callable[..., str]) -> Path:
    if CHROMIUM is None:
        pytest.skip("needs chromium to open the page in")
    preview("--config", "rows.yaml", "--html", "page.html")
    return rows / "page.html"


# Reports what the browser made of the page, in the page: only a test's copy of it may run a script
ASK = """<script>
const of = s => getComputedStyle(document.querySelector(s));
const roles = Object.fromEntries(ROLES.map(r => [r, of('.text .' + r).color + of('.text .' + r).backgroundColor]));
const bars = [...document.querySelectorAll('rect')].map(
  r => [r.getBoundingClientRect().width, getComputedStyle(r).fill]);
const wide = document.documentElement.scrollWidth - innerWidth;
document.body.innerHTML = '<pre id=told>' + JSON.stringify({roles, bars, wide}) + '</pre>';
</script></body>"""


def test_the_page_opens_without_network_in_its_own_colours(html: Path, tmp_path: Path) -> None:
    dom, asked = browse(html, tmp_path, "--dump-dom")
    assert asked == []
    assert dom.count("<svg") == 4 and dom.count('class="text"') == 2
    text = re.sub("<[^>]+>", "", dom)
    assert "Say [bold]hi[/bold] 好🦊" in text and "&lt;b&gt;&amp;amp; 7" in text and "think block never closed" in text
    assert re.search(r'<span class="thought" title="id [\d ]+ · THOUGHT · supervised">好</span>', dom)
    copy = tmp_path / "copy.html"
    loose = re.sub("<meta http-equiv[^>]*>", "", html.read_text())
    copy.write_text(loose.replace("</body>", ASK.replace("ROLES", json.dumps([role.name.lower() for role in Role]))))
    for width in (1200, 500):
        dom, _ = browse(copy, tmp_path, "--dump-dom", f"--window-size={width},900")
        told = json.loads(re.search("<pre id=.told.>(.*?)</pre>", dom)[1])  # type: ignore[index]
        assert len(set(told["roles"].values())) == 5  # the two tags share theirs
        assert sum(size > 1 for size, _ in told["bars"]) > 8
        assert len({fill for _, fill in told["bars"]}) >= 5
        assert told["wide"] <= 0, "the page is wider than the window"


def test_the_check_for_requests_can_fail(html: Path, tmp_path: Path) -> None:
    image = '<img src="http://127.0.0.1:9/picture.png">'
    (tmp_path / "guarded.html").write_text(html.read_text().replace("<main>", f"<main>{image}"))
    (tmp_path / "loose.html").write_text(re.sub("<meta http-equiv[^>]*>", image, html.read_text()))
    assert browse(tmp_path / "guarded.html", tmp_path, "--dump-dom")[1] == []
    assert browse(tmp_path / "loose.html", tmp_path, "--dump-dom")[1] == ["http://127.0.0.1:9/picture.png"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_drawn_in_light_and_in_dark(scheme: str, html: Path, tmp_path: Path) -> None:
    from PIL import Image  # tensorboard brings it

    dark = ("--blink-settings=preferredColorScheme=0",) if scheme == "dark" else ()
    browse(html, tmp_path, "--hide-scrollbars", "--window-size=1000,1600", f"--screenshot={tmp_path / 'a.png'}", *dark)
    image = Image.open(tmp_path / "a.png").convert("RGB")
    assert image.size == (1000, 1600)
    ground = image.getpixel((2, 2))
    assert isinstance(ground, tuple) and (max(ground) < 60 if scheme == "dark" else min(ground) > 200)
    pixels = np.unique(np.asarray(image).reshape(-1, 3), axis=0, return_counts=True)[1]
    assert len(pixels) > 100 and pixels.max() < 0.8 * pixels.sum(), "blank, or nearly"
