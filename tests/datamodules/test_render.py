import pytest

from datamodules.render import Role, Segment, Template, render
from datamodules.thoughts import Columns, example
from errors import UserError

TEMPLATE = Template("### Instruction: {instruction}\n### Response: {response}")
ROW = {"instruction": "Solve 2x + 3 = 7", "response": "<think>Subtract 3: 2x = 4. Divide by 2: x = 2.</think>\n\nx = 2"}


def roles_and_texts(segments: list[Segment]) -> list[tuple[str, str]]:
    return [(segment.role.name, segment.text) for segment in segments]


def test_multi_think_makes_one_block_of_each_step_and_leaves_the_answer_alone() -> None:
    assert roles_and_texts(render(example(ROW, Columns(), 0), TEMPLATE, "multi")) == [
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


def test_single_think_keeps_the_block_as_it_is() -> None:
    assert roles_and_texts(render(example(ROW, Columns(), 0), TEMPLATE, "single"))[1:4] == [
        ("TAG_OPEN", ""),
        ("THOUGHT", "Subtract 3: 2x = 4. Divide by 2: x = 2."),
        ("TAG_CLOSE", ""),
    ]


@pytest.mark.parametrize("think", ["single", "multi"])
def test_a_response_without_thoughts_is_an_answer(think: str) -> None:
    segments = render(example({"instruction": "a", "response": "b. c."}, Columns(), 0), TEMPLATE, think)  # type: ignore[arg-type]
    assert [segment.role for segment in segments] == [Role.PROMPT, Role.ANSWER, Role.END]
    assert segments[1].text == "b. c."


def test_the_prompt_is_all_that_stands_before_the_response() -> None:
    assert TEMPLATE.prompt("a {response} b") == "### Instruction: a {response} b\n### Response: "
    assert Template("{instruction}{response}").prompt("a") == "a"


@pytest.mark.parametrize(
    "text", ["{instruction}", "{response}", "{instruction} {response} end", "{instruction}{instruction}{response}"]
)
def test_templates_that_cannot_work_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"data\.template"):
        Template(text)
