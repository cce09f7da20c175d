"""evaluate as a user types it: a task, the base or another run beside it, a stop and a second start, other engines."""

import functools
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import commands.evaluate
from cli import main
from commands import answer_task
from commands.held_out import held_out
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.generate import generate
from tests.conftest import ROOT

QUESTIONS: list[dict[str, Any]] = [
    {"id": "a", "instruction": "Solve x + 5 = 12", "answer": "x = 7", "group": "easy"},
    {"id": "b", "instruction": "What is 3 * 4?", "answer": 12, "group": "easy"},
    {"id": "c", "messages": [{"role": "user", "content": "Solve 2x = 10"}], "answer": r"\boxed{5}", "group": "hard"},
]
SHORT = ("--max_new_tokens", "24")


@pytest.fixture
def task(in_trained: Path) -> Path:
    path = Path("task.jsonl")
    path.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    return path


def evaluate(*args: object) -> int:
    return main(["evaluate", *map(str, args)])


def files(run: Path) -> list[Path]:
    return sorted((run / "evaluations").glob("*.jsonl"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_are_judged_written_and_reported(
    task: Path, in_trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("--task", task, *SHORT) == 0
    out = capsys.readouterr().out
    assert "task task.jsonl: 3 different questions, read from task.jsonl" in out
    assert "### Instruction: Solve x + 5 = 12\n### Response:" in out  # the first prompt, in the template of training
    assert "right answers" in out and "95 % interval" in out and "always most frequent" in out
    assert "cut off" in out and "caught in a loop" in out and "right: hard (1)" in out
    (path,) = files(in_trained)
    header, *answers = lines(path)
    assert {one["id"] for one in answers} == {"a", "b", "c"} and header["decoding"]["max_new_tokens"] == 24
    named = {"right", "rung", "answer", "finished", "ended_by", "well_formed", "thoughts", "text"}
    assert all(named <= one.keys() for one in answers)
    assert all(not one["right"] for one in answers if not one["finished"])
    assert all(0 < one["tokens"] <= 24 for one in answers)
    summary = json.loads(path.with_suffix(".summary.json").read_text())
    assert summary["figures"]["right"] == sum(one["right"] for one in answers) / 3
    assert summary["figures"]["groups"]["easy"]["questions"] == 2
    assert summary["figures"]["cut"] == sum(not one["finished"] for one in answers) / 3
    assert summary["figures"]["looped"] == sum(one["looped"] for one in answers) / 3
    assert summary["figures"]["baseline_frequent"] == 1 / 3 and "letters" not in summary["figures"]
    assert header["prompts"] in out


def test_a_second_call_goes_on_and_a_complete_file_needs_no_model(
    task: Path, in_trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate("--task", task, *SHORT) == 0
    (path,) = files(in_trained)
    whole = path.read_bytes()
    monkeypatch.setattr(answer_task, "generate", None)
    capsys.readouterr()
    assert evaluate("--task", task, *SHORT) == 0
    out, err = capsys.readouterr()
    assert "3 of 3 answers were in" in err and "right answers" in out and path.read_bytes() == whole
    monkeypatch.setattr(answer_task, "generate", generate)
    first_two = b"".join(whole.splitlines(True)[:3])
    path.write_bytes(first_two + b'{"id": "c", "sam')  # a kill in the third answer
    assert evaluate("--task", task, *SHORT) == 0
    err = capsys.readouterr().err
    assert "2 of 3 answers were in" in err and "was cut off" in err
    assert path.read_bytes().startswith(first_two)
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_control_c_keeps_the_answers_and_says_how_to_go_on(
    task: Path, in_trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any, **more: Any) -> Any:
        yield next(iter(generate(*args, **more)))
        raise KeyboardInterrupt

    monkeypatch.setattr(answer_task, "generate", stopped)
    assert evaluate("--task", task, *SHORT) == 130
    err = capsys.readouterr().err
    assert "stopped: 1 of 3 answers are in" in err and "the same command goes on" in err
    monkeypatch.setattr(answer_task, "generate", generate)
    assert evaluate("--task", task, *SHORT) == 0
    assert "1 of 3 answers were in" in capsys.readouterr().err


def test_other_settings_have_another_file_and_are_refused_in_the_same_one(
    task: Path, in_trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("--task", task, "--to", "mine.jsonl", *SHORT) == 0
    before = Path("mine.jsonl").read_bytes()
    assert evaluate("--task", task, "--to", "mine.jsonl", "--max_new_tokens", "8") == 2
    assert "--to: 'mine.jsonl' holds answers with another decoding" in capsys.readouterr().err
    assert Path("mine.jsonl").read_bytes() == before
    assert evaluate("--task", task, "--limit", "1", "--max_new_tokens", "8") == 0
    assert evaluate("--task", task, "--limit", "1", "--max_new_tokens", "9") == 0
    assert len(files(in_trained)) == 2


def test_the_base_is_the_model_before_training(in_trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--task", "heldout", "--against", "base", *SHORT) == 0
    out = capsys.readouterr().out
    assert "task heldout: 8 different questions, test rows of the run" in out
    assert "right answers on the same 8 questions" in out and "exact McNemar test" in out
    base, mine = files(in_trained)[::-1] if "base" not in files(in_trained)[0].name else files(in_trained)
    summary = json.loads(mine.with_suffix(".summary.json").read_text())
    assert summary["against"]["answers"].endswith(base.name)
    comparison = summary["comparison"]
    outcomes = {name: comparison[name] for name in ("gained", "lost", "both", "none")}
    assert sum(map(len, outcomes.values())) == 8
    for name, (before, after) in {"gained": (0, 1), "lost": (1, 0), "both": (1, 1), "none": (0, 0)}.items():
        for one in outcomes[name]:
            there, here = lines(base)[one["line_against"] - 1], lines(mine)[one["line"] - 1]
            assert there["id"] == here["id"] == one["id"]
            assert (there["right"], here["right"]) == (before, after)
    assert {one["text"] for one in lines(base)[1:]} != {one["text"] for one in lines(mine)[1:]}
    assert all(one["thoughts"] == 0 for one in lines(base)[1:])  # it knows no tags


def test_the_column_before_of_fit_is_what_the_base_answers(in_trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation's 8 rows, before training, and the base asked by evaluate: the same verdicts."""
    kept = json.loads((in_trained / "summary.json").read_text())
    monkeypatch.setattr(commands.evaluate, "held_out", functools.partial(held_out, split="val"))
    assert evaluate("--task", "heldout", "--limit", "8", "--against", "base", *SHORT) == 0
    base = next(path for path in files(in_trained) if "base" in path.name)
    assert [one["right"] for one in sorted(lines(base)[1:], key=lambda one: int(one["id"].split("-")[1]))] == list(
        kept["right_before"].values()
    )


def test_another_run_is_asked_the_same_questions(
    task: Path, in_trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = in_trained.parent / "other"
    shutil.copytree(in_trained, other)
    assert evaluate("--task", task, "--run", in_trained, "--against", other, *SHORT) == 0
    assert "0 gained, 0 lost" in capsys.readouterr().out
    assert len(files(other)) == len(files(in_trained)) == 1
    assert evaluate("--task", task, "--run", in_trained, "--against", files(other)[0], *SHORT) == 0
    assert "0 gained, 0 lost" in capsys.readouterr().out


def test_samples_differ_by_their_seeds_and_are_reported_with_votes(
    task: Path, in_trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = ("--samples", "3", "--temperature", "1.0", *SHORT)
    assert evaluate("--task", task, *several, "--batch_size", "4") == 0
    out = capsys.readouterr().out
    assert "pass@3" in out and "majority vote" in out and "vote by confidence" in out
    (path,) = files(in_trained)
    answers = {(one["id"], one["sample"]): one for one in lines(path)[1:]}
    assert len(answers) == 9 and len({one["text"] for one in answers.values()}) > 3
    assert all(one["confidence"] < 0 for one in answers.values())
    kept = path.read_text().splitlines(True)
    path.write_text("".join(kept[:4]))  # a part of the samples: the others come out the same
    assert evaluate("--task", task, *several, "--batch_size", "2") == 0
    again = {(one["id"], one["sample"]): one["text"] for one in lines(path)[1:]}
    assert again == {key: one["text"] for key, one in answers.items()}


def test_responses_of_another_engine_are_judged_without_a_model(
    task: Path, in_trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[dict[str, str]] = [
        {"id": "a", "response": "<think>12 - 5 = 7.</think>\n\nx = 7<|im_end|>"},
        {"instruction": "What is 3 * 4?", "text": "<think>hm</think>13"},
        {"instruction": "Solve 2x = 10", "response": "<think>5", "finish_reason": "length"},
    ]
    Path("out.jsonl").write_text("".join(json.dumps(one) + "\n" for one in written))
    monkeypatch.chdir(in_trained.parents[2])
    shutil.rmtree("runs")  # no run is needed
    assert evaluate("--task", task, "--score", "out.jsonl") == 0
    out = capsys.readouterr().out
    assert "33.3 %" in out
    judged = lines(Path("out-judged.jsonl"))[1:]
    assert [one["right"] for one in judged] == [True, False, False]
    assert [one["well_formed"] for one in judged] == [True, True, False]
    assert judged[2]["rung"] == "cut off"
    Path("better.jsonl").write_text("".join(json.dumps({"id": one["id"], "text": "12"}) + "\n" for one in QUESTIONS))
    assert evaluate("--task", task, "--score", "better.jsonl", "--against", "out-judged.jsonl") == 0
    assert "1 gained, 1 lost, 0 both, 1 none" in capsys.readouterr().out
    assert evaluate("--task", task, "--score", "out-judged.jsonl") == 0  # judged again


def test_choices_have_letters_and_their_baselines_and_an_older_file_has_no_failures(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = "Which?\n(A) Ann\n(B) Bob\n(C) Cy\n(D) Di"
    rows = [{"id": k, "instruction": f"{k}. {asked}", "answer": letter} for k, letter in enumerate("AABC")]
    Path("task.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    said = ["<think>So the answer is (B).</think>(A)", "(A)", "(A)", "<think>" + "Wait, no. " * 40]
    written = [{"id": k, "response": text, "finished": k < 3} for k, text in enumerate(said)]
    Path("out.jsonl").write_text("".join(json.dumps(one) + "\n" for one in written))
    assert evaluate("--task", "task.jsonl", "--score", "out.jsonl") == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in (
        "right answers 50.0 %", "always most frequent 50.0 %", "always first choice 50.0 %",
        "random choice 25.0 %", "cut off 25.0 %", "inside a thought 25.0 %", "caught in a loop 25.0 %",
        "answer in the thoughts 25.0 %", "contradicted 25.0 %",
        "answers (A), right 50 % 75.0 %", "answers (B), right 25 % 0.0 %", "answers without letter 25.0 %",
    ):  # fmt: skip
        assert line in shown, line
    judged = Path("out-judged.jsonl")
    assert [one["contradicted"] for one in lines(judged)[1:]] == [True, False, False, False]
    named = ("cut_in_thought", "looped", "concluded", "contradicted", "options")
    header, *answers = lines(judged)
    older = [{name: value for name, value in one.items() if name not in named} for one in answers]
    Path("older.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [header, *older]))
    assert evaluate("--task", "task.jsonl", "--score", "out.jsonl", "--against", "older.jsonl") == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "caught in a loop - 25.0 %" in shown and "cut off 25.0 % 25.0 %" in shown
    assert "random choice 33.3 % 25.0 %" in shown  # the older file does not know how many choices were listed


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--task: is not given. Give gsm8k, math500, heldout, or a file"),
        (["--task", "gms8k"], "--task: 'gms8k' does not exist. Did you mean gsm8k?"),
        (["--task", "missing.jsonl"], "--task: 'missing.jsonl' does not exist"),
        (["--task", "task.jsonl", "--samples", "3"], "--samples: '3' gives equal answers, because --temperature is 0"),
        (["--task", "task.jsonl", "--samples", "0"], "samples: '0' is below 1"),
        (["--task", "task.jsonl", "--against", "nowhere"], "--against: 'nowhere' is not a run"),
        (["--task", "task.jsonl", "--against", "no.jsonl"], "--against: 'no.jsonl' cannot be read"),
        (["--task", "task.jsonl", "--against", "task.jsonl"], "--against: 'task.jsonl' is not the file of an evalua"),
        (["--task", "task.jsonl", "--score", "no.jsonl"], "--score: 'no.jsonl' cannot be read"),
        (["--task", "task.jsonl", "--score", "task.jsonl"], "--score: 'task.jsonl' line 1 cannot be scored"),
        (["--task", "task.jsonl", "--score", "x.jsonl", "--against", "base"], "--against: 'base' would have to be ask"),
        (["--task", "heldout", "--score", "x.jsonl"], "--score: 'x.jsonl' needs the run that held the rows out"),
        (["--task", "task.jsonl", "--to", "task.json"], "--to: 'task.json' does not end in .jsonl"),
        (["--task", "empty.jsonl"], "--task: 'empty.jsonl' is empty"),
        (["--task", "task.jsonl", "--device", "cuda:99"], "--device: 'cuda:99' is not a device"),
        (["--task", "math500"], "--task: 'HuggingFaceH4/MATH-500' is not in the local cache"),
    ],
)
def test_a_mistake_is_one_line_before_a_model_is_loaded(
    args: list[str], message: str, task: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty.jsonl").touch()
    monkeypatch.setattr("commands.load.Opened.load", None)
    assert evaluate(*args) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}"), line


def test_the_run_itself_is_no_rival(task: Path, in_trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--task", task, "--against", in_trained) == 2
    assert "is the same checkpoint" in capsys.readouterr().err


def test_held_out_rows_are_not_given_to_a_run_with_another_template(
    in_trained: Path, capsys: pytest.CaptureFixture[str], fit: Any
) -> None:
    template = ("--data.template", "Q: {{ instruction }} A:")
    assert fit(*template, "--run.name", "second", "--model.evaluation.rows", "0") == 0
    (other,) = Path("runs/second").iterdir()
    capsys.readouterr()
    assert evaluate("--task", "heldout", "--run", in_trained, "--against", other, *SHORT) == 2
    assert "has another template" in capsys.readouterr().err
    Path("one.jsonl").write_text(json.dumps(QUESTIONS[0]))
    assert evaluate("--task", "one.jsonl", "--run", in_trained, "--against", other, *SHORT) == 0
    assert "has another template or tokenizer: it is asked in its own" in capsys.readouterr().err


def test_the_tables_of_the_docs_name_the_command() -> None:
    assert "evaluate" in (ROOT / "README.md").read_text()


def test_vllm_writes_and_the_same_judge_judges(
    task: Path, in_trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for vLLM writes what the run's own engine wrote, from the ids that it was given."""
    assert evaluate("--task", task, *SHORT) == 0
    (own,) = files(in_trained)
    assert evaluate("--task", task, *SHORT, "--engine", "vllm") == 2
    assert "--engine: 'vllm' is not installed" in capsys.readouterr().err
    asked: list[int] = []  # prompts of each call of the stand-in
    monkeypatch.setitem(sys.modules, "vllm", stand_in_for_vllm(lines(own)[1:], asked))
    assert evaluate("--task", task, *SHORT, "--engine", "vllm", "--against", "base") == 2
    assert "would be asked by vLLM, which has one model" in capsys.readouterr().err
    assert evaluate("--task", task, *SHORT, "--engine", "vllm") == 2
    assert "needs the merged export of the run" in capsys.readouterr().err
    assert main(["export"]) == 0
    assert evaluate("--task", task, *SHORT, "--engine", "vllm", "--against", own) == 0
    assert asked == [len(QUESTIONS)]
    (other,) = set(files(in_trained)) - {own}
    header, *answers = lines(other)
    assert header["engine"] == "vllm"
    verdicts = {one["id"]: (one["right"], one["text"], one["finished"]) for one in answers}
    assert verdicts == {one["id"]: (one["right"], one["text"], one["finished"]) for one in lines(own)[1:]}


def stand_in_for_vllm(answers: list[dict[str, Any]], calls: list[int]) -> Any:
    tokenizer = ThinkTokenizer.load(str(ROOT / "assets" / "tiny-qwen"))
    by_prompt = {}
    for one, question in ((one, question) for one in answers for question in QUESTIONS if question["id"] == one["id"]):
        asked = question.get("instruction") or question["messages"][0]["content"]
        by_prompt[asked] = one

    class LLM:
        def __init__(self, model: str) -> None:
            assert (Path(model) / "config.json").is_file()

        def generate(self, prompts: Any, sampling: Any) -> list[Any]:
            calls.append(len(prompts))
            found = []
            for prompt in prompts:
                text = tokenizer.decode(prompt["prompt_token_ids"])
                one = next(answer for asked, answer in by_prompt.items() if asked in text)
                ids = tokenizer.full.encode(one["text"], add_special_tokens=False)
                how = {"finish_reason": "stop" if one["finished"] else "length", "stop_reason": None}
                found.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, **how)]))
            return found

    module: Any = ModuleType("vllm")
    module.LLM, module.SamplingParams, module.__spec__ = LLM, SimpleNamespace, SimpleNamespace()
    return module
