"""The commands of a chat: /think, /again, /vote, and so on. Each is a function of the state and the words after it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from commands.chat_session.state import Chat
from commands.ranges import RANGES
from disk import disk_errors, write_file
from errors import UserError, suggest

MOST_VOTES = 64


def think(chat: Chat, words: str) -> None:
    """/think on, off or N: think as on the command line, not at all, or at most N tokens."""
    first = chat.first_settings
    if words == "on":
        settings = replace(chat.settings, thinking=True, thinking_budget=first.thinking_budget)
        settings = replace(settings, min_thinking=first.min_thinking, extend=first.extend)
    elif words == "off":
        settings = replace(chat.settings, thinking=False, min_thinking=0, extend=0)
    elif words.isdecimal() and RANGES["thinking_budget"].problem(int(words)) is None:
        settings = replace(chat.settings, thinking=True, thinking_budget=int(words))
    else:
        raise UserError("/think", words or None, "is not on, off or a number of tokens", "type /think 200")
    settings.check(chat.tuned.tokenizer)
    chat.settings = settings
    budget = "no limit" if settings.thinking_budget is None else f"at most {settings.thinking_budget:,} tokens"
    chat.view.say(f"thinking: {budget if settings.thinking else 'off'}")


def again(chat: Chat, words: str) -> None:
    """/again: answer the last question once more."""
    _require_question(chat, "/again")
    chat.again()


def vote(chat: Chat, words: str) -> None:
    """/vote K: answer the last question K times, and show what most answers say."""
    _require_question(chat, "/vote")
    if not words.isdecimal() or not 2 <= int(words) <= MOST_VOTES:
        raise UserError("/vote", words or None, f"is not a number from 2 to {MOST_VOTES}", "type /vote 5")
    chat.vote(int(words))


def system(chat: Chat, words: str) -> None:
    """/system TEXT: begin anew with a system message; without TEXT, with none."""
    if words and chat.tuned.template.no_system:
        raise UserError("/system", None, chat.tuned.template.no_system, "choose a run whose template has a place")
    chat.system = words or None
    chat.turns.clear()
    chat.view.say(f"system message: {words or 'none'}; a new conversation begins")


def new(chat: Chat, words: str) -> None:
    """/new: forget the conversation."""
    chat.turns.clear()
    chat.view.say("a new conversation begins")


def save(chat: Chat, words: str) -> None:
    """/save FILE: write the answers that came to their end, as JSON lines for training: a conversation in each."""
    if not words:
        raise UserError("/save", None, "has no file", "type /save chat.jsonl")
    if problem := RANGES["to"].problem(words):
        raise UserError("/save", words, problem, RANGES["to"].fix())
    path = Path(words).expanduser()
    if path.exists():
        raise UserError("/save", words, "exists", "give a new file")
    turns = [turn for turn in chat.turns if turn.answers and turn.answers[0].finished]
    if not turns:
        raise UserError("/save", words, "would be empty: no answer came to its end", "ask a question first")
    lines = []
    for conversation in [turns] if chat.several else [[turn] for turn in turns]:
        messages = [{"role": "system", "content": chat.system}] if chat.system is not None else []
        for turn in conversation:
            answer = turn.answers[0].text
            messages += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    with disk_errors("/save", path):
        write_file(path, "".join(lines))
    left = len(chat.turns) - len(turns)
    chat.view.say(f"{len(turns):,} answers are in {path}" + (f", {left:,} without an end are not" if left else ""))


def base(chat: Chat, words: str) -> None:
    """/base: show the answer of the model before its training as well, or not any more."""
    if chat.base is None:
        chat.view.say("loading the base …")
        chat.base = chat.load_base()
    chat.beside_base = not chat.beside_base
    chat.view.say(f"the base answers as well: {'yes' if chat.beside_base else 'no'}")


def fold(chat: Chat, words: str) -> None:
    """/fold: show each thought in one line, or in full again."""
    chat.view.folded = not chat.view.folded
    chat.view.say(f"thoughts are {'folded' if chat.view.folded else 'shown in full'}")
    for answered in chat.turns[-1].answers if chat.turns else []:
        chat.view.show(answered)


def show_help(chat: Chat, words: str) -> None:
    """/help: show the commands."""
    chat.view.say("\n".join(str(one.__doc__) for one in COMMANDS.values()))
    chat.view.say("Ctrl-C stops an answer, Ctrl-D ends the chat")


def leave(chat: Chat, words: str) -> None:
    """/quit: end the chat."""
    chat.ended = True


COMMANDS: dict[str, Callable[[Chat, str], None]] = {
    "/think": think, "/again": again, "/vote": vote, "/system": system, "/new": new, "/save": save, "/base": base,
    "/fold": fold, "/help": show_help, "/quit": leave,
}  # fmt: skip


def handle(chat: Chat, line: str) -> None:
    """Do what a line of the user asks: a command, or a question. Raises UserError for a mistake in it."""
    line = line.strip()
    if not line:
        return
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise UserError("chat", None, "the line is not valid UTF-8", "type it again") from error
    name, _, words = line.partition(" ")
    if name in COMMANDS:
        COMMANDS[name](chat, words.strip())
    elif name.startswith("/") and name[1:].isalpha():
        raise UserError("chat", name, "is no command", suggest(name, COMMANDS, "type /help"))
    else:
        chat.ask(line)


def _require_question(chat: Chat, name: str) -> None:
    if not chat.turns:
        raise UserError(name, None, "needs a question before it", "ask one")
