"""Random texts of hostile pieces, from the row to the tokens: nothing is lost, and each token has its role.

A text goes through the whole pipeline that prepares rows: parsed by a random policy, split into steps, rendered,
tokenized. It then is put together again from its tokens, and compared with the response.
"""

import functools
import random
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tests.datamodules.text.test_response import CHANGED, REPAIRED_BY, closed
from tests.torture.forked import ROOT
from tests.torture.suite import Case
from tests.torture.world import World

if TYPE_CHECKING:
    from datamodules.text.example import Example
    from datamodules.tokens.process import ProcessedExample, ProcessingConfig
    from datamodules.tokens.tokenizer import ThinkTokenizer

KIND = "texts"
CASES, TEXTS, BATCH = 100, 10_000, 100
ONE_TOKEN = (1, 3, 5)  # the roles TAG_OPEN, TAG_CLOSE and END
WORDS = (
    "a", "Wait", " Hmm. ", "x = 7", "12.5%", "So ", "e.g. this", "Dr. Who", "No. 5", "The end.", "Done!", "Why?", " ",
    "\n", "\n\n", "\t", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\u00a0", "\u3000",
    "\ufeff", "\u200b", "\u200d", "\u202e", "\u2066", "\u00ad", "\x00", "\x1b[31m", "\x7f", "\ufffd", "\ud800",
    "\udcff", "\U000e0041", "\U0010fffd", "\ufffe", "é", "e\u0301", "ß", "İ", "ﬁ", "中文。", "数字は５です。", "한국어",
    "العربية؟", "हिन्दी।", "ไทย", "\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "𝔸",
)  # fmt: skip
TAGS = (
    "<think>", "</think>", "<think>", "</think>", "<think>\n", "\n</think>\n\n", "<think", "</think", "think>",
    "< think>", "<THINK>", "<thinking>", "</ think>", "<think/>", "<|im_end|>", "<|im_start|>", "<|endoftext|>",
    "<tool_call>", "<step>", "&lt;think&gt;", "<thi\u200bnk>", "<answer>", "</answer>", "\ufeff<think>",
    "</think>\u2060",
)  # fmt: skip
MARKS = (
    "`", "``", "```", "```py\n", "\n```\n", "~~~\n", "$", "$$", "\\(", "\\)", "\\[", "\\]", "\\begin{align}",
    "\\end{align}", "\\boxed{5}", "(", ")", "[", "]", "{", "}", '"', "“", "”", "'", "「", "」", "«", "»", "...", "…",
    "!?", "。", "！", ".", ". ", "\n- ", "\n1. ", "|", "**", "#", "\\", "/", "<", ">", "&", "%", "\n> ", "---\n",
)  # fmt: skip
RUNS = (" ", ".", "\n", "`", "(", "[", "$", "a", "0", "<think>", "</think>", "Wait. ", '"', "\u200b", "中", "\\")


def cases(world: World) -> list[Case]:
    return [
        Case(KIND, seed, f"{TEXTS:,} texts, {seed}", functools.partial(_check, seed), tried=TEXTS, first=True)
        for seed in range(CASES)
    ]


def text(rng: random.Random) -> str:
    """A response of some pieces: mostly a thought and an answer, sometimes with a long run of one piece."""
    pieces = [rng.choice(rng.choice((WORDS, WORDS, TAGS, MARKS))) for _ in range(rng.randrange(1, 16))]
    if rng.random() < 0.03:
        pieces.insert(rng.randrange(len(pieces)), rng.choice(RUNS) * rng.randrange(2, 3_000))
    if rng.random() < 0.6:
        close = rng.randrange(len(pieces))
        pieces = ["<think>", *pieces[:close], "</think>", *pieces[close:]]
    return "".join(pieces)


def _check(seed: int) -> Iterator[str]:
    """Yield the seed, the text and the reason of each text that fails."""
    from datamodules.text.malformed import SHAPES, MalformedPolicy
    from datamodules.text.steps import StepSettings
    from datamodules.tokens.process import ProcessingConfig
    from datamodules.tokens.tokenizer import ThinkTokenizer
    from tests.conftest import TEMPLATE

    tokenizer = ThinkTokenizer.load(str(ROOT / "assets" / "tiny-qwen"))
    rng = random.Random(seed)
    for _ in range(TEXTS // BATCH):
        actions = {name: rng.choice(shape.actions) for name, shape in SHAPES.items()}
        steps = StepSettings(rng.choice(("none", "sentence", "paragraph", "marker")))
        config = ProcessingConfig(TEMPLATE, steps, 10**6, malformed=MalformedPolicy(actions))
        yield from _failures([text(rng) for _ in range(BATCH)], config, tokenizer)


def _failures(responses: Sequence[str], config: "ProcessingConfig", tokenizer: "ThinkTokenizer") -> Iterator[str]:
    from datamodules.layouts.columns import Columns
    from datamodules.layouts.reader import RowReader
    from datamodules.text.example import parse_example
    from datamodules.text.malformed import MalformedResponse
    from datamodules.tokens.process import process

    instruction = "What does <|im_end|> mean?</think>"
    reader = RowReader(Columns())
    rows = [{"instruction": instruction, "response": one} for one in responses]
    raws = [raw for k, row in enumerate(rows) for raw in reader.read(row, k)]
    for raw, response, result in zip(raws, responses, process(raws, config, tokenizer.encoder), strict=True):
        try:
            example = parse_example(raw, config.tags, config.malformed)
        except MalformedResponse as malformed:
            wrong = "" if result.reason == str(malformed) and not len(result.ids) else f"kept, but {malformed}"
        else:
            wrong = _wrong(response, example, result, config, tokenizer)
        if wrong:
            yield f"{wrong}: {response[:200]!r}, {config.steps.split}, {config.malformed.actions}"


def _wrong(
    response: str,
    example: "Example",
    result: "ProcessedExample",
    config: "ProcessingConfig",
    tokenizer: "ThinkTokenizer",
) -> str:
    """What is wrong with a row that was parsed; empty if nothing is."""
    from datamodules.text.response import unparse
    from datamodules.text.segments import Role, render

    repairs = {note for note in example.notes if note.endswith(CHANGED)} - set(REPAIRED_BY.values())
    if not repairs and unparse(example.passages) != closed(response, example.notes):
        return "a response without repairs is not put together again"
    segments = [one for one in render(example, config.template, config.steps) if one.text or one.role in ONE_TOKEN]
    for role, passages in (
        (Role.THOUGHT, example.thoughts),
        (Role.ANSWER, [t for t, thought in example.passages if not thought]),
    ):
        if _solid("".join(one.text for one in segments if one.role == role)) != _solid("".join(passages)):
            return f"text of role {role.name} is lost"
    if result.reason is not None:
        return f"dropped: {result.reason}"
    ids, roles = result.ids, result.roles
    if len(ids) != len(roles) or set(roles.tolist()) - set(Role):
        return "tokens without a role"
    starts = np.flatnonzero(np.diff(roles, prepend=-1) | np.isin(roles, ONE_TOKEN))
    if roles[starts].tolist() != [int(one.role) for one in segments]:
        return "roles in another order than the texts"
    tags = ((tokenizer.open_id, Role.TAG_OPEN), (tokenizer.close_id, Role.TAG_CLOSE), (tokenizer.end_id, Role.END))
    if any(((ids == token) != (roles == role)).any() for token, role in tags):
        return "a token of a tag or of the end in a text"
    names = {
        Role.TAG_OPEN: tokenizer.tags.open,
        Role.TAG_CLOSE: tokenizer.tags.close,
        Role.END: tokenizer.decode([tokenizer.end_id]),
    }
    # The tokenizer composes accents (NFC) in each text by itself
    spelled = "".join(names.get(one.role) or unicodedata.normalize("NFC", one.text) for one in segments)
    return "" if tokenizer.decode(ids.tolist()) == spelled else "the tokens spell another text"


def _solid(text: str) -> str:
    """The text without white space, which may be lost between two steps."""
    return "".join(text.split())
