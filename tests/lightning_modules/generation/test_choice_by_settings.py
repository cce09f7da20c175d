"""Rows with different settings are written as alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.generation import choice_by_settings
from lightning_modules.generation.choice_by_settings import ChoiceBySettings
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.token_choice import Request, TokenChoice
from tests.lightning_modules.generation.drive import CPU, drive

LONGEST = 30
OWN: tuple[dict[str, Any], ...] = (
    {}, {"temperature": 1.5}, {"temperature": 1.5, "top_p": 0.5}, {"thinking_budget": 3, "grammar": True},
    {"thinking": False}, {"grammar": True, "temperature": 0.7, "extend": 1}, {},
)  # fmt: skip


def logits(row: int, step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1_000 * row + step)
    return torch.randn(547, generator=generator) * 3


def test_each_row_is_written_by_its_own_settings(tiny_tokenizer: ThinkTokenizer) -> None:
    alone = []
    for row, own in enumerate(OWN):
        given = {"max_new_tokens": LONGEST, **own}
        alone += drive(tiny_tokenizer, logits, rows=[row], limit=20 + row, **given)
    plain = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=LONGEST))
    choice = ChoiceBySettings(plain, len(OWN), CPU)
    for row, own in enumerate(OWN):
        settings = replace(plain.settings, **own)
        decoding = Decoding.of(tiny_tokenizer, None, settings) if own else None
        choice.start(row, Request([5], row, 20 + row, decoding))
    for step in range(LONGEST):
        slots = torch.arange(len(OWN)).roll(step)
        choice.step(torch.stack([logits(row, step) for row in slots.tolist()]), slots)
    assert choice.ended.all()
    assert [choice.written(row) for row in range(len(OWN))] == alone
    assert len({tuple(one.ids) for one in alone}) == len(OWN)


def test_a_cancelled_row_writes_nothing_more(tiny_tokenizer: ThinkTokenizer) -> None:
    plain = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=LONGEST))
    choice = ChoiceBySettings(plain, 2, CPU)
    for slot in range(2):
        choice.start(slot, Request([5], slot, 9))
    for step in range(9):
        if step == 4:
            choice.cancel(1)
        choice.step(torch.stack([logits(row, step) for row in range(2)]), torch.arange(2))
    assert [len(choice.written(slot).ids) for slot in range(2)] == [9, 4]


def test_settings_that_nobody_uses_are_forgotten(tiny_tokenizer: ThinkTokenizer) -> None:
    plain = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=LONGEST))
    choice = ChoiceBySettings(plain, 2, CPU)
    choice.start(0, Request([5], 0, 9, Decoding.of(tiny_tokenizer, None, replace(plain.settings, temperature=9.0))))
    for k in range(40):
        settings = replace(plain.settings, temperature=1.0 + k / 10)
        choice.start(1, Request([5], 0, 9, Decoding.of(tiny_tokenizer, None, settings)))
        choice.cancel(1)
    assert len(choice._choices) <= choice_by_settings.KEPT + 2
    assert any(one.settings.temperature == 9.0 for one in choice._choices.values()), "the one in use is kept"


def test_a_plain_choice_refuses_settings_of_a_request(tiny_tokenizer: ThinkTokenizer) -> None:
    plain = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=LONGEST))
    other = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=LONGEST, temperature=1.0))
    with pytest.raises(ValueError, match="ChoiceBySettings"):
        TokenChoice(plain, 1, CPU).start(0, Request([5], decoding=other))
