"""A run's own held-out rows as a task: prompts as ids, and the answers that the data has."""

import logging

from commands.load import Opened
from commands.tasks import HELD_OUT, Question, Task
from datamodules.batches.collate import collate
from lightning_modules.evaluation.answers import held_out_rows, questions, reference_of
from lightning_modules.evaluation.baselines import options_in

log = logging.getLogger("thinkwright")


STAGES = {"test": "test", "val": "validate"}  # by split: what prepares it


def held_out(opened: Opened, split: str = "test") -> Task:
    """Return the different questions of a run's test rows, or of another split.

    The rows are prepared if they are not on disk. Of several responses to one question the answer of most counts.
    """
    data = opened.data
    data.setup(STAGES[split])
    rows, tokenizer = data.splits[split], data.think_tokenizer
    asked = [row for k in range(len(rows)) for row in held_out_rows(collate([rows[k]], 1, tokenizer.end_id), range(1))]
    found = []
    for row in questions(asked):
        reference = reference_of(row, tokenizer)
        if reference.finished and reference.answer.strip():
            answer = reference.answer.strip()
            options = options_in(tokenizer.decode(row.prompt))
            found.append(Question(f"{split}-{row.row}", answer, row.group, ids=tuple(row.prompt), options=options))
        else:
            log.warning(f"warning: {split} row {row.row} has no whole answer in the data and is not asked")
    return Task(HELD_OUT, f"{split} rows of the run", tuple(found), len(rows))
