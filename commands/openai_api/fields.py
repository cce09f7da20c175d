"""The fields of a body: their types and ranges, and those that are refused because they would have no effect."""

import json
from collections.abc import Mapping
from typing import Any

from commands.openai_api.errors import ApiError
from commands.ranges import RANGES

# Fields about the client or the bill: they change no answer, and are ignored
HARMLESS = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
}  # fmt: skip
# Fields of which only the value without effect is taken
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,), "frequency_penalty": (0,), "repetition_penalty": (1,), "logit_bias": ({},),
    "logprobs": (False,), "top_logprobs": (0,), "top_k": (0, -1), "min_p": (0,), "tools": ([],), "functions": ([],),
    "tool_choice": ("none", "auto"), "function_call": ("none", "auto"), "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},), "modalities": (["text"],), "echo": (False,), "best_of": (1,),
    "suffix": ("",),
}  # fmt: skip
STOPS, LONGEST_STOP = 16, 1_000  # texts in `stop`, characters of one


class Fields:
    """A body whose fields are taken one by one. `end` refuses what was not taken."""

    def __init__(self, body: bytes) -> None:
        try:
            given = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"the body is not JSON ({' '.join(str(error).split())[:200]})") from error
        if not isinstance(given, dict):
            raise ApiError(400, "the body is not a JSON object")
        self.left = {key: value for key, value in given.items() if value is not None}  # null is as good as not given

    def take(self, name: str) -> Any:
        """Return the value of a field, or None."""
        return self.left.pop(name, None)

    def text(self, name: str, setting: str | None = None) -> str | None:
        """Return a text, in the range of a setting of commands/ranges.py if one is named, or None."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise wrong(name, value, "give a text")
        if setting is not None:
            _check_range(name, value, setting)
        return value

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise wrong(name, value, "give true or false")
        return bool(value)

    def number(self, name: str, setting: str, whole: bool = True) -> Any:
        """Return a number in the range of a setting of commands/ranges.py, or None."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, float) and whole and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise wrong(name, value, f"give a {'whole ' if whole else ''}number")
        _check_range(name, value, setting)
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            raise wrong(name, value, "give an object")
        return value or {}

    def stop(self) -> tuple[str, ...]:
        """Return the texts of `stop`."""
        value = self.take("stop")
        texts = [value] if isinstance(value, str) else value if value is not None else []
        if not isinstance(texts, list) or not all(isinstance(one, str) and one for one in texts):
            raise wrong("stop", value, "give a text, or a list of texts that are not empty")
        if len(texts) > STOPS or any(len(one) > LONGEST_STOP for one in texts):
            fix = f"give at most {STOPS} texts of at most {LONGEST_STOP:,} characters"
            raise wrong("stop", value, fix)
        return tuple(texts)

    def end(self) -> None:
        """Refuse the fields that are left, unless they are harmless or have a value without effect."""
        for name, value in self.left.items():
            if name in HARMLESS or any(value == one and type(value) in (type(one), float) for one in _neutral(name)):
                continue
            if name in WITHOUT_EFFECT:
                raise ApiError(400, f"{name}: {shown(value)} is not supported. Delete the field.", name)
            raise ApiError(400, f"{name}: there is no such field. Delete it; docs/serving.md has the table.", name)


def _check_range(name: str, value: Any, setting: str) -> None:
    rule = RANGES[setting]
    if (problem := rule.problem(value)) is not None:
        raise ApiError(400, f"{name}: {shown(value)} {problem}. {rule.fix()[:1].upper()}{rule.fix()[1:]}.", name)


def _neutral(name: str) -> tuple[Any, ...]:
    return WITHOUT_EFFECT.get(name, ())


def wrong(name: str, value: Any, fix: str) -> ApiError:
    """Return the refusal of a value of a wrong kind."""
    return ApiError(400, f"{name}: {shown(value)} is not valid. {fix[:1].upper()}{fix[1:]}.", name)


def shown(value: Any) -> str:
    """Return a value as an error shows it."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:60]}…{text[-15:]}"
