"""chat: which runs get the turns before a question. tests/cli drives it through a terminal."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from commands.chat import knows_several_turns
from datamodules.text.segments import Template
from tests.conftest import TEMPLATE

CHAT = replace(TEMPLATE, chat="{{ messages }}")


@pytest.mark.parametrize(
    ("template", "turns", "several"),
    [
        (TEMPLATE, "last", False), (TEMPLATE, "each", True), (TEMPLATE, "all", True), (CHAT, "last", True),
        (replace(CHAT, no_history="data.template omits earlier messages"), "each", False),
    ],
)  # fmt: skip
def test_several_turns_are_asked_of_runs_that_were_trained_with_them(
    template: Template, turns: str, several: bool
) -> None:
    data = SimpleNamespace(template=template, run_template=SimpleNamespace(turns=turns))
    opened: Any = SimpleNamespace(data=data)
    assert knows_several_turns(opened) == several
