from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from datamodules.batches.collate import collate
from datamodules.prepare.token_dataset import TokenExample
from datamodules.text.segments import Role
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.evaluation import answers as module
from lightning_modules.evaluation.answers import answer_rows, held_out_rows
from lightning_modules.generation.decoding import Decoding, DecodingSettings
from lightning_modules.generation.generate import generate
from lightning_modules.generation.token_choice import Request
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import random_lm

MakeBatch = Callable[..., Any]


@pytest.fixture
def net(tiny_tokenizer: ThinkTokenizer) -> ThinkNet:
    return ThinkNet(random_lm("qwen2"), tiny_tokenizer, LoraSettings())


@pytest.fixture
def answer(net: ThinkNet, tiny_tokenizer: ThinkTokenizer) -> Callable[..., Any]:
    decoding = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=5))

    def answered(batch: Any, places: list[int], cancelled: bool = False, sharded: bool = False) -> Any:
        rows = held_out_rows(batch, places)
        return answer_rows(net, tiny_tokenizer, decoding, rows, lambda: cancelled, lambda *_: None, sharded)

    return answered


def test_only_the_given_rows_are_answered_from_their_own_prompts(
    net: ThinkNet, answer: Callable[..., Any], tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    batch = make_batch(0, 3, 9)
    decoding = Decoding.of(tiny_tokenizer, None, DecodingSettings(max_new_tokens=5))
    rows = answer(batch, [2, 0])
    assert [row.row for row in rows] == [9, 0]
    for row in rows:
        ids = make_batch(row.row).token_ids()[0]
        prompt = ids[: make_batch(row.row).prompt_lengths[0]]
        assert row.prompt == tiny_tokenizer.decode(prompt) and "### Response:" in row.prompt
        assert row.written == dict(generate(net, tiny_tokenizer, [Request(prompt)], decoding))[0]
        assert row.reference.well_formed
        assert row.prompt + row.reference.text == tiny_tokenizer.decode(ids[:-1])


@pytest.mark.parametrize("ends", [True, False])
def test_the_first_answer_of_several_is_asked_and_compared(
    ends: bool, answer: Callable[..., Any], tiny_tokenizer: ThinkTokenizer
) -> None:
    prompt, first, last = tiny_tokenizer.encode(["Ask 1: ", "one", "two"])
    end = tiny_tokenizer.end_id
    ids = [*prompt, *first, end, *prompt, *last, end]
    middle = Role.END if ends else Role.PROMPT
    roles = [*[Role.PROMPT] * len(prompt), *[Role.ANSWER] * len(first), middle, *[Role.PROMPT] * len(prompt)]
    roles += [*[Role.ANSWER] * len(last), Role.END]
    row = TokenExample(0, "a", "all", np.array(ids, np.int32), np.array(roles, np.int8))
    short = TokenExample(
        1, "b", "all", np.array(ids[-3 - len(last) :], np.int32), np.array(roles[-3 - len(last) :], np.int8)
    )
    answered = answer(collate([short, row, short], 4, end), [1])[0]
    assert (answered.prompt, answered.reference.text, answered.reference.finished) == ("Ask 1: ", "one", ends)


def test_ranks_that_are_sharded_generate_together(
    answer: Callable[..., Any], make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch, net: ThinkNet
) -> None:
    batches: list[int] = []
    own = net.generate

    def generate_alone(**given: Any) -> Any:
        assert given.pop("synced_gpus", False) is sharded
        batches.append(len(given["input_ids"]))
        return own(**given)

    monkeypatch.setattr(net, "generate", generate_alone)
    sharded = False
    assert answer(make_batch(0), []) == []
    sharded = True
    assert answer(make_batch(0), [], sharded=True) == []
    assert batches == []
    monkeypatch.setattr(module, "from_all_ranks", lambda mine: [*mine, 2])  # another rank has two batches
    assert answer(make_batch(0), [], sharded=True) == []
    assert batches == [1, 1]
    assert len(answer(make_batch(0), [0], sharded=True)) == 1
    assert batches == [1] * 4


def test_cancelled_generation_answers_nothing_more(answer: Callable[..., Any], make_batch: MakeBatch) -> None:
    assert answer(make_batch(0), [0], cancelled=True) == []
    assert len(answer(make_batch(0), [0], cancelled=False)) == 1
