"""The page that serve sends, in a browser: what a user sees, types and hears of errors."""

import hashlib
import re
import time
from pathlib import Path
from typing import Any

import pytest

from assets.browser import SHIFT, Tab
from lightning_modules.generation.decoder import Decoder
from tests.commands.openai_api.conftest import Server, Serving
from tests.commands.openai_api.page_visit import DONE, VISIBLE_LINES, ask, complaints, visit
from visible import visible

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
# dist/temml.min.js of temml 0.13.5 on npm
TEMML = "1ab19148afe0dbc836b7a74f344071b3f3a70a7a8259ae4049e76894fcdf8d95"


def test_the_files_come_with_a_strict_policy_and_no_others_come(serving: Serving) -> None:
    with serving() as server, httpx.Client(base_url=server.url) as http:
        page = http.get("/")
        names = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
        assert page.headers["content-type"] == "text/html; charset=utf-8" and len(names) == 3
        for name in ("", *names, "page/reply.js", "page/TEMML_LICENSE"):
            reply = http.get(f"/{name}")
            policy = reply.headers["content-security-policy"]
            assert reply.status_code == 200
            assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
            assert "require-trusted-types-for 'script'" in policy
            assert reply.headers["x-content-type-options"] == "nosniff"
            if name.endswith(".js"):
                assert reply.headers["content-type"].startswith("text/javascript")
        for name in ("page", "page/", "page/none.js", "page/../app.py", "page/%2e%2e/app.py", "page/..%2fapp.py"):
            assert http.get(f"/{name}").status_code == 404
        assert http.post("/").status_code == 405
        assert http.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_the_formula_library_is_the_published_file() -> None:
    folder = Path("commands/openai_api/page")
    assert hashlib.sha256((folder / "temml.min.js").read_bytes()).hexdigest() == TEMML
    assert "MIT" in (folder / "TEMML_LICENSE").read_text()


@pytest.mark.slow
def test_a_question_is_asked_by_keyboard_of_the_model_and_the_base_beside_it(serving: Serving, tab: Tab) -> None:
    body = {"messages": [{"role": "user", "content": "Hi\nthere"}], "thinking_token_budget": 6}
    with serving(names=("tiny", "base")) as server:
        visit(tab, server.url)
        assert tab.value("document.activeElement.id") == "question"
        tab.type("Hi")
        tab.press("Enter", SHIFT)  # a line end
        tab.type("there")
        tab.press("Tab")
        tab.type("6")
        tab.press("Enter")  # within a field it asks as well
        state = tab.until(DONE)
        replies = tab.value(
            "[...document.querySelectorAll('.reply')].map(one => one.querySelector('.answer').innerText)"
        )
        expected = httpx.post(f"{server.url}/v1/chat/completions", json=body | {"model": "base"}, timeout=60).json()
        assert tab.value("[...document.querySelectorAll('h2')].map(one => one.innerText)") == ["tiny", "base"]
        used = expected["usage"]
        tokens = f"{used['completion_tokens']} tokens, "
        tokens += f"{used['completion_tokens_details']['reasoning_tokens']} of thinking, "
        assert state.count(tokens) == 2 and len(replies) == 2
        answer = visible(expected["choices"][0]["message"]["content"], lines=True)
        assert [" ".join(one.split()) for one in replies] == [" ".join(answer.split())] * 2
        lefts = tab.value("[...document.querySelectorAll('.reply')].map(one => one.getBoundingClientRect().left)")
        assert lefts[1] > lefts[0] + 300, "they stand side by side"
        tab.value("document.getElementById('both').click()")
        tab.value("document.getElementById('question').value = ''")
        ask(tab, "Hi")
        assert tab.value("[...document.querySelectorAll('h2')].map(one => one.innerText)") == ["tiny"]
        asked = [one["params"]["request"]["url"] for one in tab.events if one["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 8 and all(url.startswith((server.url, "data:")) for url in asked)
    assert complaints(tab) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Escape", "the button", "new question"])
def test_stopping_ends_the_generation_and_the_next_question_is_answered(
    how: str, serving: Serving, tab: Tab, slow: list[int]
) -> None:
    with serving(names=("tiny", "base")) as server:
        visit(tab, server.url)
        tab.value(LONG)
        tab.type("Hi")
        tab.press("Enter")
        tab.until("document.querySelectorAll('.text').length > 1 && !document.getElementById('stop').disabled")
        until = time.monotonic() + 20
        while server.engine.load != (2, 0):
            assert time.monotonic() < until
            time.sleep(0.01)
        if how == "Escape":
            tab.press("Escape")
        elif how == "the button":
            for _ in range(2 + 2):  # budget, temperature, checkbox; Ask is disabled
                tab.press("Tab")
            assert tab.value("document.activeElement.id") == "stop"
            tab.press("Enter")
        else:
            tab.value("document.getElementById('new').click()")
        until = time.monotonic() + 5
        while server.engine.load != (0, 0):
            assert time.monotonic() < until, "the server goes on writing"
            time.sleep(0.01)
        if how == "new question":
            assert tab.until("document.querySelectorAll('.reply').length == 0 && 'none'") == "none"
            assert tab.value("document.getElementById('question').value + document.activeElement.id") == "question"
        else:
            assert tab.until(DONE) == "stopped | stopped"
            assert tab.value("document.activeElement.id") in ("question", "ask")
        tab.value("window.more = {max_tokens: 3}")
        tab.value("document.getElementById('question').value = ''")
        assert ask(tab, "Hi").count("3 tokens") == 2
        assert tab.value(VISIBLE_LINES) == []


# The page asks for no length: a test adds it to what the page sends
LONG = """{window.more = {max_tokens: 350, min_thinking: 300}; window.plain ??= window.fetch;
const longer = how => ({...how, body: JSON.stringify({...JSON.parse(how.body), ...more})});
window.fetch = (url, how) => plain(url, how?.body ? longer(how) : how)}"""


@pytest.mark.slow
def test_an_error_is_one_line(serving: Serving, tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Decoder, tokens: Any) -> Any:
        raise RuntimeError("broken")

    def lines(server: Server) -> list[str]:
        assert ask(tab, "Hi") == "failed"
        said: list[str] = tab.value(VISIBLE_LINES)
        assert all("\n" not in one for one in said)
        return said

    with serving() as server:
        visit(tab, server.url)
        tab.value("document.getElementById('temperature').value = 1e6")
        (line,) = lines(server)
        assert line.startswith("temperature: 1000000 ")
        tab.value("document.getElementById('temperature').value = ''")
        with monkeypatch.context() as patched:
            patched.setattr(Decoder, "step", fail)
            assert lines(server) == ["the model failed: the server's log says why."]
    assert lines(server) == ["The server does not answer. Is it still running?"]


@pytest.mark.slow
@pytest.mark.parametrize("lack", ["no scripts", "no MathML"])
def test_an_old_browser_gets_one_line(lack: str, serving: Serving, tab: Tab) -> None:
    lines = "document.body.innerText.trim()"
    with serving() as server:
        identifier = None
        if lack == "no scripts":
            tab.call("Emulation.setScriptExecutionDisabled", value=True)
        else:
            script = "delete window.MathMLElement"
            identifier = tab.call("Page.addScriptToEvaluateOnNewDocument", source=script)["identifier"]
        try:
            tab.call("Page.navigate", url=f"{server.url}/?{time.time()}")
            assert tab.until(f"document.readyState == 'complete' && {lines}").startswith("This page needs")
            assert "\n" not in tab.value(lines)
            assert tab.value("getComputedStyle(document.getElementById('page')).display") == "none"
        finally:
            tab.call("Emulation.setScriptExecutionDisabled", value=False)
            if identifier is not None:
                tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=identifier)


CONTRAST = """[...document.querySelectorAll('h1,h2,label,small,button:enabled,summary,.text,.state')].map(one => {
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = colour => colour.match(/[\\d.]+/g).slice(0, 3)
    .reduce((sum, v, k) => sum + linear(v / 255) * [.2126, .7152, .0722][k], 0);
  const ground = one => getComputedStyle(one).backgroundColor;
  let behind = one;
  while (ground(behind) === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
  const [a, b] = [light(getComputedStyle(one).color), light(ground(behind))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05)})"""


@pytest.mark.slow
def test_the_page_is_readable_light_and_dark_and_narrow(serving: Serving, tab: Tab) -> None:
    grounds = []
    with serving(names=("tiny", "base")) as server:
        visit(tab, server.url)
        ask(tab, "Hi")
        try:
            for scheme in ("light", "dark"):
                feature = {"name": "prefers-color-scheme", "value": scheme}
                tab.call("Emulation.setEmulatedMedia", features=[feature])
                grounds.append(tab.value("getComputedStyle(document.body).backgroundColor"))
                assert min(tab.value(CONTRAST)) >= 4.5
            tab.call("Emulation.setDeviceMetricsOverride", width=340, height=700, deviceScaleFactor=1, mobile=False)
            assert tab.value("document.documentElement.scrollWidth - innerWidth") <= 0
        finally:
            tab.call("Emulation.setEmulatedMedia", features=[])
            tab.call("Emulation.clearDeviceMetricsOverride")
    assert len(set(grounds)) == 2
