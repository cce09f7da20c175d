"""The built-in rows: an endless, seeded stream of small maths problems in the columns of Magpie-Reasoning-V2.

Row `i` of a seed is a function of (seed, i), so each row can be made alone. Two styles share the problems:

- `think`: the response is like R1's: `<think>`, the steps, `</think>`, a short answer. The demo trains on these.
- `plain`: a response without think tags: the answer alone, the written-out work if the instruction asks for it, or bare
  arithmetic. `assets/tiny-qwen` was pretrained on these: it knows the arithmetic and answers at once.

A problem is identified by its family and its numbers, not by its names and wording. A hash without a seed decides
whether it is held out, so no style and no seed trains on a held-out problem.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

Style = Literal["think", "plain"]

HELD_OUT_ONE_IN = 10
DIFFICULTY = {1: "very easy", 2: "easy", 3: "medium", 4: "hard"}  # by number of operations
SPACED_RATIO = 0.85  # of the equations are written as "x + 5 = 12", the others as "x+5=12"
CHECK_RATIO = 0.25  # of the instructions ask for a check
SLIP_RATIO = 0.05  # of the think rows contain one wrong result and its correction
SHOW_WORK = "Show your work. "


@dataclass(frozen=True)
class Step:
    """One operation. `text` has `{}` in place of `expression = value`."""

    text: str
    expression: str
    value: int

    def render(self, slip: int = 0) -> str:
        """Return the sentence. A slip is added to the value and corrected in the next sentence."""
        sentence = self.text.format(f"{self.expression} = {self.value + slip}")
        return sentence + (f" Wait, {self.expression} = {self.value}, not {self.value + slip}." if slip else "")


@dataclass(frozen=True)
class Problem:
    family: str
    numbers: tuple[int, ...]
    question: str
    opening: str
    steps: tuple[Step, ...]
    check: str
    answer: str

    @property
    def key(self) -> str:
        """A text that is equal for problems that differ only in wording."""
        return f"{self.family}:{','.join(map(str, self.numbers))}"

    def asked(self, check: bool) -> str:
        """Return the instruction, with or without a request for a check."""
        if not check:
            return self.question
        return self.question + ("" if self.question[-1] in ".?" else ".") + " Check your answer."


def is_held_out(row: dict[str, Any]) -> bool:
    """Return whether the problem of this row is held out (one problem in ten)."""
    key = row["conversation_id"].split("/")[0]
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0


# Equations in one unknown


def _equation(
    rng: random.Random, family: str, numbers: tuple[int, ...], v: str, equation: str, steps: list[Step], check: str
) -> Problem:
    """A problem whose last number is the solution for the variable `v`."""
    wordings = ("Solve {}", "Solve {}.", f"Solve for {v}: {{}}", f"Find {v} if {{}}.", f"What is {v} when {{}}?")
    asked = equation if rng.random() < SPACED_RATIO else equation.replace(" ", "")
    question = rng.choice(wordings).format(asked)
    opening, answer = f"Okay, we have {equation}.", f"{v} = {numbers[-1]}"
    return Problem(family, numbers, question, opening, tuple(steps), f"Check: {check}.", answer)


def add(rng: random.Random) -> Problem:
    a, x, v = rng.randint(1, 60), rng.randint(1, 60), rng.choice("xxxyn")
    left = rng.choice((f"{v} + {a}", f"{v} + {a}", f"{a} + {v}"))
    steps = [Step(f"Subtract {a} from both sides: {v} = {{}}.", f"{x + a} - {a}", x)]
    return _equation(rng, "add", (a, x), v, f"{left} = {x + a}", steps, f"{x} + {a} = {x + a}")


def subtract(rng: random.Random) -> Problem:
    a, b, v = rng.randint(1, 60), rng.randint(1, 60), rng.choice("xxxyn")
    x = a + b
    steps = [Step(f"Add {a} to both sides: {v} = {{}}.", f"{b} + {a}", x)]
    return _equation(rng, "subtract", (a, x), v, f"{v} - {a} = {b}", steps, f"{x} - {a} = {b}")


def multiply(rng: random.Random) -> Problem:
    a, x, v = rng.randint(2, 12), rng.randint(2, 20), rng.choice("xxxyn")
    steps = [Step(f"Divide both sides by {a}: {v} = {{}}.", f"{a * x} / {a}", x)]
    return _equation(rng, "multiply", (a, x), v, f"{a}{v} = {a * x}", steps, f"{a} * {x} = {a * x}")


def linear(rng: random.Random) -> Problem:
    a, b, x, v = rng.randint(2, 9), rng.randint(1, 40), rng.randint(2, 12), rng.choice("xxxyn")
    d = a * x
    divide = Step(f"Divide both sides by {a}: {v} = {{}}.", f"{d} / {a}", x)
    if b < d and rng.random() < 0.5:
        steps = [Step(f"Add {b} to both sides: {a}{v} = {{}}.", f"{d - b} + {b}", d), divide]
        return _equation(rng, "linear", (a, -b, x), v, f"{a}{v} - {b} = {d - b}", steps, f"{a} * {x} - {b} = {d - b}")
    steps = [Step(f"Subtract {b} from both sides: {a}{v} = {{}}.", f"{d + b} - {b}", d), divide]
    return _equation(rng, "linear", (a, b, x), v, f"{a}{v} + {b} = {d + b}", steps, f"{a} * {x} + {b} = {d + b}")


def bracket(rng: random.Random) -> Problem:
    a, b, x, v = rng.randint(2, 9), rng.randint(1, 9), rng.randint(1, 12), rng.choice("xxxyn")
    s = x + b
    steps = [
        Step(f"Divide both sides by {a}: {v} + {b} = {{}}.", f"{a * s} / {a}", s),
        Step(f"Subtract {b} from both sides: {v} = {{}}.", f"{s} - {b}", x),
    ]
    return _equation(rng, "bracket", (a, b, x), v, f"{a}({v} + {b}) = {a * s}", steps, f"{a} * {s} = {a * s}")


def both_sides(rng: random.Random) -> Problem:
    c, k, b, x, v = rng.randint(2, 5), rng.randint(2, 6), rng.randint(1, 30), rng.randint(2, 12), rng.choice("xxxyn")
    a, d = c + k, k * x + b
    steps = [
        Step(f"Subtract {c}{v} from both sides: {{}}, so {k}{v} + {b} = {d}.", f"{a} - {c}", k),
        Step(f"Subtract {b} from both sides: {k}{v} = {{}}.", f"{d} - {b}", k * x),
        Step(f"Divide both sides by {k}: {v} = {{}}.", f"{k * x} / {k}", x),
    ]
    check = f"{a} * {x} + {b} = {a * x + b}"
    return _equation(rng, "both sides", (a, b, c, x), v, f"{a}{v} + {b} = {c}{v} + {d}", steps, check)


def bracket_and_more(rng: random.Random) -> Problem:
    a, b, c, x, v = rng.randint(2, 6), rng.randint(1, 9), rng.randint(2, 5), rng.randint(2, 12), rng.choice("xxxyn")
    ab, k = a * b, a + c
    total = k * x + ab
    steps = [
        Step(f"Multiply out: {{}}, so {a}{v} + {ab} + {c}{v} = {total}.", f"{a} * {b}", ab),
        Step(f"Collect {v}: {{}}, so {k}{v} + {ab} = {total}.", f"{a} + {c}", k),
        Step(f"Subtract {ab} from both sides: {k}{v} = {{}}.", f"{total} - {ab}", k * x),
        Step(f"Divide both sides by {k}: {v} = {{}}.", f"{k * x} / {k}", x),
    ]
    check = f"{k} * {x} + {ab} = {total}"
    return _equation(rng, "bracket and more", (a, b, c, x), v, f"{a}({v} + {b}) + {c}{v} = {total}", steps, check)


# Numbers, sequences and words


def product_sum(rng: random.Random) -> Problem:
    a, b, c = rng.randint(2, 12), rng.randint(2, 12), rng.randint(1, 60)
    steps = (
        Step("Multiply first: {}.", f"{a} * {b}", a * b),
        Step(f"Then add {c}: {{}}.", f"{a * b} + {c}", a * b + c),
    )
    question = rng.choice(("Compute {}", "What is {}?")).format(f"{a} * {b} + {c}")
    check = f"Check: {a * b + c} - {c} = {a * b}."
    opening = f"Okay, we have {a} * {b} + {c}."
    return Problem("product sum", (a, b, c), question, opening, steps, check, str(a * b + c))


def two_products(rng: random.Random) -> Problem:
    a, b, c, d = (rng.randint(2, 9) for _ in range(4))
    p, q = a * b, c * d
    steps = (
        Step("The first product is {}.", f"{a} * {b}", p),
        Step("The second product is {}.", f"{c} * {d}", q),
        Step("Add them: {}.", f"{p} + {q}", p + q),
    )
    question = rng.choice(("Compute {}", "What is {}?")).format(f"{a} * {b} + {c} * {d}")
    opening = f"Okay, we have {a} * {b} + {c} * {d}."
    return Problem("two products", (a, b, c, d), question, opening, steps, f"Check: {p + q} - {q} = {p}.", str(p + q))


def percentage(rng: random.Random) -> Problem:
    times, tenth = rng.randint(1, 9), rng.randint(1, 40)
    n, value = 10 * tenth, times * tenth
    steps = [Step("Ten percent is {}.", f"{n} / 10", tenth)]
    if times > 1:
        steps.append(Step(f"{10 * times}% is {times} times that: {{}}.", f"{times} * {tenth}", value))
    question = rng.choice(("What is {}?", "Find {}", "Compute {}")).format(f"{10 * times}% of {n}")
    opening = f"Okay, we want {10 * times}% of {n}."
    check = f"Check: {value} / {times} = {tenth}."
    return Problem("percentage", (times, n), question, opening, tuple(steps), check, str(value))


def sequence(rng: random.Random) -> Problem:
    first, d = rng.randint(1, 40), rng.randint(2, 15)
    terms = [first + d * i for i in range(4)]
    shown = ", ".join(map(str, terms))
    steps = (
        Step("Each term grows by {}.", f"{terms[1]} - {terms[0]}", d),
        Step("The next term is {}.", f"{terms[3]} + {d}", terms[3] + d),
    )
    question = rng.choice(("What comes next: {}?", "Find the next number: {}", "Continue the sequence {}")).format(
        shown
    )
    opening, check = f"Okay, the numbers are {shown}.", f"Check: {terms[3]} - {terms[2]} = {d}."
    return Problem("sequence", (first, d), question, opening, steps, check, str(terms[3] + d))


NAMES = ("Tom", "Mia", "Ben", "Ada", "Sam", "Eva", "Leo", "Ida")
ITEMS = ("apples", "pens", "books", "cards", "stamps", "eggs")


def boxes(rng: random.Random) -> Problem:
    a, b, c = rng.randint(2, 9), rng.randint(2, 12), rng.randint(1, 30)
    name, item = rng.choice(NAMES), rng.choice(ITEMS)
    p = a * b
    gives = c < p and rng.random() < 0.5
    total, verb, sign = (p - c, "gives away", "-") if gives else (p + c, "buys", "+")
    question = f"{name} has {a} boxes with {b} {item} each and {verb} {c} {item}. How many {item} does {name} have now?"
    after = f"After {name} {verb} {c} there are {{}}."
    steps = (Step("The boxes hold {}.", f"{a} * {b}", p), Step(after, f"{p} {sign} {c}", total))
    check = f"Check: {total} {'+' if gives else '-'} {c} = {p}."
    opening = f"Okay, count the {item}."
    return Problem("boxes", (a, b, -c if gives else c), question, opening, steps, check, f"{total} {item}")


def shopping(rng: random.Random) -> Problem:
    a, p, b, q = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9)
    name, (one, two) = rng.choice(NAMES), rng.sample(ITEMS, 2)
    question = f"{name} buys {a} {one} at {p} dollars each and {b} {two} at {q} dollars each. What does it cost?"
    steps = (
        Step(f"The {one} cost {{}}.", f"{a} * {p}", a * p),
        Step(f"The {two} cost {{}}.", f"{b} * {q}", b * q),
        Step("Together that is {}.", f"{a * p} + {b * q}", a * p + b * q),
    )
    check = f"Check: {a * p + b * q} - {b * q} = {a * p}."
    answer = f"{a * p + b * q} dollars"
    return Problem("shopping", (a, p, b, q), question, "Okay, add up the prices.", steps, check, answer)


FAMILIES: tuple[Callable[[random.Random], Problem], ...] = (
    add, subtract, multiply, linear, linear, bracket, both_sides, bracket_and_more,
    product_sum, two_products, percentage, sequence, boxes, shopping,
)  # fmt: skip


# Rows


def think_response(problem: Problem, rng: random.Random, check: bool) -> str:
    """Return `<think>`, newline, sentences, newline, `</think>`, blank line and answer: the format of R1."""
    slipped = rng.randrange(len(problem.steps)) if rng.random() < SLIP_RATIO else -1
    slip = rng.choice((-10, -1, 1, 2, 10))
    steps = [step.render(slip if i == slipped else 0) for i, step in enumerate(problem.steps)]
    thought = " ".join([problem.opening, *steps, *([problem.check] if check else [])])
    return f"<think>\n{thought}\n</think>\n\n{problem.answer}"


def plain_row(problem: Problem, rng: random.Random, check: bool) -> tuple[str, str]:
    """Return (instruction, response) without think tags: the answer at once, the written-out work, or a drill."""
    question = problem.asked(check)
    kind = rng.random()
    if kind < 0.12:
        return question, problem.answer
    if kind < 0.6:
        worked = [problem.opening, *(step.render() for step in problem.steps), *([problem.check] if check else [])]
        return SHOW_WORK + question, "\n".join([*worked, problem.answer])
    drill = [rng.choice(rng.choice(FAMILIES)(rng).steps) for _ in range(rng.randint(1, 6))]
    asked = ", ".join(step.expression for step in drill)
    return f"Compute {asked}", "\n".join(f"{step.expression} = {step.value}" for step in drill)


def row(seed: int, index: int, style: Style = "think") -> dict[str, Any]:
    """Return one row with the columns of Magpie-Reasoning-V2. `conversation_id` is `problem key/seed/index`."""
    rng = random.Random(f"{seed}/{index}/{style}")
    problem = rng.choice(FAMILIES)(rng)
    check = rng.random() < CHECK_RATIO
    if style == "think":
        instruction, response = problem.asked(check), think_response(problem, rng, check)
    else:
        instruction, response = plain_row(problem, rng, check)
    turns = [{"from": "human", "value": instruction}, {"from": "gpt", "value": response}]
    return {
        "conversation_id": f"{problem.key}/{seed}/{index}",
        "instruction": instruction,
        "response": response,
        "conversations": turns,
        "difficulty": DIFFICULTY[min(len(problem.steps), 4)],
        "input_quality": "good",
        "task_category": "Math",
        "language": "EN",
    }


def rows(seed: int, style: Style = "think") -> Iterator[dict[str, Any]]:
    """Return the endless rows 0, 1, 2, … of this seed. Training and held-out problems are mixed: see `is_held_out`."""
    return (row(seed, index, style) for index in count())
