"""The basis of the speed benchmark's figures: FLOPs, the plan of steps, the file of rows, equal losses."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.limit import needed
from benchmarks.speed.plan import KINDS, Kind, plan
from benchmarks.speed.rows import IGNORED, ROOT, Rows
from benchmarks.speed.run import Runs

LENGTHS = np.random.default_rng(1).integers(20, 200, 300)


def rows() -> Rows:
    lengths = np.array([9, 4, 7])
    ids, offsets = np.arange(20, dtype=np.int32), np.concatenate([[0], np.cumsum(lengths)])
    roles = np.array([0, 0, 1, 2, 2, 3, 4, 4, 5, 0, 4, 4, 5, 0, 0, 0, 1, 3, 4, 5], np.int8)
    return Rows(ids, roles, offsets, [30, 31], [[1, 2], [1, 3]], {"tokenizer.json": b"{}"})


def test_flops_are_those_that_torch_counts() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, intermediate_size=48, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).train()
    targets, length = ["q_proj", "v_proj"], 24
    lm = get_peft_model(model, LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM"))
    model.enable_input_require_grads()  # as trained embeddings do
    ids = torch.arange(length)[None]
    with FlopCounterMode(display=False) as counter:
        lm(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    expected = needed(config.to_dict(), [length], length, 3, targets)
    pairs = length * length  # eager attention also computes pairs above the diagonal
    expected["attention"] *= pairs / (length * (length + 1) / 2)
    assert counter.get_total_flops() == pytest.approx(
        sum(expected.values()), rel=1e-3
    )  # torch also counts the rotary tables


@pytest.mark.parametrize("kind", KINDS)
def test_steps_have_whole_rows_and_no_row_twice(kind: Kind) -> None:
    steps = plan(LENGTHS, kind, 2, 150, 20)
    taken = [row for step in steps for row in step]
    assert len(steps) == 20 and len(set(taken)) == len(taken)
    assert max(LENGTHS[taken]) <= 150
    if kind == "packed":
        assert all(sum(LENGTHS[step]) <= 300 for step in steps)
        assert sum(LENGTHS[taken]) > 0.95 * 20 * 300
    else:
        assert all(len(step) == 2 for step in steps)
    if kind == "grouped":
        assert max(np.ptp(LENGTHS[step]) for step in steps) < 10


def test_rows_are_the_same_after_saving_and_prompts_have_no_label(tmp_path: Path) -> None:
    rows().save(tmp_path / "rows.npz")
    loaded = Rows.load(tmp_path / "rows.npz")
    for k in range(3):
        assert [part.tolist() for part in loaded.row(k)] == [part.tolist() for part in rows().row(k)]
    assert loaded.labels(2).tolist() == [IGNORED] * 3 + [16, 17, 18, 19]
    assert [loaded.supervised(k) for k in range(3)] == [7, 3, 4]
    assert loaded.tokenizer == {"tokenizer.json": b"{}"} and loaded.tag_subtokens == [[1, 2], [1, 3]]
    assert loaded.of_length(50, 2).lengths.tolist() == [50, 50]


def test_ours_and_plain_have_the_same_losses(tmp_path: Path) -> None:
    """Each in its own process, as in the benchmark, on the embedded model."""
    made, path = rows(), tmp_path / "rows.npz"
    made.ids[:] = np.arange(20) + 40
    made.save(path)
    steps = [[0, 1], [2], [0, 2]]
    task = {
        "device": "cpu", "dtype": "float32", "model": str(ROOT / "assets" / "tiny-qwen"), "rows": str(path),
        "threads": 1, "rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"], "lr": 1e-3, "workers": 0,
        "train_new_tokens": False, "flat": False, "warm": 1, "options": {}, "steps": steps,
        "supervised": [sum(map(made.supervised, step)) for step in steps],
        "lengths": [[int(made.lengths[row]) for row in step] for step in steps],
    }  # fmt: skip
    runs = Runs(tmp_path / "out.jsonl", time.monotonic() + 300, None)
    ours, plain = (runs.one(task | {"side": side}, 150) for side in ("ours", "plain"))
    assert "error" not in ours and "error" not in plain
    assert ours["losses"] == pytest.approx(plain["losses"], abs=1e-4)
    assert len(set(ours["losses"])) == 3 and ours["tokens"] == task["supervised"]
    assert "fused layers" in ours["path"]
