"""The template of a run, which stays the same if its file or the model's own template changes, and on the next day.

A run keeps the text of its template in its config and in its checkpoints. In the text of a chat template that prints
the date, the date is that of the day on which the run began.
"""

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from datamodules.text.chat_template import HistoryReasoning
from datamodules.text.example import Turns
from datamodules.text.segments import Template
from datamodules.tokens.template import NAMES, check_template, load_template, template_text
from errors import UserError

if TYPE_CHECKING:
    from datamodules.tokens.tokenizer import ThinkTokenizer

log = logging.getLogger("thinkwright")


class RunTemplate:
    """`data.template` with its settings, or the text that a run has kept. Raises UserError as `check_template`."""

    def __init__(
        self,
        setting: str,
        system: str | None,
        history_reasoning: HistoryReasoning = "template",
        turns: Turns = "last",
    ) -> None:
        check_template(setting, system)
        self.setting, self.system, self.history_reasoning, self.turns = setting, system, history_reasoning, turns
        if turns == "all" and history_reasoning == "drop":
            raise _contradiction("data.history_reasoning drop")
        self._kept: str | None = None
        self._started = datetime.now()

    def load(self, tokenizer: "ThinkTokenizer") -> Template:
        """Return the template for this model. Raises UserError as `load_template`, and if `data.turns: all` would train
        answers after reasoning that no prompt has."""
        setting = self._kept or self.setting
        template = load_template(setting, self.system, tokenizer, self._started, self.history_reasoning)
        if self.turns == "all" and template.drops_reasoning:
            raise _contradiction("the chat template of the model")
        return template

    def to_keep(self, tokenizer: "ThinkTokenizer") -> str:
        """Return a value of `data.template` that always gives this template: a text in place of a file or `chat`."""
        setting = self._kept or self.setting
        return setting if setting in NAMES else self.load(tokenizer).chat or str(template_text(setting))

    def go_on(self, setting: str, kept: str) -> None:
        """Use the text that a run has kept, if `setting`, its setting, is still the same, or is given as that text."""
        given = self.setting
        if given == kept:
            self.setting = setting  # the run's own config was given: the word stays that of the first start
        if self.setting != setting:
            return
        self._kept = kept
        if given not in ("chat", kept, *NAMES) and template_text(given) != kept:
            log.info(f"data.template: {given} has changed since the run began; the text that the run kept is used")


def _contradiction(drops: str) -> UserError:
    problem = f"trains answers after earlier reasoning, which {drops} drops from every prompt"
    fix = "set data.turns each, or data.history_reasoning keep"
    return UserError("data.turns", "all", problem, fix)
