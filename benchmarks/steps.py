"""Measures the step splitter: ms for 1 MB, and precision and recall against hand-labelled traces, mode by mode.

    python benchmarks/steps.py

Beside it stand the naive `split(". ")` and each of pysbd, syntok, sentencex and blingfire that is installed;
they see the text whole, or line by line, which most of them need to end a step at a line break. Times are the best
of several runs on one core. They use the real traces in ../shared/real where these are at hand, and the labelled ones
over and over where not.
"""

import importlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from datamodules.text.steps import StepMode, StepSettings, split_steps  # noqa: E402
from tests.datamodules.text.test_steps import LABELLED, THINK, boundaries, labelled_steps  # noqa: E402

Splitter = Callable[[str], list[str]]
MODES: tuple[StepMode, ...] = ("none", "sentence", "paragraph", "marker")
PARTS = ("dev", "test", "fresh", "r1_math", "r1_puzzles", "all")


def megabyte(name: str) -> str:
    """A million characters of thoughts, from the file of that name if we have it."""
    path = ROOT.parent / "shared" / "real" / f"{name}.jsonl"
    if path.is_file():
        responses = [json.loads(line)["response"] for line in path.read_text(encoding="utf-8").splitlines()]
        thoughts = [thought for response in responses for thought in THINK.findall(response)]
    else:
        thoughts = [excerpt["text"] for excerpt in LABELLED if excerpt["source"] == name]
    text = "\n\n".join(thoughts)
    return (text * (1_000_000 // len(text) + 1))[:1_000_000]


def milliseconds(split: Splitter, text: str, runs: int = 9) -> float:
    """For a million characters, the best of so many runs."""
    best = float("inf")
    for _ in range(runs):
        started = time.perf_counter()
        split(text)
        best = min(best, time.perf_counter() - started)
    return best * 1e9 / len(text)


def precision_and_recall(split: Splitter, mode: StepMode, part: str) -> tuple[float, float, int]:
    right = found = labelled = 0
    for excerpt in LABELLED:
        if part in (excerpt["part"], excerpt["source"], "all"):
            ours, theirs = boundaries(split(excerpt["text"])), boundaries(labelled_steps(excerpt, mode))
            right, found, labelled = right + len(ours & theirs), found + len(ours), labelled + len(theirs)
    return right / max(found, 1), right / labelled, labelled


def naive(text: str) -> list[str]:
    return re.split(r"(?<=\.) ", text)  # split(". "), the stop kept


def others() -> Iterator[tuple[str, Splitter]]:
    """The sentence splitters that are installed."""
    makers: dict[str, Callable[[Any], Splitter]] = {
        "pysbd": lambda m: m.Segmenter(language="en", clean=False).segment,
        "syntok.segmenter": lambda m: (
            lambda text: [
                text[sentence[0].offset : sentence[-1].offset + len(sentence[-1].value)]
                for paragraph in m.analyze(text)
                for sentence in paragraph
            ]
        ),
        "sentencex": lambda m: lambda text: list(m.segment("en", text)),
        "blingfire": lambda m: lambda text: m.text_to_sentences(text).split("\n"),
    }
    for name, make in makers.items():
        try:
            yield name.partition(".")[0], make(importlib.import_module(name))
        except ImportError:
            continue


def by_line(split: Splitter) -> Splitter:
    return lambda text: [step for line in text.splitlines() if line.strip() for step in split(line)]


def ours(mode: StepMode) -> Splitter:
    return lambda text: split_steps(text, StepSettings(mode))


def main() -> None:
    print("ms for 1 MB    " + "".join(f"{mode:>11}" for mode in MODES))
    for name in ("r1_math", "r1_puzzles"):
        text = megabyte(name)
        print(f"{name:15}" + "".join(f"{milliseconds(ours(mode), text):11.1f}" for mode in MODES))

    print("\nprecision / recall         " + "".join(f"{part:>15}" for part in PARTS))
    for mode in MODES[1:]:
        counts = "".join(f"{precision_and_recall(naive, mode, part)[2]:15}" for part in PARTS)
        print(f"{mode + ' boundaries':27}{counts}")
        rows = [(mode, ours(mode)), ('naive split(". ")', naive)]
        if mode == "sentence":
            for name, split in others():
                rows += [(name, split), (f"{name}, by line", by_line(split))]
        for name, split in rows:
            scores = [precision_and_recall(split, mode, part) for part in PARTS]
            print(f"  {name:25}" + "".join(f"{p:9.3f} {r:.3f}" for p, r, _ in scores))

    for name, split in others():
        print(f"{name}: {milliseconds(split, megabyte('r1_math')[:50_000], 1):.0f} ms for 1 MB")


if __name__ == "__main__":
    main()
