"""evaluate: ask a run's model the questions of a task, judge its answers, and compare it with another model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from commands.answer_task import Asking, Contestant
from commands.generate import add_writing_options, decoding_settings, device
from commands.held_out import held_out
from commands.load import open_run
from commands.messages import quiet
from commands.parsing import Parser
from commands.rivals import find_rival, known_answers, run_name
from commands.score_file import score_file
from commands.tasks import HELD_OUT, PUBLIC, Task, read_task
from commands.which_run import add_run_arguments
from datamodules.text.tags import Tags
from disk import disk_errors, write_file
from errors import UserError
from lightning_modules.evaluation.answer_file import AnswerFile, Answers
from lightning_modules.evaluation.comparison import Comparison, compare
from lightning_modules.evaluation.report import Figures, print_report, report_figures, verdicts
from lightning_modules.generation.decoding import DecodingSettings
from lightning_modules.generation.with_vllm import check_vllm
from visible import visible

SHOWN = 5  # questions that were gained or lost, printed with their lines; the summary has all


def build_parser() -> Parser:
    parser = Parser("evaluate")
    parser.add_argument(
        "--task",
        type=str | None,
        default=None,
        help=f"The questions: {', '.join(PUBLIC)}; {HELD_OUT}, the run's own test rows; or a file of rows with "
        "`instruction` (or `messages`) and `answer`, and as you like `id` and `group`.",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--against",
        type=str | None,
        default=None,
        help="Compare with another model on the same questions: base (the model before training, with the run's "
        "template), the folder of another run, or the .jsonl file of an evaluation.",
    )
    parser.add_argument("--samples", type=int, default=1, help="Answers to each question. Several need a temperature.")
    parser.add_class_arguments(DecodingSettings, None)
    parser.add_argument("--limit", type=int | None, default=None, help="Ask the first questions only; null asks all.")
    parser.add_argument(
        "--to",
        type=str | None,
        default=None,
        help="File of the answers, JSON lines; the same command goes on with it. null: evaluations/ in the run folder.",
    )
    parser.add_argument(
        "--score",
        type=str | None,
        default=None,
        help="Judge what another engine wrote: a file of JSON lines with `id` or `instruction`, and `response`. No "
        "model is loaded.",
    )
    add_writing_options(parser)
    return parser


def run(args: Sequence[str]) -> int:
    quiet()
    given = build_parser().read(args)
    check(given)
    if given.score is not None:
        return score(given)
    settings = decoding_settings(given)
    asking = Asking(
        settings, given.samples, given.seed, given.batch_size, device(given.device), vllm=given.engine == "vllm"
    )
    task = None if given.task == HELD_OUT else read_task(given.task)
    opened = open_run(given.run, given.ckpt_path, given.root)
    settings.check(opened.data.think_tokenizer)
    if asking.vllm:
        check_vllm(opened.run.folder / "export", settings)
    task = (task or held_out(opened)).first(given.limit)
    prompts = task.prompts(opened.data.template, opened.data.think_tokenizer)
    mine = Contestant(run_name(opened), opened, True, task, prompts)
    rival = find_rival(given.against, mine, given.root) if given.against else None
    print(task.line())
    print(f"prompts {mine.prompts_digest}; the first one:\n")
    print(visible(opened.data.think_tokenizer.decode(mine.prompts[0]), lines=True) + "\n", flush=True)
    first: tuple[str, Answers] | None = None
    if isinstance(rival, Contestant):
        first = rival.name, answered(rival, asking, _beside(given.to))
    elif rival is not None:
        first = rival.path.stem, rival
    report(task, (mine.name, answered(mine, asking, given.to)), first)
    return 0


def check(given: Any) -> None:
    """Raise UserError for options that contradict each other."""
    if given.task is None:
        known = f"{', '.join(PUBLIC)}, {HELD_OUT}, or a file with instruction and answer"
        raise UserError("--task", None, "is not given", f"give {known}")
    if given.samples > 1 and given.temperature == 0:
        problem = "gives equal answers, because --temperature is 0"
        raise UserError("--samples", given.samples, problem, "add --temperature 0.7")
    if given.to is not None and not given.to.endswith(".jsonl"):
        raise UserError("--to", given.to, "does not end in .jsonl", "give the name of a new file like answers.jsonl")
    if given.engine == "vllm" and given.against is not None and not given.against.endswith(".jsonl"):
        fix = "evaluate the other model by itself, and give the .jsonl file of its answers"
        raise UserError("--against", given.against, "would be asked by vLLM, which has one model", fix)
    if given.score is not None and given.task == HELD_OUT and given.run is None and given.ckpt_path is None:
        raise UserError("--score", given.score, "needs the run that held the rows out", "add --run runs/NAME/TIME")
    if given.score is not None and given.against is not None and not given.against.endswith(".jsonl"):
        problem = "would have to be asked, and --score asks no model"
        fix = "evaluate it first, and give the .jsonl file of its answers here"
        raise UserError("--against", given.against, problem, fix)


def answered(one: Contestant, asking: Asking, to: str | None) -> Answers:
    """Return the file with all answers of a model; what it lacks is asked now."""
    header = one.header(asking)
    file = AnswerFile(Path(to).expanduser() if to else one.default_file(header), header)
    try:
        one.answer(file, asking)
    finally:
        file.close()
    return file


def score(given: Any) -> int:
    """Judge the responses of a file, and report them as those of a model. A run, if one is given, has the tags."""
    held = given.task == HELD_OUT
    opened = open_run(given.run, given.ckpt_path, given.root) if held or given.run or given.ckpt_path else None
    task = (held_out(opened) if held and opened else read_task(given.task)).first(given.limit)
    print(task.line())
    tags = opened.data.tags if opened else Tags()
    file, without = score_file(given.score, task, tags, given.to)
    file.close()
    if without:
        print(f"{without:,} of {len(task.questions):,} questions have no response; the figures are of the others")
    rival = known_answers(given.against, task) if given.against else None
    report(task, (Path(given.score).stem, file), (rival.path.stem, rival) if rival else None)
    return 0


def report(task: Task, second: tuple[str, Answers], first: tuple[str, Answers] | None) -> None:
    """Print the figures of one or two models and their comparison, and write them beside the answers."""
    name, file = second
    answers = list(file.answers.values())
    columns: dict[str, Figures] = {name: report_figures(answers)}
    summary: dict[str, Any] = {**file.header, "answers": str(file.path), "figures": columns[name]}
    found = None
    if first is not None:
        other, other_file = first
        known = list(other_file.answers.values())
        columns = {other: report_figures(known), **columns}
        found = compare(verdicts(known), verdicts(answers))
        summary["against"] = {**other_file.header, "answers": str(other_file.path), "figures": columns[other]}
        summary["comparison"] = plain(found, other_file, file) if found else None
    print_report(columns, f"{len({one['id'] for one in answers}):,} questions of {task.name}, {len(answers):,} answers")
    if found is not None and first is not None:
        print(*found.lines(), sep="\n")
        print_outcomes(found, first[1], file)
    path = file.path.with_name(f"{file.path.stem}.summary.json")
    with disk_errors("--to", path):
        write_file(path, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    print(f"answers in {file.path}, summary in {path.name}")


def plain(found: Comparison, first: Answers, second: Answers) -> dict[str, Any]:
    """Return a comparison as JSON: each question with the lines of its first answers in both files."""
    questions = {
        outcome: [
            {"id": name, "line": second.lines[name, 0], "line_against": first.lines[name, 0]}
            for name in getattr(found, outcome)
        ]
        for outcome in ("gained", "lost", "both", "none")
    }
    figures = {"difference": found.difference, "interval": list(found.interval), "p_value": found.p_value}
    return {**figures, "test": found.test, **questions}


def print_outcomes(found: Comparison, first: Answers, second: Answers) -> None:
    """Print where the answers to some gained and lost questions stand."""
    for outcome, names in (("gained", found.gained), ("lost", found.lost)):
        for name in names[:SHOWN]:
            places = [f"{file.path.name}:{file.lines[name, 0]}" for file in (first, second)]
            print(f"  {outcome} {visible(name)}: {places[0]} and {places[1]}")
        if len(names) > SHOWN:
            print(f"  {outcome}: {len(names) - SHOWN:,} more in the summary")


def _beside(to: str | None) -> str | None:
    """The file of the other model's answers."""
    if to is None:
        return None
    path = Path(to)
    return str(path.with_name(f"{path.stem}-against{path.suffix}"))
