"""The malformed shapes of a response, and the action for each: one dial, and overrides by shape.

A well-formed response is one or more closed think blocks and then an answer. Every other shape has a name here, and the
dial `data.malformed` chooses an action for each:

| shape            | strict | repair | last_close | keep   | other actions |
|------------------|--------|--------|------------|--------|---------------|
| `missing_open`   | drop   | repair | repair     | repair |               |
| `unclosed`       | drop   | drop   | drop       | repair |               |
| `no_thought`     | drop   | drop   | drop       | keep   |               |
| `empty_thought`  | drop   | drop   | drop       | keep   | repair        |
| `no_answer`      | drop   | drop   | drop       | keep   |               |
| `text_before`    | drop   | keep   | repair     | keep   |               |
| `lone_close`     | drop   | drop   | last_close | keep   | repair        |
| `nested`         | drop   | drop   | last_close | keep   | repair        |
| `tags_in_code`   | drop   | keep   | keep       | keep   |               |
| `wrapped_answer` | keep   | keep   | keep       | keep   | repair, drop  |
| `zero_width`     | keep   | keep   | keep       | keep   | repair, drop  |
| `windows_lines`  | keep   | keep   | keep       | keep   | repair, drop  |
| `odd_lines`      | keep   | keep   | keep       | keep   | repair, drop  |
| `damaged`        | drop   | drop   | drop       | keep   |               |
| `repetition`     | drop   | drop   | drop       | keep   |               |

`strict` keeps well-formed responses only; shapes that do not affect the blocks are kept. `repair` repairs a response
only if its meaning is certain. `last_close` also takes all before the last closing tag for thinking. `keep` drops
nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from errors import UserError, suggest

Dial = Literal["strict", "repair", "last_close", "keep"]
Action = Literal["drop", "repair", "last_close", "keep"]


class Fault(NamedTuple):
    """A reason to drop a row, and where it is seen: an offset in the response, or None."""

    reason: str
    at: int | None = None


class MalformedResponse(ValueError):
    """Raised for a row that training cannot use. `faults` has every reason; the row is counted under each of them.

    A reason alone is a fault without a place.
    """

    def __init__(self, *faults: Fault | str) -> None:
        self.faults = tuple(Fault(one) if isinstance(one, str) else one for one in faults)
        super().__init__("; ".join(fault.reason for fault in self.faults))

    def without_places(self) -> "MalformedResponse":
        """Return the same reasons without places, for a text that is not the response itself."""
        return MalformedResponse(*(fault.reason for fault in self.faults))


class MalformedShape(NamedTuple):
    """The name of a shape in words, its action for each setting of the dial, and further actions for overrides."""

    description: str
    strict: Action
    repair: Action
    last_close: Action
    keep: Action
    others: tuple[Action, ...] = ()

    @property
    def actions(self) -> tuple[Action, ...]:
        """Every action that this shape can have."""
        return tuple(
            a for a in get_args(Action) if a in (self.strict, self.repair, self.last_close, self.keep, *self.others)
        )


NOTED = {"repair": "repaired", "last_close": "last_close", "keep": "kept"}  # actions in a note
REPAIR: tuple[Action, ...] = ("repair",)
REPAIR_OR_DROP: tuple[Action, ...] = ("repair", "drop")
WRAPPERS = (  # tags that data sets write around an answer
    ("<answer>", "</answer>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|begin_of_answer|>", "<|end_of_answer|>"),
    ("<solution>", "</solution>"),
)

SHAPES = {
    # A closing tag comes first: the template had written the opening one. repair adds an opening tag.
    "missing_open": MalformedShape("no opening tag", "drop", "repair", "repair", "repair"),
    # The last block never ends: generation was cut off. repair closes the block at the end of the text.
    "unclosed": MalformedShape("think block never closed", "drop", "drop", "drop", "repair"),
    # The response has no block. A kept one teaches the model to answer at once.
    "no_thought": MalformedShape("no think block", "drop", "drop", "drop", "keep"),
    # A block holds only white space. repair deletes the block.
    "empty_thought": MalformedShape("empty think block", "drop", "drop", "drop", "keep", REPAIR),
    "no_answer": MalformedShape("no answer after the thoughts", "drop", "drop", "drop", "keep"),
    # repair moves the text into the first block.
    "text_before": MalformedShape("text before the first think block", "drop", "keep", "repair", "keep"),
    # A closing tag follows a closed block. keep reads the tag as text, repair deletes it. last_close makes one block of
    # all from the first opening tag to the last closing one, and deletes the tags between.
    "lone_close": MalformedShape("closing tag without an opening one", "drop", "drop", "last_close", "keep", REPAIR),
    # keep reads the inner tags as text of the outer thought, repair deletes them. last_close as above.
    "nested": MalformedShape("think block inside a think block", "drop", "drop", "last_close", "keep", REPAIR),
    # Tags in a code fence or between backticks. keep reads them as text.
    "tags_in_code": MalformedShape("think tags in code", "drop", "keep", "keep", "keep"),
    # All of the answer stands between two tags (WRAPPERS). repair deletes them and the white space next to them inside.
    "wrapped_answer": MalformedShape("tags around the answer", "keep", "keep", "keep", "keep", REPAIR_OR_DROP),
    # U+FEFF, U+200B or U+2060 at an edge of a thought or of a text. repair deletes them there.
    "zero_width": MalformedShape("zero-width characters around tags", "keep", "keep", "keep", "keep", REPAIR_OR_DROP),
    # repair writes LF.
    "windows_lines": MalformedShape("Windows line ends", "keep", "keep", "keep", "keep", REPAIR_OR_DROP),
    "odd_lines": MalformedShape(
        "U+2028, U+2029 or U+0085 as line ends", "keep", "keep", "keep", "keep", REPAIR_OR_DROP
    ),
    "damaged": MalformedShape("U+FFFD in place of a lost character", "drop", "drop", "drop", "keep"),
    # 8,192 bytes (UTF-8) repeat a text of at most 1,024 bytes: see repetition.py.
    "repetition": MalformedShape("endless repetition", "drop", "drop", "drop", "keep"),
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
    """Applies a policy to the shapes of one response, and collects a note or a fault for each."""

    def __init__(self, policy: MalformedPolicy) -> None:
        self._actions = policy.actions
        self._handled: dict[str, Action] = {}
        self._notes: list[str] = []
        self._faults: dict[str, int | None] = {}

    def handle(self, shape: str, at: int | None = None) -> Action:
        """Note the shape, first seen at the offset `at` of the response, and return its action.

        For a shape that is dropped this is the action of the dial `keep`, so that further shapes are found.
        """
        if shape in self._handled:  # a response can have a shape many thousand times
            return self._handled[shape]
        action = self._actions[shape]
        if action == "drop":
            self._faults[f"{SHAPES[shape].description} (data.malformed_overrides.{shape})"] = at
            action = SHAPES[shape].keep
        else:
            self._notes.append(f"{SHAPES[shape].description} ({NOTED[action]})")
        self._handled[shape] = action
        return action

    def raise_faults(self, placed: bool = True) -> None:
        """Raise MalformedResponse with every shape that the policy drops, if there is one.

        `placed`: the offsets are those of the response as it was given.
        """
        if self._faults:
            raise MalformedResponse(*(Fault(reason, at if placed else None) for reason, at in self._faults.items()))

    @property
    def notes(self) -> tuple[str, ...]:
        """Each shape that is not dropped once, like "no opening tag (repaired)", in the order of their discovery."""
        return tuple(self._notes)
