"""The columns that a user names, and the names by which the other columns are found."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from errors import UserError

# Names in the order in which they are tried
MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns", "chat")
QUESTIONS = ("instruction", "question", "problem", "prompt", "query", "input", "task")
ANSWERS = ("response", "output", "completion", "generation", "content", "answer", "solution", "text")
SYSTEMS = ("system", "system_prompt")
INPUT = "input"  # of Alpaca, beside the instruction
ROW_IDS = ("conversation_id", "uuid", "id")  # the first of them that has a value names the row
MEDIA = {"image", "images", "video", "videos", "audio", "audios"}  # a row with a value there is refused
GROUP = "difficulty"  # results are broken down by its values
REASONING = re.compile(
    r"(?:\w*_)?(?:reasoning|thinking|thoughts?|think|cot|chain_of_thought|rationale|scratchpad)"
    r"(?:_(?:content|trajectory|trace|text|process|steps?|chain))?",
    re.IGNORECASE,
)
HUMP = re.compile("(?<=[a-z])(?=[A-Z])")  # in reasoningContent


@lru_cache(1024)
def plain(name: str) -> str:
    """Return the name as the lists above write it: `Question` is question, and `Chain of Thought` chain_of_thought."""
    return "_".join(re.split(r"[\s-]+", name.strip())).lower()


def named(wanted: str, names: Iterable[str]) -> str | None:
    """Return the name that is equal to `wanted`, else the first one that differs in capitals and separators only."""
    names = list(names)
    return wanted if wanted in names else next((name for name in names if plain(name) == wanted), None)


def looks_like_reasoning(name: str) -> bool:
    """Return whether a column or a field of a message has a name of reasoning, such as `reasoning_content`."""
    return any(REASONING.fullmatch(plain(one)) for one in (name, HUMP.sub("_", name)))  # also reasoningContent


@dataclass
class Columns:
    """The columns of the source that hold the texts. A column that is null is found by its name."""

    messages: str | None = None
    """Column of a conversation: a list of messages with a role and a text, also as JSON text."""
    instruction: str | None = None
    """Column of the user's question or task."""
    response: str | None = None
    """Column of the response: thoughts in tags, then the answer; the answer alone if `reasoning` has the thoughts."""
    reasoning: str | None = None
    """Column of the thoughts, or the field of a message that holds them, without tags."""
    input: str | None = None
    """Column of a further text of the user, which follows the instruction after an empty line (Alpaca)."""
    system: str | None = None
    """Column of the system prompt of a row."""
    ignore: list[str] = field(default_factory=list)
    """Columns and fields that look like reasoning, or hold images, and shall not be read."""

    def check(self) -> None:
        """Raise UserError for columns that contradict each other."""
        if self.messages is not None and (self.instruction is not None or self.response is not None):
            fix = "delete data.columns.messages, or the columns of single texts"
            raise UserError("data.columns.messages", self.messages, "is given beside an instruction or a response", fix)
        used = [self.messages, self.instruction, self.response, self.reasoning, self.input, self.system]
        if both := next((name for name in self.ignore if name in used), None):
            raise UserError("data.columns.ignore", both, "is also a column to read", "delete it here or there")


@dataclass
class Candidates:
    """Several responses to one instruction in lists of equal length; each one that is kept becomes a row."""

    column: str | None = None
    """Column with the list of responses (OpenR1-Math: generations). null: a row has one response."""
    verdicts: str | None = None
    """Column with a list of verdicts; only responses with a true verdict are kept. null: all are right."""
    keep: int = 1
    """The most responses to keep of a row, in their order."""

    def check(self) -> None:
        """Raise UserError for verdicts without candidates."""
        if self.keep < 1:
            raise UserError("data.candidates.keep", self.keep, "keeps no response", "give a whole number from 1")
        if self.column is None and self.verdicts is not None:
            problem = "is given, but no candidates are"
            raise UserError("data.candidates.verdicts", self.verdicts, problem, "set data.candidates.column")
