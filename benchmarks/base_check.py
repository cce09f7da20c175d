"""Seconds of the check that every command makes of a base: python -m benchmarks.base_check FOLDER [--dtype bfloat16]

The time includes the pass of transformers' own code, before adapters and tags are added, and our pass afterwards.
"""

import argparse
import statistics
import sys
import time

import torch
from transformers import AutoModelForCausalLM

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.net.base_check import BaseCheck
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet


def seconds(folder: str, dtype: torch.dtype) -> float:
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    tokenizer = ThinkTokenizer.load(folder)
    started = time.perf_counter()
    check = BaseCheck(base, tokenizer, folder)
    before = time.perf_counter() - started
    net = ThinkNet(base, tokenizer, LoraSettings(target_modules="all-linear"))
    started = time.perf_counter()
    check.check(net)
    return before + time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a model on disk")
    parser.add_argument("--dtype", action="append", help="float32, bfloat16 or float16; default: each of them")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    for name in given.dtype or ("float32", "bfloat16", "float16"):
        times = [seconds(given.folder, getattr(torch, name)) for _ in range(given.repeat)]
        print(f"{name:10} {min(times):.2f} s at least, {statistics.median(times):.2f} s in the median", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
