"""The configs of public data sets, on small files with the same columns and types."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli import main
from tests.conftest import ROOT, TINY

THOUGHT, ANSWER = "9 = 3 * 3, so no.", "No."
TAGGED = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"
SPLIT = [("from", pa.string()), ("value", pa.string())]
CHAT = [("role", pa.string()), ("content", pa.string())]


def ask(k: int) -> str:
    return f"Is {3 * k} a prime number, yes or no? Case {k}."


def table(rows: list[dict[str, Any]], **types: Any) -> pa.Table:
    names = list(rows[0])
    return pa.table({name: pa.array([row[name] for row in rows], types.get(name)) for name in names})


def openthoughts3(k: int) -> dict[str, Any]:
    turns = [{"from": "human", "value": ask(k)}, {"from": "gpt", "value": TAGGED}]
    return {"difficulty": k % 3, "source": "math", "domain": "math", "conversations": turns}


def openthoughts_114k(k: int) -> dict[str, Any]:
    response = f"<|begin_of_thought|>\n\n{THOUGHT}\n\n<|end_of_thought|>\n\n{ANSWER}"
    turns = [{"from": "user", "value": ask(k)}, {"from": "assistant", "value": response}]
    return {"system": "Think first.", "conversations": turns}


def openr1_math(k: int) -> dict[str, Any]:
    return {
        "problem": ask(k), "solution": "Factor it.", "answer": ANSWER, "problem_type": "Number Theory",
        "question_type": "MCQ", "source": "olympiads", "uuid": f"u{k}", "is_reasoning_complete": [True, True],
        "generations": ["<think>\nWrong.\n</think>\n\nYes.", TAGGED], "correctness_math_verify": [False, True],
        "correctness_llama": None, "finish_reasons": None, "correctness_count": 1,
        "messages": [{"role": "user", "content": ask(k)}, {"role": "assistant", "content": TAGGED}],
    }  # fmt: skip


def s1k(k: int) -> dict[str, Any]:
    return {
        "solution": "Factor it.", "question": ask(k), "cot_type": "math", "source_type": "qq8933/AIME",
        "metadata": "{}", "gemini_thinking_trajectory": "Hm.", "gemini_attempt": "Yes.",
        "deepseek_thinking_trajectory": THOUGHT, "deepseek_attempt": ANSWER,
        "gemini_grade": "No", "gemini_grade_reason": "x", "deepseek_grade": "Yes", "deepseek_grade_reason": "y",
    }  # fmt: skip


def smoltalk2(k: int) -> dict[str, Any]:
    kwargs = {"custom_instructions": None, "enable_thinking": True, "python_tools": None, "xml_tools": None}
    turns = [{"role": "user", "content": ask(k)}, {"role": "assistant", "content": TAGGED}]
    return {"messages": turns, "chat_template_kwargs": kwargs, "source": "x"}


def messages(k: int) -> dict[str, Any]:
    answer = {"role": "assistant", "reasoning_content": THOUGHT, "content": ANSWER}
    return {"messages": [{"role": "user", "content": ask(k)}, answer]}


def alpaca(k: int) -> dict[str, Any]:
    return {"instruction": "Is this a prime number, yes or no?", "input": f"{3 * k}, case {k}", "output": TAGGED}


CASES: dict[str, tuple[Callable[[int], dict[str, Any]], dict[str, Any] | str]] = {
    "openthoughts3": (openthoughts3, {"conversations": pa.list_(pa.struct(SPLIT))}),
    "openthoughts_114k": (openthoughts_114k, {"conversations": pa.list_(pa.struct(SPLIT))}),
    "openr1_math": (openr1_math, {"messages": pa.list_(pa.struct(CHAT))}),
    "s1k": (s1k, {}),
    "smoltalk2": (smoltalk2, {"messages": pa.list_(pa.struct(CHAT))}),
    "messages": (messages, "jsonl"),
    "alpaca": (alpaca, "json"),
}


def test_every_config_of_a_public_data_set_is_tried_here() -> None:
    named = {path.stem for path in (ROOT / "configs" / "data").glob("*.yaml")}
    assert named - {"mix", "turns", "last_close"} == {*CASES}


@pytest.mark.parametrize("name", CASES)
def test_the_config_reads_every_row_of_such_a_file(name: str, in_tmp: Path) -> None:
    row, types = CASES[name]
    rows = [row(k) for k in range(6)]
    path = in_tmp / f"rows.{types if isinstance(types, str) else 'parquet'}"
    if isinstance(types, str):
        path.write_text(json.dumps(rows) if types == "json" else "".join(json.dumps(one) + "\n" for one in rows))
    else:
        pq.write_table(table(rows, **types), path)
    configs = [str(ROOT / "configs" / f"{one}.yaml") for one in ("multi_think", f"data/{name}")]
    options = (
        "--data.source", path.name, "--data.config", "null", "--data.split", "train", "--data.max_length", "512",
        "--data.near_duplicate_threshold", "null", "--data.train_rows", "null", "--data.val_rows", "null",
        "--data.test_rows", "null", "--data.steps.split", "none", "--model.name", str(TINY), "--jsonl", "out.jsonl",
    )  # fmt: skip
    assert main(["preview", "--config", configs[0], "--config", configs[1], *options]) == 0
    found = [json.loads(line) for line in (in_tmp / "out.jsonl").read_text().splitlines()]
    assert [one["reason"] for one in found] == [None] * 6
    assert all(ask(k) in {one["instruction"] for one in found} for k in range(6)) or name == "alpaca"
    assert {one["thoughts"][0].strip() for one in found} == {THOUGHT}
    assert {one["answer"].strip() for one in found} == {ANSWER}
    if name == "alpaca":
        assert {one["instruction"] for one in found} == {
            f"{row(k)['instruction']}\n\n{row(k)['input']}" for k in range(6)
        }
    if name == "openthoughts_114k":
        assert {one["messages"][0]["text"] for one in found} == {"Think first."}
