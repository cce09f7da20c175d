"""Compare the memory that `estimate` computes for a training step with measured memory.

    python -m benchmarks.memory                          # CPU: small shapes, a few minutes
    python -m benchmarks.memory --device cuda            # the real shapes
    python -m benchmarks.memory --only full checkpoint   # settings with one of these words in their name

Weights are random. Each setting runs in its own process, which builds the net, makes two optimizer steps of two
micro-batches with the longest examples, and measures its peak. On a GPU that is the most that torch allocated. On a CPU
it is the peak of the process (VmHWM) minus its memory after all imports and a warm-up. There glibc returns freed memory
to the system (MALLOC_TRIM_THRESHOLD_), because by default it keeps much of it; --as-is measures the default.
"""

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

ALL_LINEAR = "all-linear"
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One net and batch."""

    shape: str
    rows: int
    length: int
    dtype: str = "float32"
    rank: int = 8  # 0: full fine-tuning
    targets: Any = QKVO
    checkpointing: bool | int = False
    mixed: str = ""  # dtype of autocast
    fused: bool = True


def shape(hidden: int, layers: int, inner: int, heads: int, kv: int, vocabulary: int, tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": inner, "num_attention_heads": heads,
        "num_key_value_heads": kv, "vocab_size": vocabulary, "tie_word_embeddings": tied,
    }  # fmt: skip


SHAPES = {
    "body": shape(512, 8, 1408, 8, 8, 32_000, True),
    "grouped": shape(768, 6, 4096, 12, 2, 32_000, False),
    "vocabulary": shape(256, 4, 704, 4, 4, 151_936, False),
    "qwen1.5-0.5b": shape(1024, 24, 2816, 16, 16, 151_936, True),
    "qwen1.5-1.8b": shape(2048, 24, 5504, 16, 16, 151_936, False),
    "qwen2-1.5b": shape(1536, 28, 8960, 12, 2, 151_936, True),
}
CPU = {
    "body": Setting("body", 4, 512),
    "body, not fused": Setting("body", 4, 512, fused=False),
    "short": Setting("body", 8, 128),
    "checkpoint": Setting("body", 4, 512, checkpointing=True),
    "checkpoint, 3 of 8 layers": Setting("body", 4, 512, checkpointing=3),
    "all-linear": Setting("body", 4, 512, rank=64, targets=ALL_LINEAR),
    "bfloat16": Setting("body", 2, 512, "bfloat16"),
    "bf16-mixed": Setting("body", 2, 512, mixed="bfloat16"),
    "grouped": Setting("grouped", 1, 2048),
    "grouped, long, checkpoint": Setting("grouped", 1, 4096, checkpointing=True),
    "vocabulary": Setting("vocabulary", 4, 512),
    "full": Setting("body", 4, 256, rank=0),
    "full, checkpoint": Setting("body", 4, 512, rank=0, checkpointing=True),
}
CUDA = {
    "0.5b, 4 x 512": Setting("qwen1.5-0.5b", 4, 512, "bfloat16"),
    "0.5b, 1 x 4096, float32": Setting("qwen1.5-0.5b", 1, 4096),
    "0.5b, full": Setting("qwen1.5-0.5b", 4, 512, rank=0),
    "0.5b, full, bf16-mixed, checkpoint": Setting("qwen1.5-0.5b", 4, 1024, "float32", 0, QKVO, True, "bfloat16"),
    "1.8b, 4 x 512, 16-mixed": Setting("qwen1.5-1.8b", 4, 512, "float16", mixed="float16"),
    "1.8b, 1 x 4096": Setting("qwen1.5-1.8b", 1, 4096, "bfloat16"),
    "1.8b, 4 x 4096, checkpoint": Setting("qwen1.5-1.8b", 4, 4096, "bfloat16", checkpointing=True),
    "1.8b, 2 x 2048, all-linear": Setting("qwen1.5-1.8b", 2, 2048, "bfloat16", rank=64, targets=ALL_LINEAR),
    "2-1.5b, 2 x 4096": Setting("qwen2-1.5b", 2, 4096, "bfloat16"),
    "2-1.5b, 16 x 512, all-linear, mixed": Setting("qwen2-1.5b", 16, 512, "bfloat16", 16, ALL_LINEAR, mixed="bfloat16"),
}  # fmt: skip


class Tokens:
    """The part of ThinkTokenizer that a net needs: two new tags, the last tokens of the vocabulary."""

    def __init__(self, vocabulary: int) -> None:
        self.base_size, self.subtoken_ids = vocabulary - 2, [[1, 2], [3, 4]]
        self.new_ids = [vocabulary - 2, vocabulary - 1]

    def __len__(self) -> int:
        return self.base_size + 2


def build(setting: Setting, device: str) -> Any:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from lightning_modules.net.activation_checkpointing import checkpoint_activations
    from lightning_modules.net.lora import LoraSettings
    from lightning_modules.net.think_net import ThinkNet

    lora = LoraSettings(rank=setting.rank, target_modules=setting.targets) if setting.rank else None
    config = Qwen2Config(**SHAPES[setting.shape], max_position_embeddings=32_768)
    torch.set_default_dtype(getattr(torch, setting.dtype))
    try:
        with torch.device(device):
            base = Qwen2ForCausalLM(config)
            torch.set_default_dtype(torch.float32)
            checkpoint_activations(base, setting.checkpointing)
            tokenizer: Any = Tokens(config.vocab_size)
            return ThinkNet(base, tokenizer, lora, fused=setting.fused)
    finally:
        torch.set_default_dtype(torch.float32)


def measure(setting: Setting, device: str) -> float:
    """Return the peak of this process in bytes."""
    import torch

    from lightning_modules.update.optim import OptimSettings, build_optimizer

    def train(setting: Setting) -> None:
        torch.manual_seed(0)
        net = build(setting, device).to(device)
        fused = device == "cuda" and setting.mixed != "float16"  # as in think_tuner.py
        optimizer = build_optimizer(net.named_parameters(), OptimSettings(), fused)
        batch = batch_of(setting).to(device)
        for _ in range(2):
            for _ in range(2):
                with torch.autocast(device, getattr(torch, setting.mixed)) if setting.mixed else nullcontext():
                    total = net(batch).total
                total.backward()
                del total
            optimizer.step()
            optimizer.zero_grad()

    SHAPES["tiny"] = shape(64, 1, 128, 2, 2, 512, True)
    train(dataclasses.replace(setting, shape="tiny", rows=1, length=16))
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        train(setting)
        return float(torch.cuda.max_memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = status("VmRSS")
    train(setting)
    return status("VmHWM") - before


def status(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return float(line.split()[1]) * 1024


def batch_of(setting: Setting) -> Any:
    import numpy as np

    from datamodules.batches.collate import collate
    from datamodules.prepare.token_dataset import TokenExample
    from datamodules.text.segments import Role

    drawn = np.random.default_rng(0)
    roles = np.full(setting.length, Role.THOUGHT, np.int8)
    roles[0] = Role.PROMPT
    most = SHAPES[setting.shape]["vocab_size"]
    examples = [
        TokenExample(k, str(k), "", drawn.integers(0, most, setting.length), roles) for k in range(setting.rows)
    ]
    return collate(examples, setting.rows * setting.length, 0)


def estimate(setting: Setting, device: str) -> Any:
    """Return the estimate of `python cli.py estimate`."""
    import torch

    from lightning_modules.estimate.memory import StepShape, estimate_memory

    mixed = getattr(torch, setting.mixed) if setting.mixed else None
    step = StepShape(setting.rows, setting.length, device == "cuda", mixed, accumulate=2)
    return estimate_memory(build(setting, "meta"), step)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="*", default=[""], help="words in the names of the settings to run")
    parser.add_argument("--as-is", action="store_true", help="let glibc keep freed memory")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    settings = CPU if args.device == "cpu" else CUDA
    if args.measure:
        print(json.dumps(measure(settings[args.measure], args.device)))
        return
    import torch

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    if args.device == "cuda":
        print(torch.cuda.get_device_name())
    heads = ("measured MB", "estimated", "ratio", "weights", "kept", "loss", "backward")
    print(f"{'':38}" + "".join(f"{head:>12}" for head in heads))
    worst = 0.0
    for name, setting in settings.items():
        if not any(part in name for part in args.only):
            continue
        command = [sys.executable, "-m", "benchmarks.memory", "--device", args.device, "--measure", name]
        environ = os.environ if args.as_is else os.environ | {"MALLOC_TRIM_THRESHOLD_": "131072"}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environ, cwd=ROOT)
        estimated = estimate(setting, args.device)
        parts = (
            estimated.held.frozen + estimated.held.trained,
            estimated.working.activations,
            estimated.working.loss,
            estimated.working.backward,
        )
        if done.returncode:
            print(f"{name:38}      failed {estimated.total / 1e6:12,.0f}", flush=True)
            continue
        measured = float(done.stdout)
        worst = max(worst, abs(estimated.total / measured - 1))
        columns = f"{measured / 1e6:12,.0f}{estimated.total / 1e6:12,.0f}{estimated.total / measured:12.3f}"
        print(f"{name:38}{columns}" + "".join(f"{part / 1e6:12,.0f}" for part in parts), flush=True)
    print(f"largest deviation: {100 * worst:.1f} %")


if __name__ == "__main__":
    main()
