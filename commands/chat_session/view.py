"""What a terminal shows of an answer: thoughts dimmed and numbered, or folded into a line each; the answer bright."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from commands.chat_session.speaker import Answered, Thought
from lightning_modules.generation.sections import ANSWER, Piece
from visible import visible

DIM, BRIGHT = "dim", "bold"
FIRST_WORDS = 48  # characters of a folded thought that are shown


class View:
    """Writes to a console. `folded`: a thought is one line, shown when it is closed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.folded = False

    def say(self, text: str, style: str = DIM) -> None:
        """Write a line of the program."""
        self.console.print(Text(visible(text, lines=True), style), soft_wrap=True)

    def stream(self, pieces: Iterable[Piece], answered: Answered) -> None:
        """Write the pieces of an answer as they come, and what it cost. An interrupt ends the line and is raised."""
        section: int | None = None  # that the last line belongs to
        try:
            for piece in pieces:
                if piece.section == ANSWER:
                    if section not in (None, ANSWER):
                        self._write("\n", DIM)
                    self._write(piece.text, BRIGHT)
                    section = ANSWER
                    continue
                thought = answered.thoughts[piece.section - 1]
                if self.folded:
                    if piece.closed:
                        self._write(_folded(piece.section, thought), DIM)
                        section = None
                    continue
                if section != piece.section:
                    if section is not None:
                        self._write("\n", DIM)
                    self._write(f"{piece.section}. ", DIM)
                    section = piece.section
                self._write(piece.text, DIM)
                if piece.closed:
                    self._write(f" {_cost(thought.tokens, thought.seconds)}\n", DIM)
                    section = None
        finally:
            if section is not None:
                self._write("\n", DIM)
        self.cost(answered)

    def show(self, answered: Answered) -> None:
        """Write a whole answer once more."""
        for number, thought in enumerate(answered.thoughts, 1):
            if self.folded:
                self._write(_folded(number, thought), DIM)
            else:
                self._write(f"{number}. {thought.text} {_cost(thought.tokens, thought.seconds)}\n", DIM)
        if answered.answer:
            self._write(f"{answered.answer}\n", BRIGHT)
        self.cost(answered)

    def cost(self, answered: Answered) -> None:
        """Write the tokens and the time of an answer, and why it ended if not by itself."""
        why = {
            "end": "", "limit": "; cut off at the limit", "budget": "; thinking was cut by its budget",
            "loop": "; thinking was in a loop, and was cut", "stopped": "; stopped",
        }[answered.ended_by]  # fmt: skip
        if answered.ended_by == "limit" and answered.finished:
            why = "; thinking was cut for the answer"
        self.say(f"{_cost(answered.tokens, answered.seconds)[:-1]}{why})")

    def _write(self, text: str, style: str) -> None:
        self.console.print(Text(visible(text, lines=True), style), end="", soft_wrap=True)
        self.console.file.flush()


def _cost(tokens: int, seconds: float) -> str:
    return f"({tokens:,} tokens, {seconds:.1f} s)"


def _folded(number: int, thought: Thought) -> str:
    text = " ".join(thought.text.split())
    text = text if len(text) <= FIRST_WORDS else f"{text[:FIRST_WORDS].rstrip()}…"
    return f"{number}. {text} {_cost(thought.tokens, thought.seconds)}\n"
