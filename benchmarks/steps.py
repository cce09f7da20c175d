"""Measure the step splitter: ms for 1 MB, and precision and recall on hand-labelled reasoning, for each mode.

    python -m benchmarks.steps

For comparison: the naive `split(". ")`, and pysbd, syntok, sentencex and blingfire if they are installed. They get the
whole text, or single lines, because most of them do not end a step at a line break. pysbd and sentencex have rules for
Chinese, Japanese, German and Arabic, and are compared in these languages, too. Times are the best of several runs on
one core, on the real rows of THINKWRIGHT_REAL_ROWS, else on the repeated labelled texts.
"""

import importlib
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.real_inputs import row_files
from datamodules.text.steps import StepMode, StepSettings, split_steps
from tests.datamodules.text.test_steps import LABELLED, LABELLED_LANGUAGES, THINK, precision_and_recall

Splitter = Callable[[str], list[str]]
MODES: tuple[StepMode, ...] = ("none", "sentence", "paragraph", "marker")
PARTS = ("dev", "test", "fresh", "r1_math", "r1_puzzles", "all")
SCORED: tuple[StepMode, ...] = ("sentence", "marker")
LANGUAGES = ("zh", "ja", "de", "ar")


def megabyte(name: str) -> str:
    """Return a million characters of thoughts, from the real rows in the file of that name if there are any."""
    if path := next((path for path in row_files() if path.stem == name), None):
        responses = [json.loads(line)["response"] for line in path.read_text(encoding="utf-8").splitlines()]
        thoughts = [thought for response in responses for thought in THINK.findall(response)]
    else:
        thoughts = [excerpt["text"] for excerpt in LABELLED if excerpt["source"] == name]
    text = "\n\n".join(thoughts)
    return (text * (1_000_000 // len(text) + 1))[:1_000_000]


def milliseconds(split: Splitter, text: str, runs: int = 9) -> float:
    """Return the milliseconds for a million characters, the best of `runs`."""
    best = float("inf")
    for _ in range(runs):
        started = time.perf_counter()
        split(text)
        best = min(best, time.perf_counter() - started)
    return best * 1e9 / len(text)


def naive(text: str) -> list[str]:
    return re.split(r"(?<=\.) ", text)  # as split(". "), but keeps the full stop


def others(language: str = "en") -> Iterator[tuple[str, Splitter]]:
    """Yield the installed sentence splitters that have rules of a language."""
    makers: dict[str, Callable[[Any], Splitter]] = {
        "pysbd": lambda m: m.Segmenter(language=language, clean=False).segment,
        "syntok.segmenter": lambda m: (
            lambda text: [
                text[sentence[0].offset : sentence[-1].offset + len(sentence[-1].value)]
                for paragraph in m.analyze(text)
                for sentence in paragraph
            ]
        ),
        "sentencex": lambda m: lambda text: list(m.segment(language, text)),
        "blingfire": lambda m: lambda text: m.text_to_sentences(text).split("\n"),
    }
    for name, make in makers.items():
        if language != "en" and name not in ("pysbd", "sentencex"):
            continue
        try:
            yield name.partition(".")[0], make(importlib.import_module(name))
        except ImportError:
            continue


def by_line(split: Splitter) -> Splitter:
    return lambda text: [step for line in text.splitlines() if line.strip() for step in split(line)]


def ours(mode: StepMode) -> Splitter:
    return lambda text: split_steps(text, StepSettings(mode))


def excerpts(labelled: list[dict[str, Any]], part: str) -> list[dict[str, Any]]:
    return [excerpt for excerpt in labelled if part in (excerpt["part"], excerpt["source"], "all")]


def in_languages() -> None:
    """Print precision and recall in each language: of all its excerpts, and of those labelled last."""
    print(f"\n{'':27}" + "".join(f"{language:>15}" for language in LANGUAGES))
    for part in ("all", "fresh"):
        for mode in SCORED:
            found: dict[str, str] = {}
            counts = ""
            for language in LANGUAGES:
                here = excerpts([excerpt for excerpt in LABELLED_LANGUAGES if excerpt["source"] == language], part)
                splitters = [(mode, ours(mode)), ('naive split(". ")', naive)]
                if mode == "sentence":
                    for name, split in others(language):
                        splitters += [(name, split), (f"{name}, by line", by_line(split))]
                for name, split in splitters:
                    precision, recall, count = precision_and_recall(split, here, mode)
                    found[name] = found.get(name, "") + f"{precision:9.3f} {recall:.3f}"
                counts += f"{count:15}"
            print(f"{f'{mode} boundaries, {part}':27}{counts}")
            for name, scores in found.items():
                print(f"  {name:25}{scores}")


def main() -> None:
    print("ms for 1 MB    " + "".join(f"{mode:>11}" for mode in MODES))
    for name in ("r1_math", "r1_puzzles"):
        text = megabyte(name)
        print(f"{name:15}" + "".join(f"{milliseconds(ours(mode), text):11.1f}" for mode in MODES))

    print("\nprecision / recall         " + "".join(f"{part:>15}" for part in PARTS))
    for mode in MODES[1:]:
        counts = "".join(f"{precision_and_recall(naive, excerpts(LABELLED, part), mode)[2]:15}" for part in PARTS)
        print(f"{mode + ' boundaries':27}{counts}")
        rows = [(mode, ours(mode)), ('naive split(". ")', naive)]
        if mode == "sentence":
            for name, split in others():
                rows += [(name, split), (f"{name}, by line", by_line(split))]
        for name, split in rows:
            scores = [precision_and_recall(split, excerpts(LABELLED, part), mode) for part in PARTS]
            print(f"  {name:25}" + "".join(f"{p:9.3f} {r:.3f}" for p, r, _ in scores))

    in_languages()

    for name, split in others():
        print(f"{name}: {milliseconds(split, megabyte('r1_math')[:50_000], 1):.0f} ms for 1 MB")


if __name__ == "__main__":
    main()
