"""A Template in Go's template language, in which Ollama renders conversations.

Ollama finds the tags of thoughts in it: they are the texts right around `{{ .Thinking }}`. It joins neighbouring
messages of one role, and all system messages into one.
"""

import re

from datamodules.text.malformed import MalformedResponse
from datamodules.text.tags import Tags
from datamodules.text.turn_texts import SYSTEM, TurnTexts

# What a Modelfile or Go would read as something else: a brace, three quotes, and characters that are not printed, which
# Ollama drops
SPECIAL = re.compile(r'\{+|"{3,}|[^\x20-\x7e\n\t]')
LAST = "{{ $last := eq (len (slice $.Messages $i)) 1 }}"
LAST_QUESTION = (
    '{{ $asked := -1 }}{{ range $i, $_ := .Messages }}{{ if eq .Role "user" }}{{ $asked = $i }}{{ end }}{{ end }}'
)


def go_template(texts: TurnTexts, tags: Tags, begin: str = "") -> str:
    """Return the text of the template. It continues an answer that is the last message. `begin` is what Ollama puts
    before each prompt, so the template omits it.

    Raises MalformedResponse for tags that Ollama could not find in it.
    """
    with_system, before = (one.before.removeprefix(begin) for one in (texts.with_system, texts.turns))
    system = f"{{{{ if .System }}}}{_text(with_system)}{{{{ else }}}}{_text(before)}{{{{ end }}}}"
    asks, thought = _either(texts, "ask"), _thought(texts, tags)
    if texts.several:
        question = f"{{{{ .Content }}}}{{{{ if $last }}}}{asks}{{{{ else }}}}{_either(texts, 'answer')}{{{{ end }}}}"
        answer = f"{thought}{{{{ .Content }}}}{{{{ if not $last }}}}{_either(texts, 'next')}{{{{ end }}}}"
    else:
        system = LAST_QUESTION + system
        question = f"{{{{ if eq $i $asked }}}}{{{{ .Content }}}}{asks}{{{{ end }}}}"
        answer = f"{{{{ if gt $i $asked }}}}{thought}{{{{ .Content }}}}{{{{ end }}}}"
    role = f'{{{{ if eq .Role "user" }}}}{question}{{{{ else if eq .Role "assistant" }}}}{answer}{{{{ end }}}}'
    return f"{system}{{{{ range $i, $_ := .Messages }}}}{LAST}{role}{{{{ end }}}}"


def _either(texts: TurnTexts, name: str) -> str:
    """A text that may be another one in a conversation with a system message."""
    plain, with_system = getattr(texts.turns, name), getattr(texts.with_system, name)
    if plain == with_system:
        return _text(plain)
    return f"{{{{ if $.System }}}}{_text(with_system)}{{{{ else }}}}{_text(plain)}{{{{ end }}}}"


def _thought(texts: TurnTexts, tags: Tags) -> str:
    """The reasoning of an answer; only of the last one, if the template omits that of earlier answers."""
    opening, closing = texts.around_thought or (tags.open, tags.close)
    if "{{" in _text(opening + closing):
        raise MalformedResponse(f"Ollama would not find the tags {tags.open} and {tags.close}")
    condition = ".Thinking" if texts.around_thought else "and $last .Thinking"
    return f"{{{{ if {condition} }}}}{opening}{{{{ .Thinking }}}}{closing}{{{{ end }}}}"


def _text(text: str) -> str:
    """A text as it stands in a template, with the system message in its place."""

    def quoted(found: re.Match[str]) -> str:
        if found[0].isprintable() and found[0][0] not in '{"':
            return found[0]
        escaped = "".join({'"': '\\"', "{": "{"}.get(one) or f"\\U{ord(one):08x}" for one in found[0])
        return f'{{{{ "{escaped}" }}}}'

    return "{{ $.System }}".join(SPECIAL.sub(quoted, part) for part in text.split(SYSTEM))
