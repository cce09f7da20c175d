"""A model that answers: its engine, and the pieces of an answer as they are written."""

import queue
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datamodules.layouts.conversation import Message
from datamodules.text.segments import Template, ask
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.engine import End, Engine
from lightning_modules.generation.sections import ANSWER, Piece, SectionReader
from lightning_modules.generation.token_choice import Request, Written


@dataclass
class Thought:
    """A thought of an answer."""

    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    closed: bool = False


@dataclass
class Answered:
    """An answer of a model, or the part that was written when it was stopped."""

    speaker: str
    thoughts: list[Thought] = field(default_factory=list)
    answer: str = ""
    tokens: int = 0  # with tags and the end token
    seconds: float = 0.0
    ended_by: str = "stopped"  # end, limit, or budget, limit or loop for thinking that was cut; stopped by Ctrl-C
    finished: bool = False  # by an end token
    text: str = ""  # as the model wrote it, with tags, without the end token


@dataclass(frozen=True)
class Speaker:
    """A loaded model."""

    name: str
    engine: Engine
    tokenizer: ThinkTokenizer
    template: Template
    end_tokens: Any  # the generation config of its base

    def request(self, messages: Sequence[Message], settings: DecodingSettings, seed: int) -> Request:
        """Return the request for the next answer.

        Raises MalformedResponse if the template has no place for the messages, and UserError for a prompt that leaves
        no room in the context, before the model runs.
        """
        (ids,) = self.tokenizer.encode_prompts([ask(messages, self.template)])
        room = self.engine.context - len(ids)
        if room < 1:
            problem = f"has {len(ids):,} tokens with the turns before it, and the context {self.engine.context:,}"
            raise UserError("prompt", None, problem, "shorten it, or type /new")
        decoding = Decoding.of(self.tokenizer, self.end_tokens, replace(settings, max_new_tokens=self.engine.context))
        return Request(ids, seed, min(room, settings.max_new_tokens), decoding)

    def answer(self, request: Request, answered: Answered) -> Generator[Piece, None, None]:
        """Yield the pieces of an answer, and fill `answered`. The writing stops if the iterator is closed."""
        decoding = request.decoding or self.engine.decoding
        reader = SectionReader(self.tokenizer, decoding.end_ids, decoding.opens(request.ids))
        heard: queue.SimpleQueue[tuple[list[int], End | None]] = queue.SimpleQueue()
        began = opened = time.monotonic()
        ids: list[int] = []
        job = self.engine.submit(request, lambda tokens, end: heard.put(([*tokens], end)))
        try:
            while True:
                tokens, end = heard.get()
                for token in tokens:
                    ids.append(token)
                    thinking, section = reader.thinking_tokens, reader.section
                    pieces = reader.read(token)
                    if reader.section not in (section, ANSWER):
                        opened = time.monotonic()
                    while len(answered.thoughts) < reader.thoughts:
                        answered.thoughts.append(Thought())
                    now = time.monotonic()
                    if (reader.section or section) != ANSWER:
                        thought = answered.thoughts[(reader.section or section) - 1]
                        thought.tokens += reader.thinking_tokens - thinking
                        thought.seconds = now - opened
                    answered.tokens, answered.seconds = reader.tokens, now - began
                    yield from self._kept(pieces, answered)
                if isinstance(end, Exception):
                    problem = f"could not be written ({type(end).__name__}: {' '.join(str(end).split())[:200]})"
                    raise UserError("answer", None, problem, "ask again, or begin with a lower --context") from end
                if end is not None:
                    yield from self._kept(reader.end(), answered)
                    self._close(answered, end, reader)
                    return
        finally:
            job.cancel()
            answered.text = self.tokenizer.decode([token for token in ids if token not in reader.end_ids])

    @staticmethod
    def _kept(pieces: Sequence[Piece], answered: Answered) -> Iterator[Piece]:
        for piece in pieces:
            if piece.section == ANSWER:
                answered.answer += piece.text
            else:
                thought = answered.thoughts[piece.section - 1]
                thought.text, thought.closed = thought.text + piece.text, piece.closed
            yield piece

    @staticmethod
    def _close(answered: Answered, written: Written, reader: SectionReader) -> None:
        answered.finished = bool(written.ids) and written.ids[-1] in reader.end_ids
        answered.ended_by = written.cut or ("end" if answered.finished else "limit")
