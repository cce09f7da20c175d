"""The texts around the messages of a conversation: what a program needs that renders them without Jinja.

A chat template is a program. It is run on conversations with a mark in place of each text, and the texts around the
marks are compared: they must be the same in each turn, and the texts put together must give what the template gives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from datamodules.text.malformed import MalformedResponse
from datamodules.text.tags import Tags

Render = Callable[[Sequence[Mapping[str, str]]], str]  # messages that end with a question -> the text of the prompt
SYSTEM, THOUGHT = "\ue010\ue011", "\ue012\ue013"  # private-use characters, in no template and in no vocabulary
QUESTIONS, ANSWERS = ("\ue014\ue015", "\ue016\ue017", "\ue018\ue019"), ("\ue01a\ue01b", "\ue01c\ue01d")


@dataclass(frozen=True)
class Turns:
    """The texts around questions and answers. SYSTEM in them is the place of the system message."""

    before: str  # the first question
    ask: str  # after the last question
    answer: str = ""  # between an earlier question and its answer
    next: str = ""  # between an answer and the next question


@dataclass(frozen=True)
class TurnTexts:
    """The texts around messages.

    Attributes:
        turns: In a conversation without a system message.
        with_system: In one with a system message.
        around_thought: The texts before and after the reasoning of an earlier answer; None if it is omitted.
        several: Whether there is a place for earlier turns.
    """

    turns: Turns
    with_system: Turns
    around_thought: tuple[str, str] | None
    several: bool

    def prompt(self, system: str, turns: Sequence[tuple[str, str, str]], question: str) -> str:
        """Return the text of a prompt. An earlier turn is its question, the reasoning and the answer."""
        around = self.with_system if system else self.turns
        before, ask, between, following = (
            text.replace(SYSTEM, system) for text in (around.before, around.ask, around.answer, around.next)
        )
        text = before
        for asked, thought, answer in turns:
            text += asked + between
            if thought and self.around_thought:
                text += self.around_thought[0] + thought + self.around_thought[1]
            text += answer + following
        return text + question + ask


def turn_texts(render: Render, tags: Tags) -> TurnTexts:
    """Return the texts around messages that a template gives.

    Raises MalformedResponse for a template that fails for a question or a system message, and for one whose texts
    depend on more than the place of a message.
    """
    try:
        texts = TurnTexts(_turns(render, ""), _turns(render, SYSTEM), _around_thought(render, tags), several=True)
        _check(texts, render, 3)
    except MalformedResponse:  # no place for earlier turns, or texts that differ from turn to turn
        texts = TurnTexts(_single(render, ""), _single(render, SYSTEM), None, several=False)
        _check(texts, render, 1)
    return texts


def _messages(system: str, turns: Sequence[tuple[str, str, str]], question: str) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": system}] if system else []
    for asked, thought, answer in turns:
        messages.append({"role": "user", "content": asked})
        messages.append({"role": "assistant", "content": answer})
        if thought:
            messages[-1]["reasoning_content"] = thought
    return [*messages, {"role": "user", "content": question}]


def _split(text: str, *marks: str) -> list[str]:
    """The texts around marks, each of which must be there once, in this order."""
    parts = []
    for mark in marks:
        part, found, text = text.partition(mark)
        if not found:
            raise MalformedResponse("the template omits a message, or changes the order of messages")
        parts.append(part)
    return [*parts, text]


def _single(render: Render, system: str) -> Turns:
    before, ask = _split(render(_messages(system, [], QUESTIONS[0])), QUESTIONS[0])
    return _with_place(Turns(before, ask), system)


def _turns(render: Render, system: str) -> Turns:
    """The texts of a conversation of two turns."""
    text = render(_messages(system, [(QUESTIONS[0], "", ANSWERS[0])], QUESTIONS[1]))
    before, answer, after, ask = _split(text, QUESTIONS[0], ANSWERS[0], QUESTIONS[1])
    return _with_place(Turns(before, ask, answer, after), system)


def _with_place(turns: Turns, system: str) -> Turns:
    if system not in turns.before:
        raise MalformedResponse("the template omits a system message, or puts it after the first question")
    return turns


def _around_thought(render: Render, tags: Tags) -> tuple[str, str] | None:
    plain = render(_messages("", [(QUESTIONS[0], "", ANSWERS[0])], QUESTIONS[1]))
    text = render(_messages("", [(QUESTIONS[0], THOUGHT, ANSWERS[0])], QUESTIONS[1]))
    if text == plain:
        return None
    _, answer, *_ = _split(plain, QUESTIONS[0], ANSWERS[0])
    _, opening, closing, _ = _split(text, QUESTIONS[0], THOUGHT, ANSWERS[0])
    opening = opening.removeprefix(answer)
    if (opening.strip(), closing.strip()) != (tags.open, tags.close):
        raise MalformedResponse("the template writes reasoning without the tags of this model")
    return opening, closing


def _check(texts: TurnTexts, render: Render, most: int) -> None:
    """Compare the texts put together with what the template gives. `most`: questions in a conversation."""
    for system in ("", SYSTEM):
        for count in range(most):
            for thought in {"", THOUGHT if texts.around_thought else ""}:
                turns = [(QUESTIONS[k], thought, ANSWERS[k]) for k in range(count)]
                if texts.prompt(system, turns, QUESTIONS[count]) != render(_messages(system, turns, QUESTIONS[count])):
                    raise MalformedResponse("the template gives other texts around a message in another turn")
