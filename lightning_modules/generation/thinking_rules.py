"""The settings of thinking with the ids of a tokenizer, as tensors."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation.thinking_settings import ThinkingSettings
from lightning_modules.generation.token_text import BROKEN, TokenText

UNLIMITED = 2**40


@dataclass(frozen=True, eq=False)
class ThinkingRules:
    """What the state machine reads. The script is all texts that may be forced, one after another: the message of a
    cut, the closing tag, the first words of a thought that is opened again."""

    settings: ThinkingSettings
    text: TokenText
    debt: Tensor  # text.debt; with grammar, control tokens are never legal
    open_id: int
    close_id: int
    end_ids: Tensor
    script: Tensor  # (P,) int64
    following: Tensor  # (P,) int64, the next place in the script, or -1
    message: int  # tokens of the message
    message_shows: bool  # it is not only white space
    again: int  # tokens of the text of a thought that is opened again

    @classmethod
    def of(cls, tokenizer: ThinkTokenizer, settings: ThinkingSettings, end_ids: tuple[int, ...]) -> "ThinkingRules":
        text = TokenText.of(tokenizer)
        debt = text.debt
        if settings.grammar:
            controls = [
                tokenizer.control_ids[name] for name, special in tokenizer.encoder.typed_tokens.items() if special
            ]
            debt = debt.index_fill(1, torch.tensor(controls, dtype=torch.int64), BROKEN)
        message, again = tokenizer.encode([settings.cut_message if settings.cuts else "", settings.extend_text])
        script = [*message, tokenizer.close_id, *again]
        following = list(range(1, len(script) + 1))
        following[len(message)] = following[-1] = -1
        return cls(
            settings,
            text,
            debt,
            tokenizer.open_id,
            tokenizer.close_id,
            torch.tensor([i for i in end_ids if i < len(tokenizer)], dtype=torch.int64),
            torch.tensor(script),
            torch.tensor(following),
            len(message),
            bool(settings.cut_message.strip()) and settings.cuts,
            len(again),
        )

    def to(self, device: torch.device) -> "ThinkingRules":
        """Return the rules with all tensors on a device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        tables = {name: value.to(device) for name, value in vars(self.text).items()}
        return replace(self, text=TokenText(**tables), **moved)

    @property
    def thinking_budget(self) -> int:
        """Most tokens of all thoughts."""
        if not self.settings.thinking:
            return 0
        return UNLIMITED if self.settings.thinking_budget is None else self.settings.thinking_budget

    @property
    def thought_budget(self) -> int:
        """Most tokens of one thought."""
        return UNLIMITED if self.settings.thought_budget is None else self.settings.thought_budget

    @property
    def again_at(self) -> int:
        """The place in the script of the text of a thought that is opened again; -1 if there is none."""
        return self.message + 1 if self.again else -1

    def may_reach_minimum(self, thinking: Tensor, thoughts: Tensor) -> Tensor | bool:
        """Whether the thoughts that are left can hold the tokens that are missing of min_thinking."""
        s = self.settings
        if s.max_thoughts is None or s.thought_budget is None:
            return True
        return thinking + (s.max_thoughts - thoughts) * s.thought_budget >= s.min_thinking
