"""The template of a run stays what it was when the run began."""

import re
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from datamodules.text.chat_template import HistoryReasoning
from datamodules.text.segments import Template
from datamodules.tokens import run_template as module
from datamodules.tokens.run_template import RunTemplate
from datamodules.tokens.template import _uses_messages, _with_date
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from tests.conftest import TINY
from tests.stand_ins.chat_templates import chat_tokenizer

# The beginning of Llama 3.2's template
LLAMA = (
    "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n"
    '        {%- set date_string = strftime_now("%d %b %Y") %}\n    {%- else %}\n'
    '        {%- set date_string = "26 Jul 2024" %}\n    {%- endif %}\n{%- endif %}\n'
    "{{- '<|im_start|>Today Date: ' + date_string + '<|im_end|>' }}"
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + m.content | trim + '<|im_end|>' }}{%- endfor %}"
)
GRANITE = "{{ '<|im_start|>Today: ' + strftime_now( '%B %d, %Y' ) + '. ' + messages[-1].content }}"


def on(day: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run begin on this day."""

    class Day(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.fromisoformat(day)

    monkeypatch.setattr(module, "datetime", Day)


def model(chat: str) -> ThinkTokenizer:
    from transformers import AutoTokenizer

    full: Any = AutoTokenizer.from_pretrained(TINY)
    full.chat_template = chat
    return ThinkTokenizer(full)


def text(template: Template) -> str:
    return "".join(segment.text for segment in template.prompt("Hi"))


@pytest.mark.parametrize("chat", [LLAMA, GRANITE])
def test_a_run_that_goes_on_prints_the_date_of_its_first_day(chat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = model(chat)
    on("2026-11-27", monkeypatch)
    first = RunTemplate("chat", None)
    assert re.search("27 Nov 2026|November 27, 2026", text(first.load(tokenizer)))
    on("2026-11-28", monkeypatch)
    again = RunTemplate("chat", None)
    assert again.load(tokenizer) != first.load(tokenizer)
    again.go_on("chat", first.to_keep(tokenizer))
    assert again.load(tokenizer) == first.load(tokenizer)
    from_config = RunTemplate(first.to_keep(tokenizer), None)
    assert from_config.load(tokenizer) == first.load(tokenizer)


@pytest.mark.parametrize("chat", [LLAMA, GRANITE])
def test_the_text_of_a_chat_template_that_is_kept_prints_its_date_in_every_client(
    chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on("2025-01-02", monkeypatch)
    tokenizer = model(chat)
    template = RunTemplate("chat", None).load(tokenizer)
    theirs = tokenizer.full.apply_chat_template(
        [{"role": "user", "content": "Hi"}], chat_template=template.chat, tokenize=False
    )
    assert theirs == text(template)
    assert "2025" in theirs


def test_another_template_of_the_model_does_not_change_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = model("A {{ messages[0].content }}"), model("B {{ messages[0].content }}")
    first, again = RunTemplate("chat", None), RunTemplate("chat", None)
    again.go_on("chat", first.to_keep(before))
    assert text(again.load(after)) == "A Hi"


def test_a_date_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(UserError, match=r"'chat' prints the current date in a form that cannot be kept"):
        RunTemplate("chat", None).load(model("{% set f = '%Y' %}{{ strftime_now(f) + messages[0].content }}"))


def test_a_file_that_changes_or_vanishes_does_not_change_a_run(
    in_tmp: Path, tiny_tokenizer: ThinkTokenizer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = in_tmp / "mine.jinja"
    file.write_text("Q: {{ instruction }}\nA: ")
    kept = RunTemplate("mine.jinja", None).to_keep(tiny_tokenizer)
    file.write_text("Changed {{ instruction }}")
    again = RunTemplate("mine.jinja", None)
    with caplog.at_level("INFO", "thinkwright"):
        again.go_on("mine.jinja", kept)
    assert "data.template: mine.jinja has changed since the run began" in caplog.text
    file.unlink()
    (in_tmp / "elsewhere").mkdir()
    monkeypatch.chdir(in_tmp / "elsewhere")
    assert text(again.load(tiny_tokenizer)) == text(RunTemplate(kept, None).load(tiny_tokenizer)) == "Q: Hi\nA: "


def test_a_run_goes_on_from_its_own_config_and_then_from_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = model(LLAMA)
    on("2026-11-27", monkeypatch)
    kept = RunTemplate("chat", None).to_keep(tokenizer)
    on("2026-11-28", monkeypatch)
    own = RunTemplate(kept, None)
    own.go_on("chat", kept)
    again = RunTemplate("chat", None)
    again.go_on(own.setting, own.to_keep(tokenizer))
    assert text(again.load(tokenizer)) == text(own.load(tokenizer))
    assert "27 Nov 2026" in text(again.load(tokenizer))


def test_another_setting_takes_its_own_template(tiny_tokenizer: ThinkTokenizer) -> None:
    again = RunTemplate("Q: {{ instruction }}", None)
    again.go_on("instruction", "instruction")
    assert text(again.load(tiny_tokenizer)) == "Q: Hi"


@pytest.mark.parametrize(
    ("setting", "system"),
    [
        ("instruction", None), ("chat", None), ("chat", "Be brief."), ("Q: {{ instruction }}\n\n", None),
        ("{{ instruction | trim }}", None), ("{{ system }} {{ instruction }}", "Be brief."),
    ],
)  # fmt: skip
def test_what_is_kept_gives_the_same_template(setting: str, system: str | None, tiny_tokenizer: ThinkTokenizer) -> None:
    first = RunTemplate(setting, system)
    again = RunTemplate(first.to_keep(tiny_tokenizer), system)
    assert again.load(tiny_tokenizer) == first.load(tiny_tokenizer)
    assert again.to_keep(tiny_tokenizer) == first.to_keep(tiny_tokenizer)


def test_the_name_of_a_template_of_this_program_is_kept_as_a_name(tiny_tokenizer: ThinkTokenizer) -> None:
    assert RunTemplate("instruction", None).to_keep(tiny_tokenizer) == "instruction"


@pytest.mark.parametrize(
    ("setting", "chat"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", True),
        ("{{- messages[0]['content'] -}}", True),
        ("Read the messages: {{ instruction }}", False),
        ("{{ 'a' }} messages {{ instruction }}", False),
    ],
)
def test_a_text_that_uses_messages_is_a_chat_template(setting: str, chat: bool, tiny_tokenizer: ThinkTokenizer) -> None:
    assert (RunTemplate(setting, None).load(tiny_tokenizer).chat is not None) == chat


@pytest.mark.parametrize("part", ["{{ ", "{% ", "}} ", "strftime_now(", "strftime_now('", "messages ", "{", "{{ m }}"])
def test_a_text_of_a_megabyte_is_looked_through_at_once(part: str) -> None:
    text = part * (2**20 // len(part))
    started = time.monotonic()
    _uses_messages(text)
    with suppress(UserError):
        _with_date(text, datetime(2026, 1, 1))
    assert time.monotonic() - started < 10


def test_all_answers_in_one_row_need_a_prompt_that_keeps_their_reasoning() -> None:
    with pytest.raises(
        UserError, match=r"data\.turns: 'all' trains .*data\.history_reasoning drop drops.*Set data\.turns each"
    ):
        RunTemplate("instruction", None, "drop", "all")
    with pytest.raises(UserError, match=r"the chat template of the model drops.*or data\.history_reasoning keep"):
        RunTemplate("chat", None, "template", "all").load(chat_tokenizer("qwen3"))
    assert RunTemplate("chat", None, "template", "each").load(chat_tokenizer("qwen3")).drops_reasoning
    assert not RunTemplate("chat", None, "keep", "all").load(chat_tokenizer("qwen3")).drops_reasoning
    assert not RunTemplate("chat", None, "template", "all").load(chat_tokenizer("qwen2.5")).drops_reasoning


@pytest.mark.parametrize("reasoning", ["template", "keep", "drop"])
def test_the_kept_text_of_a_template_renders_conversations_as_before(reasoning: HistoryReasoning) -> None:
    tokenizer = chat_tokenizer("qwen3")
    first = RunTemplate("chat", None, reasoning)
    again = RunTemplate(first.to_keep(tokenizer), None, reasoning)
    assert again.load(tokenizer).chat_template == first.load(tokenizer).chat_template
