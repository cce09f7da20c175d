"""The malformed shapes of a response, and the action for each: one dial, and overrides by shape.

A well-formed response is one or more closed think blocks and then an answer. Every other shape has a name here, and the
dial `data.malformed` chooses an action for each:

| shape           | strict | repair | keep   | other actions |
|-----------------|--------|--------|--------|---------------|
| `missing_open`  | drop   | repair | repair |               |
| `unclosed`      | drop   | drop   | repair |               |
| `no_thought`    | drop   | drop   | keep   |               |
| `empty_thought` | drop   | drop   | keep   | repair        |
| `no_answer`     | drop   | drop   | keep   |               |
| `text_before`   | drop   | keep   | keep   | repair        |
| `lone_close`    | drop   | drop   | keep   | repair        |
| `nested`        | drop   | drop   | keep   | repair        |
| `tags_in_code`  | drop   | keep   | keep   |               |
| `windows_lines` | keep   | keep   | keep   | repair, drop  |
| `odd_lines`     | keep   | keep   | keep   | repair, drop  |
| `damaged`       | drop   | drop   | keep   |               |
| `repetition`    | drop   | drop   | keep   |               |

`strict` keeps well-formed responses only; line ends do not affect the blocks and are kept. `repair` repairs a response
only if its meaning is certain. `keep` drops nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from errors import UserError, suggest

Dial = Literal["strict", "repair", "keep"]
Action = Literal["drop", "repair", "keep"]


class MalformedResponse(ValueError):
    """Raised for a row that training cannot use. Its text is the reason under which the row is counted."""


class MalformedShape(NamedTuple):
    """The name of a shape in words, its action for each setting of the dial, and further actions for overrides."""

    description: str
    strict: Action
    repair: Action
    keep: Action
    others: tuple[Action, ...] = ()

    @property
    def actions(self) -> tuple[Action, ...]:
        """Every action that this shape can have."""
        return tuple(a for a in get_args(Action) if a in (self.strict, self.repair, self.keep, *self.others))


SHAPES = {
    # A closing tag comes first: the template had written the opening one. repair adds an opening tag.
    "missing_open": MalformedShape("no opening tag", "drop", "repair", "repair"),
    # The last block never ends: generation was cut off. repair closes the block at the end of the text.
    "unclosed": MalformedShape("think block never closed", "drop", "drop", "repair"),
    # The response has no block. A kept one teaches the model to answer at once.
    "no_thought": MalformedShape("no think block", "drop", "drop", "keep"),
    # A block holds only white space. repair deletes the block.
    "empty_thought": MalformedShape("empty think block", "drop", "drop", "keep", ("repair",)),
    "no_answer": MalformedShape("no answer after the thoughts", "drop", "drop", "keep"),
    # repair moves the text into the first block.
    "text_before": MalformedShape("text before the first think block", "drop", "keep", "keep", ("repair",)),
    # A closing tag follows a closed block. keep reads the tag as text, repair deletes it.
    "lone_close": MalformedShape("closing tag without an opening one", "drop", "drop", "keep", ("repair",)),
    # keep reads the inner tags as text of the outer thought, repair deletes the inner tags.
    "nested": MalformedShape("think block inside a think block", "drop", "drop", "keep", ("repair",)),
    # Tags in a code fence or between backticks. keep reads them as text.
    "tags_in_code": MalformedShape("think tags in code", "drop", "keep", "keep"),
    # repair writes LF.
    "windows_lines": MalformedShape("Windows line ends", "keep", "keep", "keep", ("repair", "drop")),
    "odd_lines": MalformedShape("U+2028, U+2029 or U+0085 as line ends", "keep", "keep", "keep", ("repair", "drop")),
    "damaged": MalformedShape("U+FFFD in place of a lost character", "drop", "drop", "keep"),
    # A stretch of 8,192 bytes (UTF-8) repeats one text.
    "repetition": MalformedShape("endless repetition", "drop", "drop", "keep"),
}


def _actions(dial: Dial) -> dict[str, Action]:
    return {name: getattr(shape, dial) for name, shape in SHAPES.items()}


@dataclass(frozen=True)
class MalformedPolicy:
    """One action for each shape."""

    actions: dict[str, Action] = field(default_factory=lambda: _actions("repair"))

    @classmethod
    def of(cls, dial: Dial = "repair", overrides: Mapping[str, str] | None = None) -> "MalformedPolicy":
        """The policy of a dial setting with the overrides {shape: action}.

        Raises UserError for an unknown shape and for an action that the shape cannot have.
        """
        actions = _actions(dial)
        for name, action in (overrides or {}).items():
            if name not in SHAPES:
                fix = suggest(str(name), SHAPES, f"choose among {', '.join(SHAPES)}")
                raise UserError("data.malformed_overrides", name, "is not a malformed shape", fix)
            allowed = SHAPES[name].actions
            chosen = next((one for one in allowed if one == action), None)
            if chosen is None:
                key, fix = f"data.malformed_overrides.{name}", f"choose {' or '.join(allowed)}"
                raise UserError(key, action, "is not an action for this shape", fix)
            actions[name] = chosen
        return cls(actions)


class ShapesFound:
    """Applies a policy to the shapes of one response and collects a note for each."""

    def __init__(self, policy: MalformedPolicy) -> None:
        self._actions = policy.actions
        self._notes: dict[str, None] = {}

    def handle(self, shape: str) -> Action:
        """Note the shape and return its action, keep or repair. Raises MalformedResponse if the action is drop."""
        action = self._actions[shape]
        description = SHAPES[shape].description
        if action == "drop":
            raise MalformedResponse(f"{description} (data.malformed_overrides.{shape})")
        self._notes[f"{description} ({'repaired' if action == 'repair' else 'kept'})"] = None
        return action

    @property
    def notes(self) -> tuple[str, ...]:
        """Each shape once, like "no opening tag (repaired)", in the order of their discovery."""
        return tuple(self._notes)
