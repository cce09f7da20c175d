"""Measure the judge on labelled pairs of answers, beside Math-Verify alone.

    python -m benchmarks.judge [--pairs FILE.jsonl]

Each line of the file has `reference`, `written`, `right` (the label), `kind` and `part`. False right: a wrong answer
that counts as right. False wrong: a right answer that counts as wrong. Math-Verify alone gets both whole texts, in
dollar signs where LaTeX has no delimiters, and finds the answers in them by itself.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightning_modules.judge.judge import judge
from lightning_modules.judge.math_verify_worker import MathVerify

MATHEMATICS = ("number", "notation", "latex", "interval", "matrix", "set and tuple")  # what Math-Verify is made for
LATEX = ("latex", "interval", "matrix", "set and tuple")
PAIRS = Path(__file__).parents[1] / "tests/lightning_modules/judge/pairs.jsonl"


@dataclass(frozen=True)
class Pair:
    kind: str
    part: str
    reference: str
    written: str
    right: bool


@dataclass
class Score:
    """Counts of one judge on some pairs."""

    right: int = 0  # pairs whose label is right
    wrong: int = 0
    false_right: list[Pair] = field(default_factory=list)
    false_wrong: list[Pair] = field(default_factory=list)
    seconds: float = 0.0
    longest: float = 0.0  # seconds of one pair

    def line(self, name: str) -> str:
        rights, wrongs = (
            f"{len(mistakes):4} ({100 * len(mistakes) / max(1, of):4.1f} %)"
            for mistakes, of in ((self.false_right, self.wrong), (self.false_wrong, self.right))
        )
        time_taken = f"{self.seconds:6.1f} s, longest {self.longest:.2f}"
        return f"{name:34}{self.right + self.wrong:6}  {rights}   {wrongs}   {time_taken}"


def load(path: Path = PAIRS) -> list[Pair]:
    return [Pair(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def delimited(text: str, kind: str) -> str:
    """Return LaTeX without delimiters in dollar signs: Math-Verify would not see it, or only a number in it."""
    bare = not re.search(r"\$|\\boxed|\\\(|\\\[|\n", text)
    return f"${text}$" if bare and ("\\" in text or kind in LATEX) else text


def alone_says_right(worker: MathVerify, pair: Pair) -> bool:
    texts = (delimited(text, pair.kind) for text in (pair.reference, pair.written))
    return worker.compare(*texts, as_found=True) == "same"


def score(pairs: Iterable[Pair], says_right: Callable[[Pair], bool]) -> Score:
    """Return how a judge's verdicts differ from the labels."""
    total = Score()
    for pair in pairs:
        started = time.perf_counter()
        verdict = says_right(pair)
        took = time.perf_counter() - started
        total.seconds, total.longest = total.seconds + took, max(total.longest, took)
        total.right, total.wrong = total.right + pair.right, total.wrong + (not pair.right)
        if verdict != pair.right:
            (total.false_right if verdict else total.false_wrong).append(pair)
    return total


def rungs(pairs: Iterable[Pair]) -> Counter[tuple[str, bool]]:
    """Return how many pairs each rung decided, as right and as wrong."""
    verdicts = [judge(pair.written, pair.reference) for pair in pairs]
    return Counter((verdict.rung, verdict.right) for verdict in verdicts)


def print_table(pairs: Sequence[Pair]) -> None:
    worker = MathVerify()
    worker.compare("1", "1")  # so that no line has the start of a worker
    judge(r"\frac{x}{2}", r"\frac{y}{3}")
    parts = {part: [pair for pair in pairs if pair.part == part] for part in dict.fromkeys(pair.part for pair in pairs)}
    print(f"{'':34}{'pairs':>6}  {'false right':13}   {'false wrong':13}   time")
    mistakes = []
    parts["mathematics"] = [pair for pair in pairs if pair.kind in MATHEMATICS]
    parts["all"] = list(pairs)
    for part, own in parts.items():
        ours = score(own, lambda pair: judge(pair.written, pair.reference).right)
        alone = score(own, lambda pair: alone_says_right(worker, pair))
        print(ours.line(f"{part}: judge"))
        print(alone.line(f"{part}: Math-Verify alone"), flush=True)
        mistakes = [*(("right", pair) for pair in ours.false_right), *(("wrong", pair) for pair in ours.false_wrong)]
    worker.close()
    print("\nrung                   right   wrong")
    counts = rungs(pairs)
    for rung in dict.fromkeys(rung for rung, _ in counts.elements()):
        print(f"{rung:20}{counts[rung, True]:8}{counts[rung, False]:8}")
    for said, pair in mistakes:
        print(f"\nfalse {said}: {pair.written[:80]!r} for {pair.reference[:80]!r}", end="")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, default=PAIRS, help="labelled pairs; default: the project's")
    print_table(load(parser.parse_args().pairs))


if __name__ == "__main__":
    main()
