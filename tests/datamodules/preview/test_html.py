"""The page as text. tests/cli/test_preview.py opens it in a browser."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from datamodules.prepare.stats import DataStats
from datamodules.preview.content import PreviewRow, with_marks
from datamodules.preview.html import STYLE, page
from datamodules.text.segments import Role
from datamodules.tokens.process import OVERLONG
from datamodules.tokens.tokenizer import ThinkTokenizer
from tests.datamodules.preview.test_content import NASTY, report_of, row_of

EVIL = "\"'><script>alert(1)</script><img src=http://evil.example/x>"


class Outline(HTMLParser):
    """The tags, their attributes and their text. Fails if the tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.spans: list[list[str | None]] = []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self.stack.append(tag)
        if tag == "span" and "title" in dict(attrs):
            self.spans.append([dict(attrs)["class"], dict(attrs)["title"], ""])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "span" and self.spans and "text" not in self.stack:
            self.spans[-1][2] = f"{self.spans[-1][2]}{data}"

    def all(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.found if name == tag)


@pytest.fixture
def rows(tiny_tokenizer: ThinkTokenizer) -> list[PreviewRow]:
    return [
        row_of(tiny_tokenizer, position=7, row_id=EVIL, notes=(EVIL,)),
        row_of(tiny_tokenizer, [f"So {EVIL}"], EVIL),
    ]


@pytest.fixture
def report(rows: list[PreviewRow]) -> DataStats:
    return report_of(rows, [(OVERLONG, EVIL), (EVIL, "a")])


@pytest.fixture
def made(rows: list[PreviewRow], report: DataStats, tiny_tokenizer: ThinkTokenizer) -> str:
    return page(rows, report, tiny_tokenizer.decode, 96, {"source": EVIL})


def test_every_token_is_a_span_of_its_role_with_its_id(
    made: str, rows: list[PreviewRow], tiny_tokenizer: ThinkTokenizer
) -> None:
    spans = Outline(made).spans
    titles = [str(title).split(" · ") for _, title, _ in spans]
    assert [int(i) for ids, _, _ in titles for i in ids.removeprefix("id ").split()] == [
        i for row in rows for i in row.example.ids.tolist()
    ]
    for (kind, _, _), (_, role, supervised) in zip(spans, titles, strict=True):
        assert kind == role.lower()
        assert supervised == ("not supervised" if role == Role.PROMPT.name else "supervised")
    text = "".join(str(shown) for _, _, shown in spans)
    assert with_marks(NASTY) in text


def test_text_of_a_row_never_becomes_html(made: str) -> None:
    outline = Outline(made)
    assert not {"script", "img", "link", "iframe", "object"} & {tag for tag, _ in outline.found}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in made and "\x1b" not in made
    for _, attributes in outline.found:
        assert not {"src", "href", "onerror", "onclick", "action", "srcset"} & set(attributes)


def test_the_page_needs_no_network(made: str) -> None:
    policy = next(a["content"] for a in Outline(made).all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "url(" not in STYLE and "@import" not in STYLE


def test_charts_have_their_numbers_as_text(made: str, report: DataStats) -> None:
    labels = [str(a["aria-label"]) for a in Outline(made).all("svg")]
    assert len(labels) == 4
    tokens, steps, lengths, roles = labels
    assert tokens.startswith("Rows by tokens of a row: ") and steps == "Rows by steps of an answer: 1: 1, 2: 1"
    assert (
        lengths.startswith("512 tokens: 100% rows that fit, 100% rows whose thoughts fit; ") and lengths.count(";") == 4
    )
    assert "thought " in roles
    widths = [float(str(a["width"])[:-1]) for a in Outline(made).all("rect") if str(a["class"]).startswith("r-")]
    assert sum(widths) == pytest.approx(100, abs=0.1)


def test_bars_above_max_length_have_another_colour(
    rows: list[PreviewRow], report: DataStats, tiny_tokenizer: ThinkTokenizer
) -> None:
    def over(limit: int) -> int:
        return len(re.findall('<rect class="over"', page(rows, report, tiny_tokenizer.decode, limit)))

    assert (over(8), over(4096)) == (len([count for count in report.lengths if count]), 0)


def test_tables_have_every_number(made: str, report: DataStats) -> None:
    text = re.sub("<[^>]+>", "|", made)
    assert "|longer than data.max_length||1||25.0%||" in text
    for role in Role:
        assert f"||{report.role_tokens[role.name.lower()]:,}||" in text


def test_an_empty_report_makes_a_page(tiny_tokenizer: ThinkTokenizer) -> None:
    assert "No row was dropped." in page([], DataStats(), tiny_tokenizer.decode, 512)


def luminance(colour: str) -> float:
    colour = "".join(2 * c for c in colour[1:]) if len(colour) == 4 else colour[1:]
    parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


PAIRS = [
    ("ink", "page"), ("ink", "card"), ("soft", "page"), ("soft", "card"), ("prompt", "card"),
    ("thought-ink", "thought"), ("tag-ink", "tag"), ("answer-ink", "answer"), ("end-ink", "end"),
]  # fmt: skip


DRAWN = ("first", "second", "over", "tag", "end")


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_charts_have_enough_contrast_in_light_and_dark(scheme: int) -> None:
    """WCAG 2.2, AA: 4.5 for text, 3 for graphics."""
    blocks = re.findall(r":root\{([^}]*)\}", STYLE.replace("\n", ""))
    colours = dict(re.findall(r"--([\w-]+):(#\w+)", blocks[scheme]))
    for text, ground, least in [*((*pair, 4.5) for pair in PAIRS), *((drawn, "card", 3.0) for drawn in DRAWN)]:
        light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= least, (text, ground)
