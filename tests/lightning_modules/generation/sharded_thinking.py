"""Run by test_sharded_thinking.py: two CPU processes answer rows with a model that FSDP2 has sharded over them.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… python tests/lightning_modules/generation/sharded_thinking.py FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.evaluation.answers import HeldOutRow, answer_rows
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import TINY, random_lm

STEERED: dict[str, Any] = {
    "max_new_tokens": 24, "grammar": True, "thinking_budget": 6, "answer_reserve": 8, "cut_message": "!", "extend": 1,
    "extend_text": "", "temperature": 1.0,
}  # fmt: skip
PROMPTS = (["Solve x + 5 = 12", "Hi", "Why?"], ["What is 7 * 8?"])  # of each rank


def answers(prompts: list[str], sharded: bool) -> list[str]:
    """Return the raw responses."""
    tokenizer = ThinkTokenizer.load(str(TINY))
    net = ThinkNet(random_lm("qwen2"), tokenizer, LoraSettings())
    if sharded:
        net.shard(init_device_mesh("cpu", (2,)))
    decoding = Decoding.of(tokenizer, None, DecodingSettings(**STEERED))
    rows = [HeldOutRow(k, "all", ids, [tokenizer.end_id]) for k, ids in enumerate(tokenizer.encode(prompts))]
    answered = answer_rows(net, tokenizer, decoding, rows, lambda: False, lambda *_: None, sharded)
    return [row.written.raw for row in answered]


def main(folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    (folder / f"{rank}.json").write_text(json.dumps(answers(PROMPTS[rank], sharded=True)))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
