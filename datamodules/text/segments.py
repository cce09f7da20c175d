"""Example -> Segments: the text of one training row in segments, each with a role.

    PROMPT "### Instruction: Solve 2x = 4\\n### Response: "   TAG_OPEN   THOUGHT "x = 2."   TAG_CLOSE   ANSWER "2"   END

Each segment is tokenized by itself and tags are inserted as ids. So the supervised tokens are exact by construction,
the prompt has the same ids in training and in generation, and a tag in the user's text stays text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

from datamodules.layouts.conversation import Message
from datamodules.text.chat_rendering import cut_at_names, guarded, rendered, unused_characters
from datamodules.text.chat_template import HistoryReasoning, chat_template
from datamodules.text.example import Example, Turns, parse_history
from datamodules.text.exported_template import exported_template
from datamodules.text.go_template import go_template
from datamodules.text.malformed import MalformedPolicy, MalformedResponse
from datamodules.text.response import Passage
from datamodules.text.steps import StepSettings, split_steps
from datamodules.text.tags import Tags
from datamodules.text.turn_texts import TurnTexts, turn_texts


class Role(IntEnum):
    """The role of a token. Every role except PROMPT is supervised."""

    PROMPT = 0
    TAG_OPEN = 1
    THOUGHT = 2
    TAG_CLOSE = 3
    ANSWER = 4
    END = 5


class Segment(NamedTuple):  # cheaper than a dataclass: there are millions
    """A text with one role."""

    role: Role
    text: str = ""  # empty for a role that is one id: the tags and the end
    control: bool = False  # the text is the name of one token of the template, such as <|im_start|>


WHOLE = StepSettings(split="none")
TAG_OPEN, TAG_CLOSE, END = Segment(Role.TAG_OPEN), Segment(Role.TAG_CLOSE), Segment(Role.END)


Answered = tuple[str, Sequence[Segment]]  # an earlier message of the user, and the segments of the answer to it


@dataclass(frozen=True)
class Template:
    """The text around an instruction. `datamodules.tokens.template` makes it from the settings.

    Attributes:
        parts: The PROMPT segments of the template, with None in place of the instruction.
        strips: Whether the template strips white space around an instruction.
        chat: The Jinja text of a chat template, None for other templates.
        system: The system prompt of a chat template.
        opening: The opening tag at the end of the model's own template, which `parts` omits: the model learns to
            write it.
        begin: Number of first parts that stand once, before the whole conversation.
        system_parts: The parts of a prompt with a system prompt, SYSTEM_MARK in its place; empty if there is no place,
            and for a chat template.
        tags: The tags around a thought.
        history_reasoning: What happens to the reasoning of earlier answers.
        names: The texts that the model reads as one token, control tokens and tags.
        variables: The values that a chat template may name, like `eos_token`.
        no_system: Why a row with a system prompt of its own cannot be rendered; empty if it can.
        no_history: Why a row with several turns cannot be rendered; empty if it can.
        drops_reasoning: Whether a prompt omits the reasoning of earlier answers.
    """

    parts: tuple[Segment | None, ...]
    strips: bool = False
    chat: str | None = None
    system: str | None = None
    opening: str = ""
    begin: int = 0
    system_parts: tuple[Segment | None, ...] = ()
    tags: Tags = Tags()  # noqa: RUF009 (frozen)
    history_reasoning: HistoryReasoning = "template"
    names: tuple[str, ...] = field(default=(), compare=False)
    variables: Mapping[str, Any] = field(default_factory=dict, compare=False)
    no_system: str = field(default="", compare=False)
    no_history: str = field(default="", compare=False)
    drops_reasoning: bool = field(default=False, compare=False)

    def prompt(self, instruction: str) -> list[Segment]:
        """Return the segments of a prompt. Neighbouring texts are one segment, because a client that
        renders the template tokenizes them as one text."""
        instruction = instruction.strip() if self.strips else instruction
        segments: list[Segment] = []
        for part in self.parts:
            segment = Segment(Role.PROMPT, instruction) if part is None else part
            if segments and not segment.control and not segments[-1].control:
                segment = Segment(Role.PROMPT, segments.pop().text + segment.text)
            segments.append(segment)
        return segments

    @cached_property
    def chat_template(self) -> str:
        """The Jinja text that renders conversations."""
        return chat_template(self)

    @cached_property
    def exported(self) -> str:
        """The Jinja text of an exported folder."""
        return exported_template(self)

    @cached_property
    def turn_texts(self) -> TurnTexts:
        """The texts around messages in an exported folder. Raises MalformedResponse if they are not always the same."""
        return turn_texts(lambda messages: rendered(self.exported, messages, self.variables), self.tags)

    def go_template(self, begin: str = "") -> str:
        """Return the template in Go's template language, without `begin`. Raises MalformedResponse if it cannot be
        written in it."""
        return go_template(self.turn_texts, self.tags, begin)

    def conversation(self, history: Sequence[Answered], instruction: str, system: str | None = None) -> list[Segment]:
        """Return the segments of a prompt with earlier turns, oldest first, and with a system prompt of its own.

        Its ids equal those of transformers' `apply_chat_template`, but the names of tokens in the texts stay text.
        Raises MalformedResponse if the template has no place for them.
        """
        texts = [system or "", instruction, *(question for question, _ in history)]
        (guard,) = unused_characters([*texts, *(one.text for _, answer in history for one in answer)], 1)
        turns = [(question, self._written(answer, guard)) for question, answer in history]
        text = self._rendered(turns, instruction, system, guard)
        return self._cut(text, guard)

    def around_answers(self, questions: Sequence[str], system: str | None = None) -> list[list[Segment]]:
        """Return the segments before each answer. Those after an answer begin with the token that ends its turn, which
        has the role END if the model ends a response with it. Raises MalformedResponse as `conversation`."""
        guard, place = unused_characters([system or "", *questions], 2)
        texts = self._rendered([(question, place) for question in questions[:-1]], questions[-1], system, guard)
        around = [self._cut(text, guard) for text in texts.split(place)]
        if len(around) != len(questions):
            raise MalformedResponse("data.template omits or repeats an earlier answer")
        for prompt in around[1:]:
            if prompt[:1] == [Segment(Role.PROMPT, str(self.variables.get("eos_token")), control=True)]:
                prompt[0] = END
        return around

    def _rendered(self, turns: Iterable[tuple[str, str]], instruction: str, system: str | None, guard: str) -> str:
        messages = [{"role": "system", "content": guarded(system, self.names, guard)}] if system is not None else []
        for question, answer in turns:
            messages.append({"role": "user", "content": guarded(question, self.names, guard)})
            messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": guarded(instruction, self.names, guard)})
        return rendered(self.chat_template, messages, self.variables)

    def _written(self, answer: Sequence[Segment], guard: str) -> str:
        """An earlier answer as a client sends it back, with its tags."""
        tags = {Role.TAG_OPEN: self.tags.open, Role.TAG_CLOSE: self.tags.close}
        return "".join(tags.get(one.role) or guarded(one.text, self.names, guard) for one in answer)

    def _cut(self, text: str, guard: str) -> list[Segment]:
        return [
            Segment(Role.PROMPT, part.replace(guard, ""), control) for part, control in cut_at_names(text, self.names)
        ]


def answer_segments(passages: Iterable[Passage], steps: StepSettings) -> list[Segment]:
    """Return a tagged segment for each step of a thought, and the texts around the thoughts."""
    segments: list[Segment] = []
    for text, thought in passages:
        if thought:
            for step in split_steps(text, steps) or [text]:  # a kept empty thought is one step
                segments += (TAG_OPEN, Segment(Role.THOUGHT, step), TAG_CLOSE)
        else:
            segments.append(Segment(Role.ANSWER, text))
    return segments


def render(example: Example, template: Template, steps: StepSettings, turns: Turns = "last") -> list[Segment]:
    """Return the segments of one row: the prompt, the answer and the end. With `turns` all every answer is supervised,
    else the earlier ones are a part of the prompt.

    Raises MalformedResponse if the template has no place for the messages of the row.
    """
    answer = answer_segments(example.passages, steps)
    if example.system is None and not example.history:
        return [*template.prompt(example.instruction), *answer, END]
    _check_place(template, example.system, bool(example.history))
    history = [(turn.instruction, answer_segments(turn.passages, steps)) for turn in example.history]
    if turns != "all":
        return [*template.conversation(history, example.instruction, example.system), *answer, END]
    questions = [*(question for question, _ in history), example.instruction]
    answers = [*(earlier for _, earlier in history), answer]
    segments: list[Segment] = []
    for prompt, written in zip(template.around_answers(questions, example.system), answers, strict=True):
        segments += [*prompt, *written]
    return [*segments, END]


def ask(messages: Sequence[Message], template: Template) -> list[Segment]:
    """Return the segments of the prompt that asks for the next answer. The last message is the user's; earlier answers
    are texts of the model, with its tags.

    Raises MalformedResponse if a message is no text, or the template has no place for the messages.
    """
    system, turns, _ = parse_history(messages[:-1], template.tags, MalformedPolicy.of("keep"))
    if not turns and system is None:
        return template.prompt(messages[-1].text)
    _check_place(template, system, bool(turns))
    history = [(turn.instruction, answer_segments(turn.passages, WHOLE)) for turn in turns]
    return template.conversation(history, messages[-1].text, system)


def _check_place(template: Template, system: str | None, history: bool) -> None:
    if reason := (system is not None and template.no_system) or (history and template.no_history):
        raise MalformedResponse(reason)
