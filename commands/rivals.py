"""The other model of a comparison: the base, another run, or answers that are already in a file."""

import logging
from pathlib import Path

from commands.answer_task import Contestant
from commands.load import Opened, open_run
from commands.tasks import HELD_OUT, Task
from errors import UserError
from lightning_modules.evaluation.answer_file import Answers, read_answers

log = logging.getLogger("thinkwright")
BASE, AGAINST = "base", "--against"


def find_rival(given: str, mine: Contestant, root: str) -> Contestant | Answers:
    """Return the model that `--against` names, or its answers. Raise UserError if it cannot answer the same questions.

    The base is the model as it was before any training: the run's template and tags, new tokens at their initial
    embeddings, and no adapters.
    """
    run, checkpoint = mine.opened.run.folder, mine.opened.checkpoint
    if given.endswith(".jsonl"):
        return known_answers(given, mine.task)
    if given == BASE:
        if mine.opened.tuner.from_scratch:
            problem = "is random: the run began with model.from_scratch"
            raise UserError(AGAINST, BASE, problem, "compare with another run")
        return Contestant(BASE, open_run(str(run), str(checkpoint), root), False, mine.task, mine.prompts)
    try:
        opened = open_run(given, None, root)
    except UserError as error:
        text = str(error)
        if error.key == "--run":
            error.key, error.args = AGAINST, (text.replace("--run:", f"{AGAINST}:", 1),)
        raise
    if opened.checkpoint.resolve() == checkpoint.resolve():
        raise UserError(AGAINST, given, "is the same checkpoint", f"give another run, or {BASE}")
    if mine.task.name == HELD_OUT:
        _check_same_tokens(given, mine.opened, opened)
        if warning := mine.opened.data.seen_warning(opened.content.data):
            log.warning(f"{run_name(opened)}: {warning}")
    prompts = mine.task.prompts(opened.data.template, opened.data.think_tokenizer)
    rival = Contestant(run_name(opened), opened, True, mine.task, prompts)
    if rival.prompts_digest != mine.prompts_digest:
        log.warning(f"warning: {rival.name} has another template or tokenizer: it is asked in its own")
    if opened.tuner.identity.values().get("weights") != mine.opened.tuner.identity.values().get("weights"):
        log.warning(f"warning: {rival.name} has another base, {opened.tuner.name}")
    return rival


def known_answers(given: str, task: Task) -> Answers:
    """Return the answers in the file of an evaluation. Raise UserError if it asked other questions."""
    found = read_answers(Path(given).expanduser(), AGAINST)
    if found.header.get("questions") != task.digest():
        problem = f"holds answers to other questions ({found.header.get('task')})"
        raise UserError(AGAINST, given, problem, "evaluate the same task with the same --limit")
    asked, there = {one.id for one in task.questions}, {name for name, _ in found.answers}
    if not there:
        raise UserError(AGAINST, given, "holds no answers yet", "let its evaluation end first")
    if without := len(asked - there):
        log.warning(f"warning: {given} lacks {without:,} of {len(asked):,} questions; they are not compared")
    return found


def run_name(opened: Opened) -> str:
    """Return the name and the start of a run."""
    folder = opened.run.folder.resolve()
    return f"{folder.parent.name}/{folder.name}"


def _check_same_tokens(given: str, ours: Opened, theirs: Opened) -> None:
    """Held-out rows are kept as ids, so they can only be asked in the template and the tokens of their run."""
    same = ours.data.template == theirs.data.template
    if not same or ours.data.think_tokenizer.fingerprint != theirs.data.think_tokenizer.fingerprint:
        what = "tokenizer" if same else "template"
        problem = f"has another {what}, and held-out rows are asked in that of their run"
        raise UserError(AGAINST, given, problem, "write the questions to a file, and give it as --task")
