"""The state machine that controls thinking: grammar, budgets and forced tokens are one machine.

    start --<think>--> thought --</think>--> between --text--> answer --end-->
                          ^---------<think>-----'

A sequence's state is a row of small numbers on the device. Each step turns the states of a batch into legal tokens, and
the tokens that were chosen into the next states, without a look from the host. So rows of a batch have no effect on
each other. As one machine decides what is legal and what is forced, some token is legal in every state.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.generation.loop_watch import LoopWatch
from lightning_modules.generation.thinking_rules import UNLIMITED, ThinkingRules

START, THOUGHT, BETWEEN, ANSWER = range(4)  # phases; a sequence that ended is in none
CUTS = (None, "budget", "limit", "loop")  # why the last thought that was cut was cut
BUDGET, LIMIT, LOOP = 1, 2, 3
ENOUGH = 120  # a higher debt does not exist


class _State(NamedTuple):
    """Each (B,) int64."""

    phase: Tensor
    thinking: Tensor  # tokens of all thoughts, without tags
    thought: Tensor  # tokens of this thought
    thoughts: Tensor  # thoughts that were opened
    shows: Tensor  # 1 after a character that is not white space, in this thought or in the answer
    text: Tensor  # the state of TokenText
    forced: Tensor  # place of the next forced token in `rules.script`, or -1
    cut: Tensor  # place in CUTS
    extended: Tensor  # thoughts that were opened to think again
    loops: Tensor  # 1 if a loop was found in this thought


class ThinkControl:
    """Controls the sequences in `slots` slots, of at most `longest` tokens."""

    def __init__(self, rules: ThinkingRules, slots: int, longest: int, device: torch.device) -> None:
        self.rules = rules.to(device)
        self.states = torch.zeros(slots, len(_State._fields), dtype=torch.int64, device=device)
        self.kept = torch.zeros(slots, dtype=torch.float64, device=device)  # log of the probability of legal tokens
        loops = rules.settings.loop_tokens
        self.loop_watch = LoopWatch(loops, slots, longest, device) if loops else None

    def start(self, slot: int, opened: bool) -> None:
        """Begin a sequence in a slot; `opened` if its prompt ends within a thought."""
        first = dict.fromkeys(_State._fields, 0) | {"forced": -1}
        if opened:
            first |= {"phase": THOUGHT, "thoughts": 1}
        self.states[slot] = torch.tensor([first[name] for name in _State._fields], device=self.states.device)
        self.kept[slot] = 0

    def choose(
        self, logits: Tensor, slots: Tensor, left: Tensor, going: Tensor, pick: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the next token of each sequence, (B,) int64, and whether it was forced, (B,) bool.

        logits: (B, V) float32
        left:   (B,) tokens that may still be written, the next one included
        going:  (B,) whether the sequence goes on; others have any token
        pick:   chooses from logits that are -inf for illegal tokens
        """
        rules = self.rules
        before = self.states[slots]
        earlier = _State(*before.unbind(1))
        state = self._cut(earlier, left)
        masked = logits.masked_fill(~self._legal(state, left, going), -torch.inf)
        picked = pick(masked)
        # A thought that the model would close here itself is not cut
        closes = (state.forced != earlier.forced) & (state.cut != LOOP) & (picked == rules.close_id)
        state = state._replace(
            forced=torch.where(closes, -1, state.forced), cut=torch.where(closes, earlier.cut, state.cut)
        )
        forced = state.forced >= 0
        kept = masked.logsumexp(-1) - logits.logsumexp(-1)
        self.kept[slots] += torch.where(going & ~forced, kept.double(), 0.0).clamp(max=0.0)
        chosen = torch.where(forced, rules.script[state.forced.clamp(min=0)], picked)
        again = self._thinks_again(state, chosen, left) & ~forced
        chosen = torch.where(again, rules.open_id, chosen)
        after = torch.stack(self._after(state, chosen, again), 1)
        self.states[slots] = torch.where(going[:, None], after, before)
        return chosen, forced | again

    def note(self, tokens: Tensor, at: Tensor, slots: Tensor, forced: Tensor) -> None:
        """Look for a loop after a token was written; `tokens` (slots, longest) has it at the places `at`, (B,)."""
        if self.loop_watch is None:
            return
        times = self.loop_watch.times(tokens, at, slots)
        state = _State(*self.states[slots].unbind(1))
        found = (times >= self.rules.settings.loop_repeats) & ~forced & (state.phase == THOUGHT)
        self.states[slots] = torch.stack(state._replace(loops=state.loops | found), 1)

    def masked(self, slot: int) -> float:
        """Return the probability that masks took away from a sequence: 1 - the product over its steps of the
        probability of the legal tokens."""
        return 0.0 - float(torch.expm1(self.kept[slot]))

    def cut(self, slot: int) -> str | None:
        """Return why the last thought that was cut was cut, or None."""
        return CUTS[int(self.states[slot, _State._fields.index("cut")])]

    def _room(self, state: _State, left: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens that this thought may still have, by budgets and by the limit of the response."""
        rules = self.rules
        budget = torch.minimum(rules.thinking_budget - state.thinking, rules.thought_budget - state.thought)
        reserve = rules.settings.answer_reserve
        limit = left - 1 - reserve if reserve else torch.full_like(left, UNLIMITED)
        return budget, limit

    def _debt(self, state: _State) -> Tensor:
        """Tokens that a text needs to be complete, and with grammar to show something."""
        silent = (state.shows == 0) if self.rules.settings.grammar else torch.zeros_like(state.shows, dtype=torch.bool)
        if self.rules.message_shows:
            silent = silent & (state.phase != THOUGHT)
        return self.rules.text.open[state.text] + silent

    def _cut(self, state: _State, left: Tensor) -> _State:
        """The state with a forced end for each thought that has no room left, or has a loop."""
        rules = self.rules
        budget, limit = self._room(state, left)
        running = (state.phase == THOUGHT) & (state.forced < 0)
        out = torch.minimum(budget, limit) <= rules.message
        looping = (state.loops > 0) & (self._debt(state) == 0)
        reason = torch.where(budget <= rules.message, BUDGET, torch.where(out, LIMIT, LOOP))
        fits = torch.minimum(budget, limit) >= rules.message
        begins = running & (out | looping)
        return state._replace(
            forced=torch.where(begins, torch.where(fits, 0, rules.message), state.forced),
            cut=torch.where(begins, reason, state.cut),
        )

    def _another(self, state: _State, left: Tensor, more: int = 0) -> Tensor:
        """Whether another thought may follow, which has room for `more` forced tokens."""
        rules = self.rules
        if not rules.settings.thinking:
            return torch.zeros_like(left, dtype=torch.bool)
        least = rules.message + 1 + more  # a token of its own, and the message
        may = (rules.thinking_budget - state.thinking >= least) & (state.cut != LOOP)
        if rules.settings.max_thoughts is not None:
            may &= state.thoughts < rules.settings.max_thoughts
        if reserve := rules.settings.answer_reserve:
            may &= left - (state.phase == THOUGHT).long() >= 2 + least + reserve
        return may

    def _legal(self, state: _State, left: Tensor, going: Tensor) -> Tensor:
        """The legal tokens of each sequence, (B, V) bool. A sequence that ended, or has a forced token, gets some."""
        rules, grammar = self.rules, self.rules.settings.grammar
        in_thought, in_answer = state.phase == THOUGHT, state.phase == ANSWER
        whole = rules.text.open[state.text] == 0
        another = self._another(state, left)
        short = state.thinking < rules.settings.min_thinking
        may_open = another & whole & ~in_thought
        must_open = short
        may_close = in_thought & whole & (~short | (another & rules.may_reach_minimum(state.thinking, state.thoughts)))
        may_end = whole & ~(in_thought & short)
        if grammar:
            may_open &= ~in_answer
            must_open = short | (state.phase == START)
            may_close &= state.shows > 0
            may_end &= in_answer & (state.shows > 0)
        must_open = must_open & may_open
        debt = self._debt(state)
        budget, limit = self._room(state, left)
        own = torch.minimum(budget, limit) - rules.message - 1  # tokens of the thought after this one
        own = torch.where(state.loops > 0, torch.minimum(own, debt - 1), own)
        allowed = torch.where(in_thought, own, left - 1).masked_fill(must_open, -1)
        allowed = allowed.masked_fill((state.forced >= 0) | ~going, ENOUGH).clamp(-1, ENOUGH)
        line = 2 * state.text + (debt == rules.text.open[state.text])
        legal: Tensor = rules.debt[line] <= allowed[:, None].to(torch.int8)  # bytes on both sides: four times as fast
        legal[:, rules.open_id] = may_open
        legal[:, rules.close_id] = may_close
        legal[:, rules.end_ids] = (may_end & ~must_open)[:, None]
        return legal

    def _thinks_again(self, state: _State, chosen: Tensor, left: Tensor) -> Tensor:
        """Whether another thought is opened in place of the token that would begin the answer."""
        rules = self.rules
        if not rules.settings.extend:
            return torch.zeros_like(left, dtype=torch.bool)
        room = self._another(state, left, rules.again) & (left > 3 + rules.again + rules.message)  # and an answer
        wanted = (state.phase == BETWEEN) & (chosen != rules.open_id) & (state.extended < rules.settings.extend)
        return wanted & room

    def _after(self, state: _State, chosen: Tensor, again: Tensor) -> _State:
        """The states after the chosen tokens."""
        rules = self.rules
        opens, closes = chosen == rules.open_id, chosen == rules.close_id
        writes = ~(opens | closes | (chosen[:, None] == rules.end_ids).any(-1))
        thinks = writes & (state.phase == THOUGHT)
        text = torch.where(writes, rules.text.next[state.text, chosen].long(), 0)
        shown = rules.text.shows[state.text, chosen] & writes
        phase = torch.where(writes & ~thinks & (shown | (text > 0)), ANSWER, state.phase)
        following = rules.following[state.forced.clamp(min=0)]
        return _State(
            phase=torch.where(opens, THOUGHT, torch.where(closes, BETWEEN, phase)),
            thinking=state.thinking + thinks,
            thought=torch.where(opens, 0, state.thought + thinks),
            thoughts=state.thoughts + opens,
            shows=((state.shows > 0) & ~opens & ~closes | shown).long(),
            text=text,
            forced=torch.where(again, rules.again_at, torch.where(state.forced >= 0, following, -1)),
            cut=state.cut,
            extended=state.extended + again,
            loops=torch.where(opens, 0, state.loops),
        )
