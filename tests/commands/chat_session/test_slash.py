"""The commands of a chat, without a terminal."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from commands.chat_session.slash import COMMANDS, handle
from commands.chat_session.speaker import Answered
from commands.prompts import conversation
from errors import UserError
from lightning_modules.generation.decoder import Decoder
from lightning_modules.generation.decoding import Decoding
from lightning_modules.generation.generate import generate
from tests.commands.chat_session.conftest import THINKS, MakeChat, shown


def test_an_answer_is_that_of_generate_and_its_thoughts_are_numbered(make_chat: MakeChat) -> None:
    chat = make_chat()
    handle(chat, "Solve x + 5 = 12")
    (answered,) = chat.turns[0].answers
    speaker = chat.tuned
    decoding = Decoding.of(speaker.tokenizer, None, THINKS)
    request = speaker.request(chat.messages("Solve x + 5 = 12", 0), THINKS, 1)._replace(decoding=None)
    ((_, response),) = generate(speaker.engine.net, speaker.tokenizer, [request], decoding)
    assert response.thoughts and response.answer.strip()
    assert answered.answer == response.answer.strip()
    assert [one.text for one in answered.thoughts] == [one.strip() for one in response.thoughts]
    assert (answered.tokens, answered.ended_by) == (response.tokens, response.ended_by)
    assert sum(one.tokens for one in answered.thoughts) == response.thinking_tokens
    assert answered.text == response.text
    said = shown(chat)
    for number, thought in enumerate(answered.thoughts, 1):
        assert f"{number}. {thought.text} ({thought.tokens} tokens, {thought.seconds:.1f} s)\n" in said
    assert f"\n{answered.answer}\n({answered.tokens} tokens, " in said


def test_on_a_terminal_thoughts_are_dim_and_the_answer_bright(make_chat: MakeChat) -> None:
    chat = make_chat(terminal=True)
    handle(chat, "Hi")
    said = shown(chat)
    assert re.search(r"\x1b\[2m1\. ", said) and re.search(r"\x1b\[1m\S", said)


def test_a_folded_thought_is_one_line(make_chat: MakeChat) -> None:
    chat = make_chat()
    handle(chat, "/fold")
    assert "folded" in shown(chat)
    handle(chat, "Hi")
    (answered,) = chat.turns[0].answers
    lines = shown(chat).splitlines()
    assert [line[:3] for line in lines[: len(answered.thoughts)]] == ["1. ", "2. "][: len(answered.thoughts)]
    assert all(line.endswith(" s)") for line in lines[: len(answered.thoughts)])
    handle(chat, "/fold")
    assert answered.thoughts[0].text in shown(chat), "the last answer is shown once more, in full"


def test_thinking_is_switched_and_limited(make_chat: MakeChat) -> None:
    chat = make_chat()
    handle(chat, "/think off")
    handle(chat, "Hi")
    assert not chat.turns[0].answers[0].thoughts
    handle(chat, "/think 3")
    assert (chat.settings.thinking, chat.settings.thinking_budget) == (True, 3)
    handle(chat, "Hi")
    assert 0 < sum(one.tokens for one in chat.turns[1].answers[0].thoughts) <= 3
    handle(chat, "/think on")
    assert chat.settings == THINKS
    for wrong in ("/think", "/think much", "/think -1"):
        with pytest.raises(UserError, match="/think"):
            handle(chat, wrong)


def test_again_is_another_sample_and_says_so(make_chat: MakeChat) -> None:
    chat = make_chat()
    with pytest.raises(UserError, match="needs a question"):
        handle(chat, "/again")
    handle(chat, "Hi")
    first = chat.turns[0].answers[0].text
    shown(chat)
    handle(chat, "/again")
    assert "sampled at temperature 0.7" in shown(chat)
    second = chat.turns[0].answers[0].text
    handle(chat, "/again")
    assert len({first, second, chat.turns[0].answers[0].text}) > 1 and len(chat.turns) == 1


def test_a_vote_shows_each_answer_and_the_winner(make_chat: MakeChat, monkeypatch: pytest.MonkeyPatch) -> None:
    chat, answers = make_chat(), iter(["x = 8", "x = 7", "7", "cut"])
    handle(chat, "Hi")

    def answer(self: Any, request: Any, answered: Answered) -> Any:
        answered.answer = answered.text = next(answers)
        answered.finished, answered.ended_by = answered.answer != "cut", "end"
        yield from ()

    monkeypatch.setattr(type(chat.tuned), "answer", answer)
    shown(chat)
    handle(chat, "/vote 4")
    said = shown(chat)
    assert "1. x = 8\n2. x = 7\n3. 7\n4. cut\n50% of 4 answers:\nx = 7\n" in said
    assert chat.turns[0].answers[0].answer == "x = 7"
    for wrong in ("/vote", "/vote 1", "/vote 65", "/vote x"):
        with pytest.raises(UserError, match="/vote"):
            handle(chat, wrong)


def test_the_base_answers_beside_the_tuned_model(make_chat: MakeChat) -> None:
    chat = make_chat()
    handle(chat, "/base")
    handle(chat, "Hi")
    tuned, base = chat.turns[0].answers
    assert (tuned.speaker, base.speaker) == ("tuned", "base") and tuned.text != base.text
    assert re.search(r"tuned:\n.*base:\n", shown(chat), re.DOTALL)
    handle(chat, "/base")
    handle(chat, "Hi")
    assert len(chat.turns[1].answers) == 1


@pytest.mark.parametrize("several", [True, False])
def test_earlier_turns_are_asked_with_a_question_if_the_model_knows_them(several: bool, make_chat: MakeChat) -> None:
    chat = make_chat(several=several)
    handle(chat, "First")
    chat.turns[0].answers[0].finished = True
    text = chat.turns[0].answers[0].text
    expected = ["First", text, "Second"] if several else ["Second"]
    assert [one.text for one in chat.messages("Second")] == expected
    handle(chat, "Second")
    assert [one.text for one in chat.messages("Second", -1)] == expected, "/again asks what was asked"
    handle(chat, "/new")
    assert [one.text for one in chat.messages("Third")] == ["Third"]


def test_a_system_message_begins_a_new_conversation(make_chat: MakeChat) -> None:
    chat = make_chat(several=True)
    handle(chat, "First")
    handle(chat, "/system Be brief.")
    assert [(one.role, one.text) for one in chat.messages("Hi")] == [("system", "Be brief."), ("user", "Hi")]
    handle(chat, "Hi")
    handle(chat, "/system")
    assert chat.system is None and not chat.turns
    without = replace(chat.tuned.template, no_system="data.template has no place for it")
    chat.tuned = replace(chat.tuned, template=without)
    with pytest.raises(UserError, match=r"/system: data\.template has no place for it"):
        handle(chat, "/system Be brief.")


@pytest.mark.parametrize("several", [True, False])
def test_what_is_saved_can_be_trained_on(several: bool, make_chat: MakeChat, tmp_path: Path) -> None:
    chat, file = make_chat(several=several), tmp_path / "chat.jsonl"
    with pytest.raises(UserError, match="no answer came to its end"):
        handle(chat, f"/save {file}")
    for question in ("First <think>", "Second", "Third"):
        handle(chat, question)
        chat.turns[-1].answers[0].finished = question != "Second"
    shown(chat)
    handle(chat, f"/save {file}")
    assert "2 answers are in" in (said := shown(chat)) and "1 without an end are not" in said
    saved = [json.loads(line)["messages"] for line in file.read_text().splitlines()]
    assert [len(one) for one in saved] == ([4] if several else [2, 2])
    for messages in saved:
        assert messages[-1]["content"] in [turn.answers[0].text for turn in chat.turns]
        assert conversation({"messages": [*messages, {"role": "user", "content": "x"}]})
    with pytest.raises(UserError, match="exists"):
        handle(chat, f"/save {file}")
    for wrong in ("", f"{file}/below.jsonl", "a\0b", "x" * 5_000):
        with pytest.raises(UserError, match="/save"):
            handle(chat, f"/save {wrong}")


def test_an_interrupt_stops_the_answer_and_not_the_chat(make_chat: MakeChat, monkeypatch: pytest.MonkeyPatch) -> None:
    chat, step, steps = make_chat(), Decoder.step, [0]

    def slowly(self: Decoder, tokens: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        steps[0] += 1
        return step(self, tokens)

    monkeypatch.setattr(Decoder, "step", slowly)
    write, written = chat.view._write, []

    def interrupted(text: str, style: str) -> None:
        write(text, style)
        written.append(text)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(chat.view, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        handle(chat, "Hi")
    until = time.monotonic() + 5
    while chat.tuned.engine.load != (0, 0):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert steps[0] < 12 and chat.turns[0].answers[0].ended_by == "stopped"
    handle(chat, "Hi")
    assert chat.turns[1].answers[0].ended_by != "stopped"
    assert len(chat.messages("x")) == 1


def test_a_prompt_beyond_the_context_is_refused_with_its_number(make_chat: MakeChat) -> None:
    chat = make_chat()
    with pytest.raises(UserError, match=r"has 2,\d\d\d tokens with the turns before it, and the context 400"):
        handle(chat, "word " * 1_000)
    assert not chat.turns


def test_other_lines(make_chat: MakeChat) -> None:
    chat = make_chat()
    handle(chat, "  ")
    assert not chat.turns
    with pytest.raises(UserError, match=r"/thinl.*Did you mean /think\?"):
        handle(chat, "/thinl")
    with pytest.raises(UserError, match="UTF-8"):
        handle(chat, "a\udc80")
    handle(chat, "/help")
    said = shown(chat)
    assert all(name in said for name in COMMANDS)
    handle(chat, "/quit")
    assert chat.ended
    handle(chat, "/1 is a question?")
    assert chat.turns
