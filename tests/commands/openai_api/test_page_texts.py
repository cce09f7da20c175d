"""What a model writes, on the page: cards of thoughts, formulas, and text that would like to be more than text."""

import asyncio
import json
import random
import threading
import time
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Any

import pytest

from assets.browser import Tab
from tests.commands.openai_api.conftest import listening
from tests.commands.openai_api.page_visit import DONE, VISIBLE_LINES, ask, complaints, visit
from visible import visible

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.slow
ANSWER = "document.querySelector('.answer').innerText"
Delta = dict[str, Any] | threading.Event  # an event is waited for
Scripted = Callable[..., AbstractContextManager[str]]


def thought(index: int, text: str, closed: bool = False) -> Delta:
    return {"thoughts": [{"index": index, "text": text, "closed": closed}]}


@pytest.fixture
def scripted() -> Scripted:
    """Return a context in which a server writes the given deltas, whatever is asked."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    from commands.openai_api.page_files import page_routes

    @contextmanager
    def serve(*deltas: Delta, end: tuple[str, str] = ("stop", "end"), whole: bool = True) -> Iterator[str]:
        async def models(request: Request) -> Response:
            return JSONResponse({"data": [{"id": "scripted"}]})

        async def chunks() -> AsyncIterator[str]:
            for delta in deltas:
                if isinstance(delta, threading.Event):
                    await asyncio.to_thread(delta.wait, 30)
                else:
                    yield event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            if whole:
                yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": end[0], "ended_by": end[1]}]})
                used = {"completion_tokens": 1234, "completion_tokens_details": {"reasoning_tokens": 1000}}
                yield event({"choices": [], "usage": used}) + "data: [DONE]\n\n"

        async def chat(request: Request) -> Response:
            return StreamingResponse(chunks(), media_type="text/event-stream")

        routes = [Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"]), *page_routes()]
        with listening(Starlette(routes=routes), lambda: None) as url:
            yield url

    return serve


def event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def test_a_thought_is_a_card_with_number_and_time_that_is_folded_when_done(scripted: Scripted, tab: Tab) -> None:
    first, second = threading.Event(), threading.Event()
    thoughts = [thought(0, "One"), first, thought(0, " more."), thought(0, "", True), thought(1, "Two."), second]
    cards = "[...document.querySelectorAll('details')].map(one => [one.open, one.innerText.replaceAll(/\\s+/g, ' ')])"
    with scripted(*thoughts, thought(1, "", True), {"content": "So 7."}) as url:
        visit(tab, url)
        tab.type("Hi")
        tab.press("Enter")
        tab.until("document.querySelector('details .text')?.innerText == 'One'")
        time.sleep(0.4)
        (card,) = tab.value(cards)
        assert card[0] and card[1].startswith("Thought 1 ") and card[1].endswith("s One")
        assert tab.value("document.querySelector('.state').innerText") == "thinking"
        first.set()
        tab.until("document.querySelectorAll('details').length == 2")
        tab.until("document.querySelectorAll('details .text')[1].innerText == 'Two.'")
        done, now = tab.value(cards)
        assert not done[0] and now[0]
        seconds = float(done[1].removeprefix("Thought 1 · ").removesuffix(" s · One more."))
        assert 0.3 < seconds < 30
        tab.value("document.querySelector('summary').focus()")  # a thought that the user opens stays open
        tab.press("Enter")
        tab.value("document.querySelectorAll('summary')[1].focus()")
        tab.press("Enter")
        tab.press("Enter")
        second.set()
        state = tab.until(DONE)
        assert state.startswith("1,234 tokens, 1,000 of thinking, ") and state.endswith(" s")
        assert [opened for opened, _ in tab.value(cards)] == [True, True]
        places = tab.value(
            "[...document.querySelectorAll('details,.answer')].map(one => one.getBoundingClientRect().top)"
        )
        assert places == sorted(places) and tab.value(ANSWER) == "So 7."
        tab.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        tab.value("document.querySelector('.copy').focus()")
        tab.press("Enter")
        tab.until("document.querySelector('.copy').innerText == 'Copied'")
        assert tab.value("navigator.clipboard.readText()") == "So 7."
    assert complaints(tab) == []


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (("length", "limit"), "cut off at the limit"),
        (("stop", "budget"), "thinking was cut by its budget"),
        (("stop", "loop"), "thinking was in a loop, and was cut"),
        (("stop", "limit"), "thinking was cut for the answer"),
    ],
)
def test_an_answer_that_was_cut_says_why(end: tuple[str, str], words: str, scripted: Scripted, tab: Tab) -> None:
    with scripted(thought(0, "Hm"), end=end) as url:
        visit(tab, url)
        assert ask(tab, "Hi").endswith(f" s; {words}")
        assert tab.value("document.querySelector('.copy').hidden"), "there is no answer to copy"


def test_a_stream_that_breaks_off_is_an_error_beside_what_was_written(scripted: Scripted, tab: Tab) -> None:
    with scripted({"content": "Half"}, whole=False) as url:
        visit(tab, url)
        assert ask(tab, "Hi") == "failed"
        assert tab.value(VISIBLE_LINES) == ["The server ended in the middle of the answer."]
        assert tab.value(ANSWER) == "Half"


HOSTILE = [
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'><style>*{display:none}</style>",
    "</div></section><h1 id=page>&lt;b&gt;</h1><a href='javascript:hacked=1'>x</a><!-- ",
    "\u202eevil \u2066 \u200b\u00ad \x1b[2J \x00 \ufeff end",
    r"$\href{javascript:hacked=1}{x}$ \(\includegraphics{https://evil.example/a.png}\) $\class{copy}{x} \id{stop}{x}$",
    r"$\text{<img src=x onerror=hacked=1>}$ \(\style{position:fixed;top:0}{x}\) $\def\a{\a\a}\a$ $\kern{-9999em}x$",
    r"$$\rule{9999em}{9999em}$$ \[\raisebox{999em}{x}\] $\color{red}{x}$ $\sideset{_1^2}{_3^4}\prod$",
]


def test_text_of_a_model_stays_text(scripted: Scripted, tab: Tab) -> None:
    text = "\n".join(HOSTILE)
    deltas = [thought(0, text), thought(0, "", True), {"content": text}]
    with scripted(*deltas) as url:
        visit(tab, url)
        before = tab.value("document.querySelectorAll('h1,a,img,script,style,button').length")
        ask(tab, text)
        tab.value("document.querySelector('summary').click()")
        time.sleep(0.3)
        assert tab.value("window.hacked") is None
        assert tab.value("document.querySelectorAll('h1,a,img,script,style,button').length") == before + 1  # to copy
        assert tab.value("[...document.querySelectorAll('.text [id], .text [href], .text .copy')].length") == 0
        for shown in (tab.value(ANSWER), tab.value("document.querySelector('details .text').innerText")):
            assert "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>" in shown
            assert "⟨U+202E⟩evil ⟨U+2066⟩ ⟨U+200B⟩⟨U+00AD⟩ ␛[2J ␀ ⟨U+FEFF⟩ end" in shown
        boxes = tab.value("[...document.querySelectorAll('.text')].map(one => getComputedStyle(one).contain)")
        assert set(boxes) == {"paint"}, "a formula that is drawn elsewhere is cut at the box"
        assert tab.value("document.documentElement.scrollWidth - innerWidth") <= 0
        asked = [one["params"]["request"]["url"] for one in tab.events if one["method"] == "Network.requestWillBeSent"]
        assert all(one.startswith((url, "data:")) for one in asked)


def test_a_huge_answer_is_shown(scripted: Scripted, tab: Tab) -> None:
    parts = ["\\(" * 20_000, "$" * 20_000 + "\n", "\\boxed{" * 5_000, "{" * 20_000, "x" * 200_000, " $x^2$"]
    with scripted(*({"content": one} for one in parts)) as url:
        visit(tab, url)
        began = time.monotonic()
        ask(tab, "Hi")
        assert time.monotonic() - began < 30
        assert tab.value("document.querySelector('.answer').textContent.length") > 290_000
        assert tab.value("document.querySelectorAll('.answer math').length") == 1


# A text, and the sources of its formulas: * before one with lines of its own
FORMULAS = [
    (r"So \(x = \frac{1}{2}\) and \[x^2\] and $y_1$ and $$z$$.", [r"x = \frac{1}{2}", "*x^2", "y_1", "*z"]),
    (r"It costs $5 and $6, or \$7 and 8.", []),
    (r"The answer is \boxed{\frac{3}{4}}. \boxed{{", [r"\boxed{\frac{3}{4}}"]),
    ("\\begin{aligned} x &= 1 \\\\ y &= 2 \\end{aligned}", ["*\\begin{aligned} x &= 1 \\\\ y &= 2 \\end{aligned}"]),
    ("Code `$x$` and\n```\n$y$\n``` then $z$", ["z"]),
    ("An open fence ```\n$y$ and $z$", []),
    (r"Broken \(\frac{1\) and $\left($ and \[\nosuchcommand\]", []),
    ("", []),
    ("好 $x$ 🦊 \\(é\\)", ["x", "é"]),
    ("$a$5 $a $ $ b$ $$", []),
]
SHOW = """(async (text, cuts) => {
  const { Written } = await import('/page/written.js');
  const element = document.createElement('div');
  const written = new Written(element);
  for (const [from, to] of cuts) { written.append(text.slice(from, to)); written.show(); }
  written.end();
  const drawn = [...element.querySelectorAll('span[title]')].filter(one => one.querySelector('math'));
  element.normalize();
  const blocks = drawn.map(one => one.firstChild.getAttribute('display') == 'block');
  return {formulas: drawn.map(one => one.title), blocks,
    html: element.innerHTML, text: written.text};
})(%s, %s)"""


def units(text: str) -> int:
    """The length that JavaScript sees."""
    return len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize(("text", "formulas"), FORMULAS)
def test_formulas_are_found_and_drawn_however_the_text_comes(
    text: str, formulas: list[str], scripted: Scripted, tab: Tab
) -> None:
    draw = random.Random(0)
    size = units(text)
    with scripted() as url:
        visit(tab, url)
        whole = tab.value(SHOW % (json.dumps(text), [[0, size]]))
        assert len(whole["formulas"]) == len(formulas)
        for title, block, source in zip(whole["formulas"], whole["blocks"], formulas, strict=True):
            assert source.removeprefix("*") in title and block == source.startswith("*")
        assert whole["text"] == text
        for step in (1, 2, 5):
            cuts = [[k, min(k + step, size)] for k in range(0, size, step)]
            assert tab.value(SHOW % (json.dumps(text), cuts)) == whole
        marks = sorted({0, size, *(draw.randrange(size + 1) for _ in range(4))})
        assert tab.value(SHOW % (json.dumps(text), [list(one) for one in pairwise(marks)])) == whole
    assert complaints(tab) == []


def test_marks_are_those_of_the_terminal(scripted: Scripted, tab: Tab) -> None:
    """For every character that is hidden, and joiners with each kind of neighbour."""
    hidden = [chr(k) for k in range(0x110000) if unicodedata.category(chr(k)) in ("Cc", "Cf", "Zl", "Zp", "Mn", "Lo")]
    text = " ".join(hidden[:: 1 if len(hidden) < 20_000 else 7]) + "".join(
        map(chr, [*range(0x300), *range(0x2000, 0x2070)])
    )
    text += "👨\u200d👩 a\u200db ن\u200cن \u200d"
    with scripted() as url:
        visit(tab, url)
        script = f"import('/page/marks.js').then(one => one.visible({json.dumps(text)}))"
        assert tab.value(script) == visible(text, lines=True)
        lone = "import('/page/marks.js').then(one => one.visible('\\ud83e x'))"
        assert tab.value(lone) == "⟨U+D83E⟩ x"
