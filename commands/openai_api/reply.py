"""From the tokens of a response to the objects of the API: one object, or chunks of a stream.

A message has its answer as `content`, and its thoughts three times: joined as `reasoning_content` and as `reasoning`,
because clients differ in the name, and one by one as `thoughts`.
"""

from collections.abc import Sequence
from typing import Any

from commands.openai_api.request import Asked
from lightning_modules.generation.sections import ANSWER, Piece, SectionReader
from lightning_modules.generation.token_choice import Written

BETWEEN = "\n\n"  # between joined thoughts


class Response:
    """A response that is being written."""

    def __init__(self, reader: SectionReader) -> None:
        self.reader = reader
        self.thoughts: list[str] = []
        self.answer = ""
        self.finish: str | None = None  # finish_reason; None until its end
        self.cut: str | None = None  # why thinking was cut

    def take(self, tokens: Sequence[int]) -> list[Piece]:
        """Return the pieces that new tokens complete. A stop text ends the response."""
        pieces = [piece for token in tokens for piece in self.reader.read(token)]
        if self.reader.stopped and self.finish is None:
            self.finish = "stop"
        return self._keep(pieces)

    def end(self, written: Written) -> list[Piece]:
        """Return the last pieces."""
        ended = bool(written.ids) and written.ids[-1] in self.reader.end_ids
        self.finish, self.cut = self.finish or ("stop" if ended else "length"), written.cut
        return self._keep(self.reader.end())

    def _keep(self, pieces: list[Piece]) -> list[Piece]:
        for section, text, _ in pieces:
            self.thoughts += [""] * (section - len(self.thoughts))
            if section == ANSWER:
                self.answer += text
            else:
                self.thoughts[section - 1] += text
        return pieces

    @property
    def ended_by(self) -> str | None:
        """What ended the thinking, if it was cut, else what ended the response, as `generate --jsonl` says it."""
        return self.cut or {"stop": "end", "length": "limit"}.get(self.finish or "")


class Reply:
    """The objects of one reply. `made`: seconds since 1970."""

    def __init__(self, asked: Asked, model: str, name: str, made: int) -> None:
        self.asked = asked
        kind = "chat.completion" if asked.chat else "text_completion"
        self.head = {"id": name, "object": kind, "created": made, "model": model}
        self.chunk_head = self.head | ({"object": f"{kind}.chunk"} if asked.chat else {})
        # Without those of other fields: a thought may have no text yet, and joined thoughts need the text between them
        self._joined: dict[int, int] = {}  # the thought that a stream was in, by response

    def whole(self, responses: Sequence[Response]) -> dict[str, Any]:
        """Return the object of a reply that is not streamed."""
        choices = []
        for index, one in enumerate(responses):
            joined = BETWEEN.join(thought for thought in one.thoughts if thought) or None
            thinking = {"reasoning_content": joined, "reasoning": joined, "thoughts": one.thoughts}
            choice: dict[str, Any] = {"index": index, "finish_reason": one.finish, "logprobs": None}
            if self.asked.chat:
                choice["message"] = {"role": "assistant", "content": one.answer, "refusal": None, **thinking}
            else:
                choice |= {"text": one.answer, **thinking}
            choices.append(choice | {"ended_by": one.ended_by})
        return self.head | {"choices": choices, "usage": self.usage(responses)}

    def usage(self, responses: Sequence[Response]) -> dict[str, Any]:
        """Return the tokens of a reply. Those of a response are counted with its tags and its end token."""
        prompt = sum(len(request.ids) for request in self.asked.requests[:: self.asked.n])
        written = sum(one.reader.tokens for one in responses)
        thinking = sum(one.reader.thinking_tokens for one in responses)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "completion_tokens_details": {"reasoning_tokens": thinking},
        }

    def first(self, index: int) -> dict[str, Any]:
        """Return the first chunk of a response in a stream of chat."""
        return self._chunk(index, {"role": "assistant", "content": ""})

    def piece(self, index: int, piece: Piece) -> dict[str, Any]:
        """Return the chunk of a piece. `thoughts` has the place of the thought that it belongs to, and whether it is
        over."""
        if piece.section == ANSWER:
            return self._chunk(index, {"content": piece.text})
        text = piece.text
        if text:
            before = self._joined.get(index, piece.section)
            text = (BETWEEN if before != piece.section else "") + text
            self._joined[index] = piece.section
        thought = {"index": piece.section - 1, "text": piece.text, "closed": piece.closed}
        joined = {"reasoning_content": text, "reasoning": text} if text else {}
        return self._chunk(index, {**joined, "thoughts": [thought]})

    def last(self, index: int, response: Response) -> dict[str, Any]:
        """Return the chunk with the reason of the end."""
        chunk = self._chunk(index, {}, response.finish)
        chunk["choices"][0]["ended_by"] = response.ended_by
        return chunk

    def usage_chunk(self, responses: Sequence[Response]) -> dict[str, Any]:
        """Return the chunk after the last one of a stream with include_usage."""
        return self.chunk_head | {"choices": [], "usage": self.usage(responses)}

    def _chunk(self, index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": finish, "logprobs": None}
        if self.asked.chat:
            choice["delta"] = delta
        else:
            choice |= {"text": delta.pop("content", ""), **delta}
        usage = {"usage": None} if self.asked.usage else {}
        return self.chunk_head | {"choices": [choice], **usage}
