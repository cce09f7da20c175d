"""The messages of a conversation, from the containers and names in which data sets keep them.

A conversation is a list of messages, a struct of lists, or either as JSON text. A message has its speaker under `role`
or `from`, its text under `content`, `value` or `text`, and may have reasoning in a field of its own.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datamodules.layouts.columns import looks_like_reasoning, plain
from datamodules.layouts.conversation import Message, Speaker

ROLE_FIELDS, TEXT_FIELDS = ("role", "from", "speaker"), ("content", "value", "text")
SPEAKERS: dict[str, Speaker] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "instruction"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "ai", "response"), "assistant"),
}
TOOLS = {"tool", "function", "ipython", "observation", "environment", "function_call", "tool_call", "tool_response"}
NO_ANSWER = "a message of reasoning that no answer follows"
REASONING_NO_TEXT = "reasoning is not a text"
# Notes on a kept row
GREETING, UNANSWERED = "first messages of the assistant left out", "last message of the user left out"


class NoConversation(ValueError):
    """Raised for a row without a conversation that can be trained. Its text is the reason under which it is counted."""


def read_conversation(value: Any, reasoning: str | None, ignore: Sequence[str]) -> list[Message]:
    """Return the messages of a column as they stand there. `reasoning` is the field of the thoughts; null finds it.

    Raises NoConversation.
    """
    if isinstance(value, str):
        value = _json(value)
    if isinstance(value, Mapping):  # a struct of lists, or one message
        lists = {key: column for key, column in value.items() if isinstance(column, list)}
        if lists and len({len(column) for column in lists.values()}) == 1:
            value = [dict(zip(lists, items, strict=True)) for items in zip(*lists.values(), strict=True)]
        else:
            value = [value]
    if not isinstance(value, list) or not value:
        raise NoConversation("a conversation without messages")
    if all(isinstance(one, str) and one.lstrip().startswith("{") for one in value):  # each message as JSON text
        value = [_json(one) for one in value]
    if all(isinstance(one, str) for one in value):  # the user and the assistant in turn
        return [Message("assistant" if k % 2 else "user", text) for k, text in enumerate(value)]
    return list(_read(value, reasoning, ignore))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise NoConversation("a conversation is text that is not JSON") from None


def _read(turns: Sequence[Any], reasoning: str | None, ignore: Sequence[str]) -> Iterable[Message]:
    waiting: Any = None  # reasoning that is a message of its own, before the answer
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise NoConversation("a message is neither a text nor a mapping")
        if not any(key in turn for key in ROLE_FIELDS):
            turn = {plain(str(key)): value for key, value in turn.items()} | dict(turn)  # Role is role
        name = next((turn[key] for key in ROLE_FIELDS if isinstance(turn.get(key), str) and turn[key]), None)
        if name is None:
            raise NoConversation("a message without a role")
        name = name.strip().lower()
        if name in TOOLS or turn.get("tool_calls") or turn.get("function_call"):
            raise NoConversation("tool calls")
        given = [turn[key] for key in TEXT_FIELDS if turn.get(key) is not None]
        content = next((one for one in given if one not in ("", [])), given[0] if given else None)
        text, thinking = _parts(content)
        if waiting is not None and SPEAKERS.get(name) != "assistant":
            raise NoConversation(NO_ANSWER)
        if looks_like_reasoning(name):
            waiting = text
            continue
        if name not in SPEAKERS:
            raise NoConversation(f"a message of {name[:40]!r}, a role that is not known")
        speaker = SPEAKERS[name]
        if speaker == "assistant":
            found = [one for one in (thinking, waiting, _reasoning(turn, reasoning, ignore)) if one]
            if any(one != found[0] for one in found):
                raise NoConversation("reasoning in several places of an answer")
            yield Message(speaker, text, found[0] if found else None)
        else:
            yield Message(speaker, text)
        waiting = None
    if waiting is not None:
        raise NoConversation(NO_ANSWER)


def _reasoning(turn: Mapping[str, Any], reasoning: str | None, ignore: Sequence[str]) -> Any:
    """The thoughts in a field of a message. Raises NoConversation if two fields hold different ones."""
    names = [reasoning] if reasoning else [key for key in turn if looks_like_reasoning(key) and key not in ignore]
    if other := next((key for key in names if isinstance(turn.get(key), list | Mapping) and turn[key]), None):
        raise NoConversation(f"{REASONING_NO_TEXT} ({other})")
    found = {turn[key] for key in names if isinstance(turn.get(key), str) and turn[key].strip()}
    if len(found) > 1:
        raise NoConversation(f"reasoning in several fields: {', '.join(names)}")
    return found.pop() if found else None


def _parts(content: Any) -> tuple[Any, str | None]:
    """The text of a content that may be a list of parts, and the thoughts among them. Raises NoConversation."""
    if not isinstance(content, list):
        return content, None
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part if isinstance(part, str) else _text(part, kind)
        if text is None:
            if isinstance(kind, str) and any(word in kind for word in ("tool", "function")):
                raise NoConversation("tool calls")
            raise NoConversation(f"content of type {str(kind)[:40]!r}")
        (thoughts if isinstance(kind, str) and looks_like_reasoning(kind) else texts).append(text)
    return "".join(texts), "".join(thoughts) or None


def _text(part: Any, kind: Any) -> str | None:
    """The text of a part; None for an image or another kind of part."""
    if not isinstance(part, Mapping) or not isinstance(kind, str):
        return None
    if kind not in ("text", "input_text", "output_text") and not looks_like_reasoning(kind):
        return None
    return next((part[key] for key in ("text", kind, "content", "value") if isinstance(part.get(key), str)), None)


def well_formed(messages: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """Return an optional system message and then messages of user and assistant in turn, the last one the assistant's,
    with notes on what was left out.

    Raises NoConversation.
    """
    notes: list[str] = []
    system = [message for message in messages[:1] if message.role == "system"]
    turns = list(messages[len(system) :])
    if system and (system[0].text is None or (isinstance(system[0].text, str) and not system[0].text.strip())):
        system = []
    if any(message.role == "system" for message in turns):
        raise NoConversation("a system message inside the conversation")
    while turns and turns[0].role == "assistant":
        notes, turns = [GREETING], turns[1:]
    if turns and turns[-1].role == "user":
        notes, turns = [*notes, UNANSWERED], turns[:-1]
    if not turns:
        raise NoConversation("no answer of the assistant to a message of the user")
    if any(message.role != ("assistant" if k % 2 else "user") for k, message in enumerate(turns)):
        raise NoConversation("two messages of one speaker in a row")
    if any(not isinstance(message.text, str) for message in (*system, *turns)):
        raise NoConversation("a message is not a text")
    return (*system, *turns), tuple(notes)
