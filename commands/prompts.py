"""The prompts of generate: texts, and conversations from a file of JSON lines."""

import json
import sys
from pathlib import Path
from typing import Any

from datamodules.layouts.columns import INPUT, SYSTEMS
from datamodules.layouts.conversation import Message
from datamodules.layouts.messages import read_conversation
from datamodules.text.malformed import MalformedResponse
from datamodules.text.segments import Segment, Template, ask
from errors import UserError
from hub import what_is_there

Conversation = tuple[Message, ...]  # the last message is the user's
LARGEST = 1 << 28  # bytes of a file of prompts: no endless stream fills the memory
FIX = (
    'write {"instruction": "Solve x + 5 = 12"} or {"messages": [{"role": "user", "content": "Solve x + 5 = 12"}]} in '
    "each line"
)


def plain(prompt: str) -> Conversation:
    """Return the conversation of one message."""
    return (Message("user", prompt),)


def read_prompts(name: str | None) -> list[Conversation]:
    """Return the prompts of a file: its non-empty lines, or the `messages` or `instruction` of each line of a .jsonl
    file; - is standard input. Raises UserError for a file that cannot be read, and names the line of a conversation
    that is none."""
    if name is None:
        return []
    try:
        data = _read(name)
        if len(data) > LARGEST:
            raise UserError("--prompts", name, f"has more than {LARGEST:,} bytes", "split it")
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or standard input is closed
        fix, reason = "give a text file with one prompt per line", getattr(error, "strerror", None) or error
        raise UserError("--prompts", name, f"cannot be read ({reason})", fix) from error
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not name.endswith(".jsonl"):
        return [plain(line) for _, line in lines]
    prompts = []
    for number, line in lines:
        try:
            prompts.append(conversation(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise UserError("--prompts", name, f"line {number} is no conversation ({error})", FIX) from error
    return prompts


def all_prompts(given: Any) -> list[Conversation]:
    """Return the prompts of --prompt and --prompts. Raises UserError if there is none."""
    prompts = [*map(plain, given.prompt), *read_prompts(given.prompts)]
    if not prompts:
        raise UserError("--prompt", None, "there is no prompt", 'give --prompt "Solve x + 5 = 12", or --prompts FILE')
    return prompts


def _read(name: str) -> bytes:
    """Return the first LARGEST bytes of a file or of standard input, and one more if there are more."""
    if name == "-":
        if sys.stdin is None:
            raise ValueError("standard input is closed")
        return sys.stdin.buffer.read(LARGEST + 1)
    path = Path(name).expanduser()
    if path.exists() and not path.is_file():  # a pipe without a writer would wait for ever
        raise UserError("--prompts", name, what_is_there(name), "give a file, or - for standard input")
    with path.open("rb") as file:
        return file.read(LARGEST + 1)


def segments(number: int, prompt: Conversation, template: Template) -> list[Segment]:
    """Return the segments of prompt `number`. Raises UserError if the template has no place for its messages."""
    try:
        return ask(prompt, template)
    except MalformedResponse as error:
        raise UserError("--prompts", f"prompt {number}", f"cannot be asked: {error}", "change its messages") from error


def conversation(value: Any) -> Conversation:
    """Return the `messages` of an object, read as those of a row, or its `instruction`.

    Raises ValueError if there are none, or their order or a text of them is wrong.
    """
    value = value if isinstance(value, dict) else {}
    given, instruction = value.get("messages"), value.get("instruction")
    if instruction is not None:
        if not isinstance(instruction, str):
            raise ValueError("its instruction is not a text")
        given = [{"role": "user", "content": instruction}]
        if lost := next((name for name in ("messages", INPUT) if value.get(name)), None):
            raise ValueError(f"it has {lost!r} beside its instruction")
    if not isinstance(given, list) or not given:
        raise ValueError("it has no messages and no instruction")
    if lost := next((name for name in (*SYSTEMS, "tools") if value.get(name)), None):
        raise ValueError(f"it has {lost!r} beside its {'messages' if instruction is None else 'instruction'}")
    messages = tuple(read_conversation(given, None, ()))
    if messages[0] == Message("system", None):
        messages = messages[1:]
    speakers = [message.role for message in messages]
    speakers = speakers[speakers[:1] == ["system"] :]
    if speakers != (["user", "assistant"] * len(speakers))[: len(speakers)] or speakers[-1:] != ["user"]:
        raise ValueError("user and assistant do not alternate, or the last message is not the user's")
    for message in messages:
        _check(message)
    if not messages[-1].text.strip():
        raise ValueError("the last message is empty")
    return messages


def _check(message: Message) -> None:
    if not isinstance(message.text, str):
        raise ValueError(f"a message of {message.role} is not a text")
    try:
        f"{message.text}{message.reasoning}".encode()
    except UnicodeEncodeError:
        raise ValueError(f"a message of {message.role} is not valid UTF-8") from None
