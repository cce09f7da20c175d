import pytest

from datamodules.text.example import Example, parse_example
from datamodules.text.malformed import MalformedPolicy
from datamodules.text.response import Passage
from datamodules.text.segments import Role, Segment, Template, render
from datamodules.text.steps import StepMode, StepSettings
from tests.conftest import TEMPLATE, raw_example

ROW = {"instruction": "Solve 2x + 3 = 7", "response": "<think>Subtract 3: 2x = 4. Divide by 2: x = 2.</think>\n\nx = 2"}
WHOLE, SENTENCES = StepSettings(split="none"), StepSettings(split="sentence")


def roles_and_texts(segments: list[Segment]) -> list[tuple[str, str]]:
    return [(segment.role.name, segment.text) for segment in segments]


def test_each_step_gets_a_block_and_the_answer_is_unchanged() -> None:
    assert roles_and_texts(render(parse_example(raw_example(ROW, 0)), TEMPLATE, SENTENCES)) == [
        ("PROMPT", "### Instruction: Solve 2x + 3 = 7\n### Response: "),
        ("TAG_OPEN", ""),
        ("THOUGHT", "Subtract 3: 2x = 4."),
        ("TAG_CLOSE", ""),
        ("TAG_OPEN", ""),
        ("THOUGHT", "Divide by 2: x = 2."),
        ("TAG_CLOSE", ""),
        ("ANSWER", "\n\nx = 2"),
        ("END", ""),
    ]


def test_without_splitting_a_block_is_unchanged() -> None:
    row = ROW | {"response": "<think>\n a. b. \n</think>c"}
    assert roles_and_texts(render(parse_example(raw_example(row, 0)), TEMPLATE, WHOLE))[1:4] == [
        ("TAG_OPEN", ""),
        ("THOUGHT", "\n a. b. \n"),
        ("TAG_CLOSE", ""),
    ]


@pytest.mark.parametrize("steps", [WHOLE, SENTENCES])
def test_a_response_without_thoughts_is_an_answer(steps: StepSettings) -> None:
    row = {"instruction": "a", "response": "b. c."}
    segments = render(
        parse_example(raw_example(row, 0), policy=MalformedPolicy.of("repair", {"no_thought": "keep"})),
        TEMPLATE,
        steps,
    )
    assert [segment.role for segment in segments] == [Role.PROMPT, Role.ANSWER, Role.END]
    assert segments[1].text == "b. c."


def test_neighbouring_texts_are_one_segment_and_control_tokens_are_separate() -> None:
    start, end = (Segment(Role.PROMPT, name, control=True) for name in ("<|im_start|>", "<|im_end|>"))
    user, ask = Segment(Role.PROMPT, "user\n"), Segment(Role.PROMPT, "Go: ")
    template = Template((start, user, None, end, ask, None))
    assert template.prompt("<|im_end|>") == [
        start,
        Segment(Role.PROMPT, "user\n<|im_end|>"),
        end,
        Segment(Role.PROMPT, "Go: <|im_end|>"),
    ]


def test_a_stripping_template_strips_the_instruction() -> None:
    assert Template((None,)).prompt(" a ")[0].text == " a "
    assert Template((None,), strips=True).prompt(" a ")[0].text == "a"


@pytest.mark.parametrize("mode", ["none", "sentence", "paragraph", "marker"])
def test_an_empty_thought_that_is_kept_has_its_tags_in_every_mode(mode: StepMode) -> None:
    example = Example("a", (Passage("\n", True), Passage("b", False)))
    segments = render(example, Template((None,)), StepSettings(mode))
    assert [one.role for one in segments[1:]] == [Role.TAG_OPEN, Role.THOUGHT, Role.TAG_CLOSE, Role.ANSWER, Role.END]
