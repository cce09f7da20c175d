"""Tells vLLM which text of an answer of this model is thought, and which is the answer.

    vllm serve FOLDER --reasoning-parser-plugin FOLDER/think_blocks_parser.py --reasoning-parser think_blocks

An answer may have several blocks of thought. They are joined by an empty line in the field `reasoning`
(`reasoning_content` before vLLM 0.12). All other text is `content`, without the white space around it. A stream gives
the same texts. If it ends by the limit of tokens, and its last characters could begin a tag, as `<` could, it omits
them.

With a structured output (a JSON schema, a grammar) the model has one block, because vLLM constrains all that follows
the first closing tag. Calls of tools are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from vllm.reasoning import ReasoningParser, ReasoningParserManager

OPEN, CLOSE = "<think>", "</think>"  # the tags of this model
PROMPT_END: tuple[int, ...] = ()  # the ids at the end of each prompt, by which a prompt is told from an answer
BETWEEN = "\n\n"  # between joined thoughts
KEPT = 64  # most states of streams: a request may ask for several answers, which come in turns
TAG = re.compile(f"({re.escape(OPEN)})|{re.escape(CLOSE)}")
PLACES = (  # of the class in newer and older versions of vLLM
    "vllm.entrypoints.generate.base.protocol",
    "vllm.entrypoints.openai.engine.protocol",
    "vllm.entrypoints.openai.protocol",
)


def _delta_message() -> Any:
    for place in PLACES:
        try:
            return import_module(place).DeltaMessage
        except (ImportError, AttributeError):
            continue
    raise ImportError("this version of vLLM is not known to think_blocks_parser.py: it has no DeltaMessage")


DeltaMessage = _delta_message()
FIELD = "reasoning" if "reasoning" in DeltaMessage.model_fields else "reasoning_content"


class Blocks:
    """Reads the text of an answer in pieces of any length."""

    def __init__(self) -> None:
        self.thinking = False
        self._waits = ""  # may be the beginning of a tag
        self._spaces = {True: "", False: ""}  # white space that ends a section unless text follows
        self._begun = {True: False, False: False}  # sections that have text
        self._joined = False  # an earlier thought has text

    def read(self, text: str, last: bool = False) -> tuple[str, str]:
        """Return the new text of the thoughts, and of the answer."""
        text, self._waits = self._waits + text, ""
        found = {True: "", False: ""}
        start = 0
        for tag in TAG.finditer(text):
            found[self.thinking] += self._text(text[start : tag.start()])
            self._turn(opens=tag[1] is not None)
            start = tag.end()
        text = text[start:]
        if not last:
            longest = max(len(OPEN), len(CLOSE)) - 1
            kept = (n for n in range(min(longest, len(text)), 0, -1) if _begins_tag(text[-n:]))
            if n := next(kept, 0):
                text, self._waits = text[:-n], text[-n:]
        found[self.thinking] += self._text(text)
        return found[True], found[False]

    def _turn(self, opens: bool) -> None:
        """A tag was read. A thought that is not closed before another one opens ends there."""
        self._joined |= self._begun[True]
        self._begun[True], self._spaces[True] = False, ""
        self.thinking = opens

    def _text(self, text: str) -> str:
        text = self._spaces[self.thinking] + text
        begun = self._begun[self.thinking]
        if not begun:
            text = text.lstrip()
        shown = text.rstrip()
        self._spaces[self.thinking] = text[len(shown) :]
        self._begun[self.thinking] = begun or bool(shown)
        return BETWEEN + shown if shown and self.thinking and not begun and self._joined else shown


def _begins_tag(text: str) -> bool:
    return (len(text) < len(OPEN) and OPEN.startswith(text)) or (len(text) < len(CLOSE) and CLOSE.startswith(text))


class ThinkBlocksParser(ReasoningParser):
    """The parser `think_blocks`. An object of it reads one request, and may read several answers to it."""

    def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(tokenizer, *args, **kwargs)
        vocabulary = tokenizer.get_vocab()
        self.open_id, self.close_id = vocabulary.get(OPEN), vocabulary.get(CLOSE)
        if self.open_id is None or self.close_id is None:
            raise RuntimeError(f"the tokenizer has no tokens {OPEN} and {CLOSE}: it is not that of this folder")
        # By the text that was read: a request may have several streams, and some versions give all to one object
        self._streams: dict[str, Blocks] = {}
        self._streamed = False

    @property
    def reasoning_start_str(self) -> str:
        """The opening tag, for vLLM's own limit of thinking."""
        return OPEN

    @property
    def reasoning_end_str(self) -> str:
        """The closing tag, for vLLM's own limit of thinking."""
        return CLOSE

    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
        """Return the thoughts and the answer of a whole text; None for one that is empty."""
        reasoning, content = Blocks().read(model_output, last=True)
        return reasoning or None, content or None

    def extract_reasoning_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
    ) -> Any:
        """Return what new text adds, as a DeltaMessage; None for nothing."""
        self._streamed = True
        blocks = self._read_up_to(previous_text)
        reasoning, content = blocks.read(delta_text, last=self._ends(delta_token_ids))
        self._streams[current_text] = blocks
        if len(self._streams) > KEPT:
            del self._streams[next(iter(self._streams))]
        if not reasoning and not content:
            return None
        return DeltaMessage(**{FIELD: reasoning or None, "content": content or None})

    def get_streaming_fallback_content(self, text: str, request: Any) -> str | None:
        """Return the end of an answer that waited for the rest of a tag, which vLLM asks for at the end (0.26)."""
        _, content = self._read_up_to(text).read("", last=True)
        return content or None

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Return whether the last tag of an answer is a closing one. False for a prompt: each answer begins outside of
        a thought, and earlier answers in the prompt have tags of their own."""
        for token in reversed(self._answer(input_ids)):
            if token in (self.open_id, self.close_id):
                return bool(token == self.close_id)
        return False

    def is_reasoning_end_streaming(self, input_ids: Sequence[int], delta_ids: Iterable[int]) -> bool:
        """Return whether a structured output begins. Where a stream is read the answer is never final: after True vLLM
        would take later blocks for content."""
        return not self._streamed and self.close_id in delta_ids

    def extract_content_ids(self, input_ids: list[int]) -> list[int]:
        """Return the ids after the last closing tag."""
        ids = list(input_ids)
        return ids[len(ids) - ids[::-1].index(self.close_id) :] if self.close_id in ids else []

    def count_reasoning_tokens(self, token_ids: Sequence[int]) -> int:
        """Return the number of ids in thoughts, without tags."""
        count, thinking = 0, False
        for token in token_ids:
            if token in (self.open_id, self.close_id):
                thinking = token == self.open_id
            else:
                count += thinking
        return count

    def _read_up_to(self, text: str) -> Blocks:
        """The state of the stream with this text. It is made anew if another stream with the same text has taken it."""
        blocks = self._streams.pop(text, None)
        if blocks is None:
            blocks = Blocks()
            blocks.read(text)
        return blocks

    def _answer(self, ids: Sequence[int]) -> Sequence[int]:
        """The ids after the last end of a prompt; all if there is none."""
        ids = list(ids)
        size = len(PROMPT_END)
        starts = range(len(ids) - size, -1, -1) if size else ()
        found = next((start for start in starts if tuple(ids[start : start + size]) == PROMPT_END), None)
        return ids if found is None else ids[found + size :]

    def _ends(self, delta_ids: Sequence[int]) -> bool:
        """Whether the model wrote its end token."""
        end = getattr(self.model_tokenizer, "eos_token_id", None)
        return end is not None and end in delta_ids

    # The names before vLLM 0.12
    extract_reasoning_content = extract_reasoning
    extract_reasoning_content_streaming = extract_reasoning_streaming


ReasoningParserManager.register_module("think_blocks", module=ThinkBlocksParser)
