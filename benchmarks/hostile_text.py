"""CPU time to split, parse and sign 1 MB of each kind of hostile text, on one core, and whether it grows linearly.

    python -m benchmarks.hostile_text                 # 1,000,000 characters of each of the patterns
    python -m benchmarks.hostile_text --characters 100000 --pattern '. ' --pattern '「'

A pattern is repeated. Growth is the time of the whole text divided by that of its half: 2 if linear, 4 if quadratic.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from datamodules.rows.near_duplicates import signature
from datamodules.text.malformed import MalformedPolicy
from datamodules.text.response import parse
from datamodules.text.steps import StepSettings, split_steps

PATTERNS = (
    # runs of every class of characters
    ".", "!", "?", "…", "。", "؟", "।", ",", "-", "=", "*", "_", "#", "~", "|", "\\", "$", "<", ">", "&",
    " ", "\u00a0", "\u3000", "\u200b", "\n", "\r\n", "\t", "\u2028", "1", "a", "A", "好", "م", "🙂", "e\u0301",
    # brackets, quotes, fences, tags
    '"', "'", "“", "”", "«", "「", "」", "(", ")", "[", "]", "{", "}", "`", "```\n", "~~~\n", "$$ ", "\\(", "\\[",
    "\\begin{", "\\begin{a}\\end{b} ", "<think>", "</think>", "<think>a</think>", "<b>", "</b>", "<!--", "&lt;",
    # sentences, numbers, lists, tables and mixtures
    "a. ", "A. ", "1. ", "e.g. ", "No. ", "z. B. ", "Wait. ", "\nWait", "word ", "12 ", "3! (", "`a` ", "``` ",
    "**a.** ", '"a. ', "( a. ", "「a。", ". \n", "?) ", ":\n", "- ", "\n ", "\n\u3000\n", "|a. b|\n",
    'a. "b (c [d $e `f \\(g ',
)  # fmt: skip
FUNCTIONS: dict[str, Callable[[str], object]] = {
    "split into sentences": lambda text: split_steps(text, StepSettings(split="sentence")),
    "split into paragraphs": lambda text: split_steps(text, StepSettings(split="paragraph")),
    "split at markers": lambda text: split_steps(text, StepSettings(split="marker")),
    "parse": lambda text: parse(text, policy=MalformedPolicy.of("keep")),
    "signature": signature,
}


def seconds(function: Callable[[str], object], text: str) -> float:
    started = time.process_time()  # other programs on the machine do not count
    with suppress(ValueError):  # a malformed response
        function(text)
    return time.process_time() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--characters", type=int, default=1_000_000)
    parser.add_argument("--pattern", action="append", help="only this text, repeated")
    given = parser.parse_args()
    patterns = given.pattern or PATTERNS
    print(f"{len(patterns)} patterns, {given.characters:,} characters each")
    print(f"{'':24}{'median':>9}{'slowest':>9}{'growth':>8}  slowest pattern")
    for name, function in FUNCTIONS.items():
        times = {}
        for pattern in patterns:
            text = (pattern * (given.characters // len(pattern) + 1))[: given.characters]
            times[pattern] = seconds(function, text[: len(text) // 2]), seconds(function, text)
        slowest = max(times, key=lambda pattern: times[pattern][1])
        half, whole = times[slowest]
        median = statistics.median(whole for _, whole in times.values())
        print(f"{name:24}{median:8.3f}s{whole:8.3f}s{whole / half:8.1f}  {slowest!r}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
