"""The inputs of the small world: a tiny base, rows in every format, template, prompts and config."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

from tests.torture.forked import ROOT

BASE_SHAPE = {  # 1.1 MB of weights: enough for disk.py to remember their digest
    "vocab_size": 4_096, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "tie_word_embeddings": True, "max_position_embeddings": 512,
}  # fmt: skip
ROWS = 64
CONFIG = """\
seed_everything: 1
run: {name: torture}
model:
  name: base
  dtype: float32
  lora: {rank: 4, alpha: 8, dropout: 0.1, target_modules: all-linear}
  optim: {lr: 1e-3}
  evaluation: {rows: 2, decoding: {max_new_tokens: 6}}
data:
  source: rows.jsonl
  template: template.jinja
  near_duplicate_threshold: null
  heldout_ratio: 0.3
  max_length: 256
  train_rows: 16
  val_rows: 6
  test_rows: 4
  batch_size: 2
  num_workers: 0
  num_proc: 1
  cache_dir: cache
checkpoint: {every_n_train_steps: 3}
trainer:
  max_epochs: 2
  accelerator: cpu
  devices: 1
  accumulate_grad_batches: 2
  log_every_n_steps: 1
  enable_progress_bar: false
"""


def break_weights() -> None:
    """Make the second optimizer step of this process not finite."""
    import torch

    from lightning_modules.checkpoints.checkpoint_callback import CheckpointCallback

    usual = CheckpointCallback.on_train_batch_start

    def broken(callback: Any, trainer: Any, tuner: Any, *args: Any) -> None:
        usual(callback, trainer, tuner, *args)
        if trainer.global_step == 1:
            with torch.no_grad():
                next(p for p in tuner.parameters() if p.requires_grad).view(-1)[0] = float("nan")

    CheckpointCallback.on_train_batch_start = broken  # type: ignore[method-assign, assignment]


def write_inputs(folder: Path) -> None:
    """Write base, rows in every format, template, prompts and config."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from datamodules.rows import builtin

    base = folder / "base"
    shutil.copytree(ROOT / "assets" / "tiny-qwen", base)
    (base / "model.safetensors").unlink()
    old = json.loads((base / "config.json").read_text())
    torch.manual_seed(0)
    ends = {key: old.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    Qwen2ForCausalLM(Qwen2Config(**BASE_SHAPE, **ends)).save_pretrained(base)
    rows: list[dict[str, Any]] = [dict(builtin.row(0, k)) for k in range(ROWS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines)
    (folder / "rows.json").write_text(json.dumps(rows, indent=1))
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "rows.parquet", write_page_checksum=True)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    datasets.disable_progress_bars()
    datasets.Dataset(table).save_to_disk(str(folder / "saved"))
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
    (folder / "template.jinja").write_text("Question: {{ instruction }}\nThink, then answer: ")
    (folder / "prompts.txt").write_text("Solve x + 5 = 12\nWhat is 3 times 4?\n")
    questions = [{"instruction": f"Solve x + {k} = 12", "answer": f"x = {12 - k}"} for k in range(1, 6)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    (folder / "config.yaml").write_text(CONFIG)
