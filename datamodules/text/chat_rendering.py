"""Messages rendered by a chat template as transformers does it, and cut at the tokens that the model knows by name.

A text of the data may spell the name of such a token. It would become the token, so a character that occurs nowhere in
the messages (the guard) stands inside of each name while the template renders, and is removed from the result.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from datamodules.text.chat_template import HIDDEN_CLOSE, HIDDEN_OPEN
from datamodules.text.malformed import MalformedResponse

# Private-use characters. The first ones are marks of templates, the last one separates the texts of a row
PRIVATE_USE = (range(0xE010, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFD))


def unused_characters(texts: Iterable[str], count: int) -> list[str]:
    """Return private-use characters that occur in none of the texts. Raises MalformedResponse if all do."""
    used = set().union(*texts)
    free = list(islice((chr(i) for i in chain(*PRIVATE_USE) if chr(i) not in used), count))
    if len(free) < count:
        raise MalformedResponse("uses every private-use character")
    return free


def guarded(text: str, names: tuple[str, ...], guard: str) -> str:
    """Return the text with the guard after the first character of each name, so that it holds no name."""
    starts = _starts(names)
    return starts.sub(lambda found: found[0] + guard, text)


def rendered(template: str, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> str:
    """Return the prompt that asks for the next answer. Raises MalformedResponse if the template fails."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        texts, _ = render_jinja_template(
            conversations=[list(messages)], chat_template=template, add_generation_prompt=True, **variables
        )
    except Exception as error:  # of jinja2, or raised by the template, for example for a system turn
        reason = " ".join(str(error).split())[:200]
        raise MalformedResponse(f"data.template fails for its messages ({reason})") from error
    text: str = texts[0]
    return text


def cut_at_names(text: str, names: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Yield the texts between names, and the names, each with whether it is a name."""
    for k, part in enumerate(_names(names).split(text)):
        if part:
            yield part, k % 2 == 1


@lru_cache(16)
def _names(names: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")


@lru_cache(16)
def _starts(names: tuple[str, ...]) -> re.Pattern[str]:
    """A character at which a name begins. Names may overlap: each begins at a character of its own."""
    known = (*names, HIDDEN_OPEN, HIDDEN_CLOSE)
    first = "".join(map(re.escape, sorted({name[0] for name in known})))  # rules out most characters at once
    return re.compile(f"(?=[{first}])(?={'|'.join(map(re.escape, known))}).", re.DOTALL)
