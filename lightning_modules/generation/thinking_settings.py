"""How thinking is steered: the settings, and a check for settings that contradict each other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError

TAGS = 2  # tokens around a thought


@dataclass(kw_only=True)
class ThinkingSettings:
    """Control of thinking. By default all of it is off."""

    grammar: bool = False
    """Only well-formed responses: thoughts that are not empty, then an answer, then the end. Default false. Tokens that
    break this form are never chosen; `masked` tells the probability that they had."""
    thinking: bool = True
    """Whether the model may think. Default true. With false no tag is ever opened, so the answer comes at once."""
    thinking_budget: int | None = None
    """Most tokens of all thoughts of a response, without their tags. Default null, no limit. Then the thought is closed
    and the answer begins."""
    thought_budget: int | None = None
    """Most tokens of one thought. Default null, no limit. Then it is closed; another one may follow."""
    max_thoughts: int | None = None
    """Most thoughts of a response. Default null, no limit."""
    min_thinking: int = 0
    """Tokens of thinking before the answer may begin. Default 0. Until then the last thought stays open, or another one
    begins."""
    answer_reserve: int = 0
    """Tokens of max_new_tokens that are kept for the answer. Default 0. Thinking that would take them is cut, so that
    an answer always has room."""
    cut_message: str = ""
    """Text at the end of a thought that is cut by a budget, by answer_reserve or for a loop. Default empty. It counts
    as thinking. Without one a model may go on with its reasoning in the answer."""
    extend: int = 0
    """Number of times to think again: where the answer would begin, another thought is opened. Default 0."""
    extend_text: str = "Wait,"
    """First words of each thought that `extend` opens. Default "Wait,"."""
    loop_tokens: int = 0
    """Length of a loop in tokens: if the same tokens stand loop_repeats times in the thinking, without overlap, the
    thought is closed and the answer begins. Default 0, off; 16 finds repeated sentences."""
    loop_repeats: int = 4
    """Times that loop_tokens tokens must stand in the thinking to be a loop. Default 4."""

    @property
    def controlled(self) -> bool:
        """Whether any control is on."""
        off = (self.grammar, not self.thinking, self.min_thinking, self.answer_reserve, self.extend, self.loop_tokens)
        limits = (self.thinking_budget, self.thought_budget, self.max_thoughts)
        return any(off) or any(limit is not None for limit in limits)

    @property
    def cuts(self) -> bool:
        """Whether a thought may be cut."""
        budgets = self.thinking_budget is not None or self.thought_budget is not None
        return self.thinking and bool(budgets or self.answer_reserve or self.loop_tokens)


def check_thinking(
    settings: ThinkingSettings, max_new_tokens: int, tokenizer: ThinkTokenizer | None = None, group: str = ""
) -> None:
    """Raise UserError for settings that contradict each other. The lengths of texts need a tokenizer, whose model need
    not be loaded. `group` is the place of the settings in a config, like "model.evaluation.decoding."."""
    for name, problem, fix in _contradictions(settings, max_new_tokens):
        raise UserError(group + name, getattr(settings, name), problem, fix)
    for name, problem, fix in _texts_without_room(settings, max_new_tokens, tokenizer) if tokenizer else ():
        raise UserError(group + name, getattr(settings, name), problem, fix)


def _contradictions(s: ThinkingSettings, longest: int) -> Iterator[tuple[str, str, str]]:
    room = longest - s.answer_reserve - TAGS  # for thinking
    if not s.thinking:
        for name in ("min_thinking", "extend"):
            if getattr(s, name):
                yield name, "needs thinking, and thinking is false", f"set thinking true, or {name} 0"
        return
    if s.answer_reserve and room < 1:
        fix = f"give at most {max(longest - TAGS - 1, 0):,}, or raise max_new_tokens"
        yield "answer_reserve", f"leaves no room for a thought in max_new_tokens {longest:,}", fix
    if s.thinking_budget is not None and s.thinking_budget < s.min_thinking:
        yield "min_thinking", f"is above thinking_budget {s.thinking_budget:,}", "lower it, or raise thinking_budget"
    if s.thought_budget is not None and s.max_thoughts and s.thought_budget * s.max_thoughts < s.min_thinking:
        most = f"{s.max_thoughts:,} thoughts of {s.thought_budget:,} tokens"
        yield "min_thinking", f"is above {most}, the most that are allowed", "lower it, or raise max_thoughts"
    if s.min_thinking > max(room, 0):
        problem = f"has no room in max_new_tokens {longest:,} beside the tags and answer_reserve {s.answer_reserve:,}"
        yield "min_thinking", problem, "lower it, or raise max_new_tokens"
    if s.extend and s.thinking_budget == 0:
        yield "extend", "needs thinking, and thinking_budget is 0", "raise thinking_budget, or set extend 0"
    if s.max_thoughts is not None and s.extend >= s.max_thoughts:
        yield "extend", f"adds a thought each time, and max_thoughts is {s.max_thoughts:,}", "raise max_thoughts"
    if s.loop_tokens * s.loop_repeats > longest:
        problem = f"times loop_repeats {s.loop_repeats:,} is above max_new_tokens {longest:,}"
        yield "loop_tokens", problem, "lower one of them"


def _texts_without_room(s: ThinkingSettings, longest: int, tokenizer: ThinkTokenizer) -> Iterator[tuple[str, str, str]]:
    message, again = (len(ids) for ids in tokenizer.encode([s.cut_message, s.extend_text]))
    least = message + 1 if s.cuts else 1  # tokens of a thought: at least one of its own, and the message
    if s.thinking_budget and s.thought_budget and s.thinking and s.min_thinking > s.thinking_budget - least + 1:
        problem = f"cannot be promised in thoughts of {s.thought_budget:,} tokens: the last {least - 1:,} tokens of"
        fix = "lower it, or raise thinking_budget"
        yield "min_thinking", f"{problem} thinking_budget hold no thought with cut_message", fix
    rooms: list[tuple[str, Any, int]] = [
        ("thinking_budget", s.thinking_budget, s.thinking_budget or 0),
        ("thought_budget", s.thought_budget, s.thought_budget or 0),
        ("max_new_tokens", longest, longest - s.answer_reserve - TAGS),
    ]
    for name, value, room in rooms:
        if value and s.thinking and s.cut_message and least > room:
            beside = " with the tags and answer_reserve" if name == "max_new_tokens" else ""
            problem = f"has {message:,} tokens, and leaves no token of a thought in {name} {value:,}{beside}"
            yield "cut_message", problem, f"shorten it, or raise {name}"
        if value and s.extend and again + least > room:
            problem = f"has {again:,} tokens, and leaves no room for a thought in {name} {value:,}"
            yield "extend_text", problem, f"shorten it, or raise {name}"
    for name in ("cut_message", "extend_text"):
        if clash := next((tag for tag in (tokenizer.tags.open, tokenizer.tags.close) if tag in getattr(s, name)), None):
            yield name, f"contains {clash}, which would be text", "delete it: tags are written by themselves"
