"""self_train: what it asks `evaluate` and `fit` to do. tests/cli/test_self_train.py runs it."""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from commands.own_rows import messages, reads_back
from commands.self_train import Steps, command, described, run
from commands.tasks import Question
from datamodules.layouts.conversation import Message
from datamodules.text.tags import Tags
from errors import UserError
from lightning_modules.evaluation.own_answers import OwnAnswer, Selection


def steps(data: dict[str, Any], model: dict[str, Any] | None = None) -> Steps:
    found = Steps.__new__(Steps)
    found.folder, found.config = Path("/rounds"), {"data": data, "model": model or {}}
    found.tags = Tags()
    return found


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "--task: is missing"),
        (["--task", "heldout"], "--task: 'heldout' is for measuring"),
        (["--task", "gsm8k"], "--task: 'gsm8k' is for measuring"),
        (["--task", "a.jsonl", "--temperature", "0"], "--temperature: '0' gives the same answer each time"),
        (["--task", "a.jsonl", "--rounds", "-1"], "rounds: '-1' is below 0"),
        (["--task", "a.jsonl", "--keep", "0"], "keep: '0' is below 1"),
        (["--task", "a.jsonl", "--easy", "2"], "easy: '2.0' is above 1"),
    ],
)
def test_mistakes_are_seen_before_anything_is_asked(args: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        run(args)


def test_the_rows_of_the_first_run_stay_beside_its_own_answers() -> None:
    one = steps({"source": "rows.jsonl", "revision": None, "split": "train", "config": None, "train_rows": 500})
    found = one.data(2, 80)
    assert found["train_rows"] == 580
    first, own = found["mix"]
    assert first == {"name": "rows.jsonl", "split": "train"}
    assert own["name"] == "/rounds/round-2/rows.jsonl" and "weight" not in own
    assert steps({"source": "rows.jsonl", "train_rows": None}).data(1, 80)["train_rows"] is None


def test_a_mix_with_weights_keeps_their_proportions() -> None:
    mix = [{"name": "a", "weight": 3.0}, {"name": "b", "weight": 1.0}]
    found = steps({"mix": mix, "train_rows": 800}).data(1, 200)
    assert found["mix"][:2] == mix and found["mix"][2]["weight"] == pytest.approx(4.0 * 200 / 800)
    with pytest.raises(UserError, match=r"data\.mix: has weights, and data\.train_rows is null"):
        steps({"mix": mix, "train_rows": None}).data(1, 200)


def test_rounds_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    def with_samples(samples: int) -> Steps:
        one = steps({})
        one.folder, one.first = tmp_path / "rounds", SimpleNamespace(folder=tmp_path)  # type: ignore[assignment]
        one.given = defaultdict(int, samples=samples)
        return one

    with_samples(4).check()
    with_samples(4).check()
    with pytest.raises(UserError, match="holds rounds with samples 4"):
        with_samples(8).check()


@pytest.mark.parametrize(
    ("text", "back"),
    [
        ("<think>a</think>b", True),
        ("<think>a</think>\n<think>b</think>\n\nc", True),
        ("<think>the tag <think> opens</think>b", False),  # a text that spells a tag
        ("<think>a</think>", False),
        ("b", False),
        ("<think> </think>b", False),
    ],
)
def test_a_row_is_read_as_the_answer_that_was_judged(text: str, back: bool) -> None:
    assert reads_back(text, Tags()) is back


def test_a_row_has_the_messages_of_its_question() -> None:
    question = Question("q", "7", messages=(Message("system", "Be brief."), Message("user", "3 + 4?")))
    row = messages(question, OwnAnswer("q", "<think>a</think>7", 3, True, True))
    assert row == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "3 + 4?"},
        {"role": "assistant", "content": "<think>a</think>7"},
    ]


def test_a_step_that_fails_ends_the_rounds_with_its_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command("evaluate", "--task", "nowhere.jsonl")
    assert stopped.value.code == 2
    assert "nowhere.jsonl" in capfd.readouterr().err


def test_a_stop_at_the_end_of_a_step_begins_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class AtItsEnd:
        """A command that a Ctrl-C reaches when its work is done."""

        waits = 0

        def __init__(self, *_: Any) -> None: ...

        def wait(self) -> int:
            self.waits += 1
            if self.waits == 1:
                raise KeyboardInterrupt
            return 0

    monkeypatch.setattr("commands.self_train.subprocess.Popen", AtItsEnd)
    with pytest.raises(SystemExit) as stopped:
        command("fit")
    assert stopped.value.code == 130


def test_the_line_of_a_round_counts_what_was_left_out() -> None:
    counts = {"questions": 2, "answers": 8, "wrong": 5, "not well-formed": 0, "chosen": 3}
    assert described(Selection([], counts)) == "3 of 8 answers to 2 questions chosen; 5 wrong"
    json.dumps(counts)
