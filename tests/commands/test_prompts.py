"""The prompts of generate: lines of a text file, and conversations of a .jsonl file."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from commands.prompts import plain, read_prompts, segments
from datamodules.layouts.conversation import Message
from datamodules.tokens.template import load_template
from errors import UserError
from tests.stand_ins.chat_templates import chat_tokenizer


def test_prompts_are_the_non_empty_lines_of_a_file_or_of_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.txt").write_text("one\n\n  \ntwo\n")
    assert read_prompts(str(tmp_path / "prompts.txt")) == [plain("one"), plain("two")]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"three\n")))
    assert read_prompts("-") == [plain("three")]
    assert read_prompts(None) == []
    odd = "\ufeffa\u2028b\x85c\x0cd\r\ne\n"  # only a line feed ends a prompt, and a byte order mark is no text
    (tmp_path / "odd.txt").write_bytes(odd.encode())
    assert read_prompts(str(tmp_path / "odd.txt")) == [plain("a\u2028b\x85c\x0cd"), plain("e")]
    with pytest.raises(UserError, match=r"--prompts: .*missing.txt' cannot be read"):
        read_prompts(str(tmp_path / "missing.txt"))


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_a_line_of_a_jsonl_file_is_a_conversation(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Su"}, {"type": "text", "text": "re?"}]
    lines = [
        [said("user", "Hi")],
        [said("developer", "Be brief."), said("user", "Hi"), said("assistant", "Oh", reasoning_content="Hm"),
         said("user", parts)],
    ]  # fmt: skip
    file = tmp_path / "chats.jsonl"
    file.write_text("\n\n".join(json.dumps({"messages": messages}) for messages in lines))
    assert read_prompts(str(file)) == [
        plain("Hi"),
        (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Oh", "Hm"),
         Message("user", "Sure?")),
    ]  # fmt: skip


def test_an_instruction_is_a_prompt_that_may_have_several_lines(tmp_path: Path) -> None:
    rows = [{"instruction": "Solve:\nx + 5 = 12", "response": "7", "id": 3}, {"instruction": "Hi", "messages": None}]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert read_prompts(str(file)) == [plain("Solve:\nx + 5 = 12"), plain("Hi")]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_earlier_reasoning_is_found_as_in_the_rows(field: str, tmp_path: Path) -> None:
    turns = [said("system", None), said("User", "Hi"), said("assistant", "Oh", **{field: "Hm"}), said("user", "Sure?")]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": turns}))
    (prompt,) = read_prompts(str(tmp_path / "chats.jsonl"))
    assert prompt == (Message("user", "Hi"), Message("assistant", "Oh", "Hm"), Message("user", "Sure?"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ('["Hi"]', "it has no messages and no instruction"),
        ('{"messages": []}', "it has no messages and no instruction"),
        ('{"instruction": ["a"]}', "its instruction is not a text"),
        ('{"instruction": " "}', "the last message is empty"),
        ('{"instruction": "a", "input": "b"}', "it has 'input' beside its instruction"),
        ('{"instruction": "a", "system": "b"}', "it has 'system' beside its instruction"),
        ('{"instruction": "a", "messages": [{"role": "user", "content": "b"}]}', "it has 'messages' beside its inst"),
        ('{"messages": [3]}', "a message is neither a text nor a mapping"),
        ('{"messages": [{"role": "tool", "content": "1"}]}', "tool calls"),
        ('{"messages": [{"role": "user", "content": 1}]}', "a message of user is not a text"),
        ('{"messages": [{"role": "user", "content": [{"type": "image"}]}]}', "content of type 'image'"),
        ('{"messages": [{"role": "user", "content": "a"}], "system": "b"}', "it has 'system' beside its messages"),
        ('{"messages": [{"role": "user", "content": "a"}], "tools": [1]}', "it has 'tools' beside its messages"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "not valid UTF-8"),
        ('{"messages": [{"role": "user", "content": " "}]}', "the last message is empty"),
        ('{"messages": [{"role": "system", "content": "a"}]}', "do not alternate"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}', "do not alternate"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}', "not the user's"),
    ],
)
def test_a_line_that_is_no_conversation_is_named(line: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_text(f'{{"messages": [{{"role": "user", "content": "Hi"}}]}}\n{line}\n')
    with pytest.raises(UserError, match=r"line 2 is no conversation") as found:
        read_prompts(str(tmp_path / "chats.jsonl"))
    assert problem in str(found.value)


def test_a_conversation_is_asked_as_in_training_and_by_a_client() -> None:
    tokenizer = chat_tokenizer("qwen2.5")
    template = load_template("chat", "Be kind.", tokenizer)
    answer = "<think>\nHm. So 4.\n</think>\n\n4"
    prompt = (Message("user", "2 + 2?"), Message("assistant", answer), Message("user", "Sure?"))
    messages = [said(one.role, one.text) for one in prompt]
    ids = tokenizer.full.apply_chat_template(
        messages, chat_template=template.chat_template, add_generation_prompt=True, return_dict=False
    )
    assert tokenizer.encode_prompts([segments(1, prompt, template)])[0] == list(ids)
    assert segments(1, plain("Hi"), template) == template.prompt("Hi")


def test_a_template_without_a_place_for_a_message_is_one_line() -> None:
    template = load_template("{{ messages[-1].content }}:", None, chat_tokenizer("qwen1.5"))
    prompt = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    with pytest.raises(UserError, match=r"'prompt 7' cannot be asked: data\.template omits earlier messages"):
        segments(7, prompt, template)
    with pytest.raises(UserError, match="omits the system prompt"):
        segments(1, (Message("system", "a"), *plain("b")), template)


def test_a_pipe_a_device_and_an_endless_stream_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe without a writer would wait for ever, and /dev/zero would fill the memory."""
    os.mkfifo(tmp_path / "pipe")
    for name in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(UserError, match=r"is a pipe or a device\. Give a file, or - for standard input"):
            read_prompts(name)
    monkeypatch.setattr("commands.prompts.LARGEST", 5)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"123456")))
    with pytest.raises(UserError, match="has more than 5 bytes"):
        read_prompts("-")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="standard input is closed"):
        read_prompts("-")
