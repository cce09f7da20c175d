"""The template of a run, which stays the same if its file or the model's own template changes, and on the next day.

A run keeps the text of its template in its config and in its checkpoints. In the text of a chat template that prints
the date, the date is that of the day on which the run began.
"""

import logging
from datetime import datetime
from typing import TYPE_CHECKING

from datamodules.text.segments import Template
from datamodules.tokens.template import NAMES, check_template, load_template, template_text

if TYPE_CHECKING:
    from datamodules.tokens.tokenizer import ThinkTokenizer

log = logging.getLogger("thinkwright")


class RunTemplate:
    """`data.template` with `data.system`, or the text that a run has kept. Raises UserError as `check_template`."""

    def __init__(self, setting: str, system: str | None) -> None:
        check_template(setting, system)
        self.setting, self.system = setting, system
        self._kept: str | None = None
        self._started = datetime.now()

    def load(self, tokenizer: "ThinkTokenizer") -> Template:
        """Return the template for this model. Raises UserError as `load_template`."""
        return load_template(self._kept or self.setting, self.system, tokenizer, self._started)

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
