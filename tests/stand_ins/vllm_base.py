"""vLLM's base class for reasoning parsers, as far as a parser needs it: that of versions 0.12 to 0.33, or of 0.10."""

import sys
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel


class DeltaMessage(BaseModel):
    """A part of a stream."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None


class OldDeltaMessage(BaseModel):
    """A part of a stream before vLLM 0.12."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None


class ReasoningParser:
    """The methods that a parser must have are abstract, as in vLLM, which does not enforce them."""

    def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        self.model_tokenizer = tokenizer

    @abstractmethod
    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool: ...

    def is_reasoning_end_streaming(self, input_ids: Sequence[int], delta_ids: Iterable[int]) -> bool:
        return self.is_reasoning_end(input_ids)

    @abstractmethod
    def extract_content_ids(self, input_ids: list[int]) -> list[int]: ...

    @abstractmethod
    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]: ...

    @abstractmethod
    def extract_reasoning_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
    ) -> Any: ...


class ReasoningParserManager:
    """The parsers by name."""

    reasoning_parsers: dict[str, type[ReasoningParser]] = {}  # noqa: RUF012 (one for all, as in vLLM)

    @classmethod
    def register_module(cls, name: str, force: bool = True, module: type[ReasoningParser] | None = None) -> Any:
        assert module is not None
        cls.reasoning_parsers[name] = module
        return module


def put_in_place_of_vllm(monkeypatch: pytest.MonkeyPatch, old: bool = False) -> None:
    """Make `import vllm` give the stand-in."""
    place = "vllm.entrypoints.openai.protocol" if old else "vllm.entrypoints.generate.base.protocol"
    names = [place[: k + 1] for k in range(len(place)) if place[k + 1 : k + 2] in ("", ".")]
    for name in [one for one in sys.modules if one == "vllm" or one.startswith("vllm.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in (*names, "vllm.reasoning"):
        module: Any = ModuleType(name)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules[place].__dict__["DeltaMessage"] = OldDeltaMessage if old else DeltaMessage
    sys.modules["vllm.reasoning"].__dict__.update(
        ReasoningParser=ReasoningParser, ReasoningParserManager=ReasoningParserManager
    )
