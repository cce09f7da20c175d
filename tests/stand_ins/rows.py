"""Rows with the shapes of DeepSeek-R1's answers, generated: the same seed and index give the same row.

The quantiles of lengths were measured in tokens of Qwen1.5's tokenizer on 1,192 answers to BIG-Bench-Hard puzzles and
310 answers to MATH problems. Only the shapes are realistic: the reasoning may be wrong.
"""

import bisect
import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from tests.stand_ins.phrases import (
    CODE,
    LATEX,
    LISTS,
    OPENINGS,
    PEOPLE,
    PLACES,
    SENTENCES,
    THINGS,
    TURNS,
    WORDS,
)  # fmt: skip

Row = dict[str, str]
QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1)
LENGTHS = {
    "puzzle": (219, 375, 515, 711, 1138, 1994, 2578, 3526, 4555),
    "math": (412, 775, 1720, 2820, 4791, 7345, 9868, 15430, 32917),
}
MATH_RATIO = 0.2
# The malformed rows of each 100, by index. Magpie's pipeline lets such rows through
MALFORMED = {17: "no opening tag", 41: "empty", 43: "no opening tag", 67: "cut", 83: "no opening tag"}
TOKEN = re.compile(r" ?[^\W\d_]+|\d| (?=\d)| ?[^\w\s]+|\n+|_")  # about one token of Qwen's tokenizer


def generated_rows(count: int, seed: int = 0) -> list[Row]:
    """The first `count` rows: instruction, response and source. `source` names the kind and the malformed shape."""
    return [row(index, seed) for index in range(count)]


def row(index: int, seed: int = 0) -> Row:
    """The row of this index."""
    rng = random.Random(f"{seed} {index}")
    kind = "math" if rng.random() < MATH_RATIO else "puzzle"
    malformed = MALFORMED.get(index % 100)
    instruction, answer = _instruction(rng, kind)
    wanted = _length(rng.random(), LENGTHS[kind])
    room = wanted - tokens(instruction) - tokens(answer) - 6
    response = f"<think>\n{_thought(rng, room)}\n</think>\n\n{answer}"
    if malformed == "empty":
        response = ""
    elif malformed == "no opening tag":
        response = response.removeprefix("<think>\n")
    elif malformed == "cut":
        response = response[: response.index("</think>") // 2].rstrip()
    return {"instruction": instruction, "response": response, "source": f"{kind}: {malformed or 'well-formed'}"}


def tokens(text: str) -> int:
    """About the number of tokens that Qwen's tokenizer makes of a text; within 5 percent."""
    return len(TOKEN.findall(text))


def real_rows(folder: Path) -> list[Row]:
    """The rows of r1_*.jsonl in a folder."""
    files = sorted(folder.glob("r1_*.jsonl"))
    assert files, f"{folder} has no r1_*.jsonl"
    return [json.loads(line) for file in files for line in file.open(encoding="utf-8")]


DIFFICULTIES = ("very easy", "easy", "medium", "hard", "very hard")
QUALITIES = ("excellent", "good", "average", "poor", "very poor")
CATEGORIES = ("Math", "Reasoning", "Coding & Debugging", "Planning", "Advice seeking")


def as_magpie(rows: Sequence[Row], count: int) -> Iterator[dict[str, Any]]:
    """`count` rows with the columns of Magpie-Reasoning-V2; from the second pass over `rows` on, instructions are
    numbered."""
    for index in range(count):
        row, again = rows[index % len(rows)], index // len(rows)
        instruction = f"({again}) {row['instruction']}" if again else row["instruction"]
        turns = (("human", instruction), ("gpt", row["response"]))
        yield {
            "conversation_id": f"{index:08d}", "instruction": instruction, "response": row["response"],
            "conversations": [{"from": speaker, "value": text} for speaker, text in turns],
            "gen_input_configs": {"temperature": 1.0, "top_p": 1.0, "input_generator": "generated"},
            "gen_response_configs": {"temperature": 0.6, "max_tokens": 4096, "output_generator": "generated"},
            "intent": "", "knowledge": "", "difficulty": None if index % 101 == 7 else DIFFICULTIES[index % 5],
            "difficulty_generator": "", "input_quality": QUALITIES[index % 3], "quality_explanation": "",
            "quality_generator": "", "task_category": None if index % 103 == 9 else CATEGORIES[index % 5],
            "other_task_category": [CATEGORIES[(index + 1) % 5]], "task_category_generator": "", "language": "EN",
        }  # fmt: skip


def _length(place: float, lengths: Sequence[int]) -> int:
    """The quantile at `place`, interpolated between the logarithms of the known quantiles."""
    k = min(max(bisect.bisect(QUANTILES, place) - 1, 0), len(QUANTILES) - 2)
    between = (place - QUANTILES[k]) / (QUANTILES[k + 1] - QUANTILES[k])
    low, high = math.log(lengths[k]), math.log(lengths[k + 1])
    return round(math.exp(low + between * (high - low)))


def _fields(rng: random.Random) -> dict[str, Any]:
    a, b, c = rng.randrange(2, 400), rng.randrange(2, 60), rng.randrange(2, 9_999)
    thing, other = rng.sample(THINGS, 2)
    return {
        "a": a, "b": b, "c": c, "sum": a + b, "product": a * b, "thing": thing, "other": other,
        "name": rng.choice(PEOPLE), "place": rng.choice(PLACES), "word": rng.choice(WORDS), "topic": f"{a} {thing}",
    }  # fmt: skip


def _instruction(rng: random.Random, kind: str) -> tuple[str, str]:
    """An instruction and the answer to it. The words and numbers of two instructions differ."""
    fields = _fields(rng)
    if kind == "math":
        asked = (
            "Answer the following question. Put your final answer within \\boxed{{}}.\nQuestion: In a {place} are {a} "
            "{thing} and {b} {other}, of a {words} kind. If {name} takes $\\frac{{1}}{{{b}}}$ of them, what is left?"
        )
        steps = "\n\n".join(_paragraph(rng) for _ in range(rng.randrange(1, 4)))
        answer = f"{steps}\n\n**Final Answer**\n\\[\n\\boxed{{{fields['c']}}}\n\\]"
        return asked.format(**fields, words=" ".join(rng.sample(WORDS, 4))), answer
    things = rng.sample(THINGS, 5)
    facts = [f"The {one} are more {rng.choice(WORDS)} than the {two}." for one, two in pairwise(things)]
    rng.shuffle(facts)
    choices = [f"({letter}) The {thing}" for letter, thing in zip("ABCDE", things, strict=True)]
    asked = "At the {place} of {name} are five kinds of goods. {facts}\n\nWhich are the most {word}?\n{choices}"
    return (
        asked.format(**fields, facts=" ".join(facts), choices="\n".join(choices)),
        f"The answer is ({rng.choice('ABCDE')}).",
    )


def _paragraph(rng: random.Random) -> str:
    return " ".join(rng.choice(SENTENCES).format(**_fields(rng)) for _ in range(rng.randrange(1, 5)))


def _thought(rng: random.Random, room: int) -> str:
    """Paragraphs of about `room` tokens: an opening, then sentences, turns, lists, formulas and code."""
    paragraphs = [rng.choice(OPENINGS).format(**_fields(rng))]
    used = tokens(paragraphs[0])
    for place in count(1):
        f, drawn = _fields(rng), rng.random()
        if drawn < 0.55:
            paragraph = _paragraph(rng)
        elif drawn < 0.8:
            paragraph = f"{rng.choice(TURNS).format(**f)} {_paragraph(rng)}"
        else:
            form = rng.choice(LISTS if drawn < 0.9 else LATEX if drawn < 0.98 else CODE)
            paragraph = f"So we have:\n\n{form.format(**f)}" if place % 2 else form.format(**f)
        used += tokens(paragraph) + 1
        if used > room:
            break
        paragraphs.append(paragraph)
    paragraphs.append(f"So the answer should be {_fields(rng)['c']}.")
    return "\n\n".join(paragraphs)
