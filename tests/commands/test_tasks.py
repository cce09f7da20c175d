"""Tasks: rows as questions, and what a file of them lacks."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commands.tasks import PUBLIC, PublicSet, read_task
from errors import UserError
from tests.conftest import ROOT
from tests.stand_ins.hub import Hub, Kind, Repository


def write(rows: list[dict[str, Any]], name: str = "task.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def test_rows_become_questions_with_ids_answers_and_groups(in_tmp: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"instruction": "One?", "answer": "1"},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Two?"}], "answer": 2},
        {"question": "Three?", "answer": 3.5, "id": 7, "group": "hard"},
    ]
    task = read_task(write(rows))
    found = [(one.id, one.answer, one.group) for one in task.questions]
    assert found == [("0", "1", ""), ("1", "2", ""), ("7", "3.5", "hard")]
    assert [message.text for message in task.questions[1].messages] == ["Be brief.", "Two?"]
    assert task.first(2).questions == task.questions[:2] and task.first(9) is task
    assert "first 2" in task.first(2).line()


def test_rows_that_ask_the_same_are_one_question(in_tmp: Path) -> None:
    row = {"instruction": "One?", "answer": "1"}
    task = read_task(write([row, row | {"id": "x"}, {"instruction": "Two?", "answer": "2"}]))
    assert [one.id for one in task.questions] == ["0", "2"] and "2 different questions in 3 rows" in task.line()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "One?", "answer": "1"}], "has no column messages or instruction or question or problem"),
        ([{"instruction": "One?", "label": "1"}], "has no column answer for the answer; it has instruction, label"),
        ([{"instruction": "One?", "answer": "1"}, {"instruction": "", "answer": "1"}], "row 2 has no question"),
        ([{"instruction": "One?", "answer": None}], "row 1 has no answer"),
        ([{"instruction": "One?", "answer": " "}], "row 1 has no answer"),
        ([{"instruction": "One?", "answer": ["1"]}], "row 1 has no answer"),
        ([{"instruction": "\ud800", "answer": "1"}], "row 1 has a question that is not valid UTF-8"),
        ([{"messages": [{"role": "assistant", "content": "Hi"}], "answer": "1"}], "row 1 user and assistant do not"),
        (
            [{"id": "a", "instruction": "One?", "answer": "1"}, {"id": "a", "instruction": "Two?", "answer": "2"}],
            "row 2 has the id 'a' of row 1",
        ),
        (
            [{"instruction": "One?", "answer": "1"}, {"instruction": "One?", "answer": "2"}],
            "row 2 asks what row 1 asks, and has another answer",
        ),
    ],
)
def test_a_row_without_a_question_or_an_answer_is_named(rows: list[Any], message: str, in_tmp: Path) -> None:
    with pytest.raises(UserError) as error:
        read_task(write(rows))
    assert str(error.value).startswith("--task: 'task.jsonl'") and message in str(error.value)


def test_a_file_that_is_no_json_is_named(in_tmp: Path) -> None:
    Path("task.jsonl").write_text("{]\n")
    with pytest.raises(UserError, match=r"^--task: 'task.jsonl' cannot be read: line 1 is not a JSON object"):
        read_task("task.jsonl")


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_set_is_read_by_its_own_columns(name: str, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets: dict[str, dict[str, Any]] = {
        "gsm8k": {"question": "Ann has 2 apples and buys 3. How many?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"},
        "math500": {
            "problem": "What is $1 + 1$?", "solution": r"It is \boxed{2}.", "answer": "2", "subject": "Algebra",
            "level": 1, "unique_id": "test/algebra/1.json",
        },
    }  # fmt: skip
    made = sets[name]
    known = PUBLIC[name]
    assert len(known.revision) == 40
    path = write([made], "set.jsonl")
    monkeypatch.setitem(PUBLIC, name, PublicSet(path, None, known.split, known.revision, known.columns, known.files))
    (question,) = read_task(name).questions
    assert question.messages[0].text == made.get("question", made.get("problem"))
    assert question.answer == made["answer"]
    assert (question.id, question.group) == (("0", "") if name == "gsm8k" else ("test/algebra/1.json", "Algebra"))
    write([{"other": "x"}], "set.jsonl")
    with pytest.raises(UserError, match="has no column"):
        read_task(name)


CARD = "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: main/test-*\n---\n"


def test_public_sets_come_from_the_hub_at_their_commits(in_tmp: Path) -> None:
    """In the layouts of their repositories, from a hub on this machine."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    gsm8k, math500 = (in_tmp / name for name in ("gsm8k", "math500"))
    (gsm8k / "main").mkdir(parents=True)
    (gsm8k / "README.md").write_text(CARD)
    made = {"question": ["One?", "Two?"], "answer": ["1\n#### 1", "2\n#### 2"]}
    pq.write_table(pa.table(made), gsm8k / "main" / "test-00000-of-00001.parquet")
    math500.mkdir()
    row = {"problem": "One?", "answer": "1", "subject": "Algebra", "unique_id": "test/1.json"}
    (math500 / "test.jsonl").write_text(json.dumps(row) + "\n")
    served: dict[tuple[Kind, str], Repository] = {
        ("datasets", PUBLIC[name].hub_id): Repository(folder, PUBLIC[name].revision)
        for name, folder in (("gsm8k", gsm8k), ("math500", math500))
    }
    code = "from commands.tasks import read_task\nfor name in ('gsm8k', 'math500'): print(read_task(name).line())"
    with Hub(served).serving() as hub:
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=hub.environment(in_tmp / "hf"), capture_output=True, text=True
        )
    assert ended.stdout.splitlines() == [
        "task gsm8k: 2 different questions, test of openai/gsm8k at 740312a",
        "task math500: 1 different question, test of HuggingFaceH4/MATH-500 at 6e4ed1a",
    ], ended.stderr
