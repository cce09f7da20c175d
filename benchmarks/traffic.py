"""Compute what a step moves between devices, and the memory with and without FSDP2. Nothing is measured or loaded.

    python -m benchmarks.traffic [--batch 4] [--length 512] [--accumulate 1]

The models are Qwen1.5's shapes, with LoRA of rank 8 on q, k, v, o and a base in bfloat16. Bytes per device and
optimizer step come from lightning_modules/estimate/traffic.py, memory from the planner of `estimate`. The efficiency of
n devices is C / (C + M): C is the time of the step's FLOPs at RATE, M that of the bytes at LINK, nothing hidden.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch

from benchmarks.speed.rows import ROOT
from lightning_modules.estimate.memory import StepShape, estimate_memory, net_on_meta
from lightning_modules.estimate.traffic import step_traffic
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.run.flops import ModelShape, training_flops
from lightning_modules.think_tuner import ThinkTuner

# hidden size, layers, inner size, heads, key and value heads, tied head; of the models' config.json
MODELS = {
    "0.5B": (1024, 24, 2816, 16, 16, True),
    "1.8B": (2048, 24, 5504, 16, 16, False),
    "7B": (4096, 32, 11008, 32, 32, False),
    "14B": (5120, 40, 13696, 40, 40, False),
    "32B": (5120, 64, 27392, 40, 8, False),
}
VOCABULARY = 151_936
DEVICES = (8, 64, 512)
MOVED = ("DDP sends", "FSDP2 gathers", "FSDP2 reduces", "memory, DDP", "memory, FSDP2 on 8")
RATE = 400e12  # FLOP/s of a device: two fifths of an H100's bfloat16 peak
LINK = 50e9  # bytes/s that a device sends: one port of 400 Gbit/s for each


def make_net(name: str, scratch: Path) -> ThinkNet:
    """Return the net of a shape on `meta`, with the tokenizer of the embedded model."""
    folder = scratch / name
    shutil.copytree(ROOT / "assets" / "tiny-qwen", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    names = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    *sizes, tied = MODELS[name]
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in ("layer_types", "head_dim")}
    config |= dict(zip(names, sizes, strict=True)) | {"tie_word_embeddings": tied, "vocab_size": VOCABULARY}
    (folder / "config.json").write_text(json.dumps(config))
    return net_on_meta(ThinkTuner(str(folder), dtype="bfloat16"))


def efficiency(flops: float, sent: float) -> float:
    """Return the share of a step in which a device computes, if communication hides behind nothing."""
    computing = flops / RATE
    return computing / (computing + sent / LINK)


def lines(name: str, scratch: Path, step: StepShape) -> tuple[str, str]:
    """Return the lines of a model in both tables."""
    net = make_net(name, scratch)
    flops = step.accumulate * training_flops(
        ModelShape.of(net), [step.max_length] * step.batch_size, step.batch_size * step.max_length
    )
    each = {sharded: {n: step_traffic(net, n, sharded, step.accumulate) for n in DEVICES} for sharded in (False, True)}
    paper = [f"{100 * efficiency(flops, each[sharded][n].total):.1f} %" for sharded in (False, True) for n in DEVICES]
    first = {sharded: each[sharded][DEVICES[0]] for sharded in (False, True)}
    alone = estimate_memory(net, step, (DEVICES[0],))[DEVICES[0]].total  # the tensors of `net` are fake ones afterwards
    shared = estimate_memory(make_net(name, scratch / "sharded"), step, (DEVICES[0],), sharded=True)[DEVICES[0]].total
    moved = f"{first[False].total / 1e6:,.1f} MB | {first[True].all_gather / 1e9:,.2f} GB"
    memory = f"{first[True].reduce_scatter / 1e6:,.1f} MB | {alone / 1e9:,.1f} GB | {shared / 1e9:,.1f} GB"
    return f"| {name} | {moved} | {memory} |", f"| {name} | {' | '.join(paper)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    args = parser.parse_args()
    step = StepShape(args.batch, args.length, True, torch.bfloat16, args.accumulate)
    print(f"| model | {' | '.join(MOVED)} |\n|---|{'---|' * len(MOVED)}", flush=True)
    papers = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.models:
            moved, paper = lines(name, Path(scratch), step)
            print(moved, flush=True)
            papers.append(paper)
    titles = [f"{kind}, {n}" for kind in ("DDP", "FSDP2") for n in DEVICES]
    print(f"\n| model | {' | '.join(titles)} |\n|---|{'---|' * len(titles)}")
    print("\n".join(papers))


if __name__ == "__main__":
    main()
