"""Rows of a packed sequence neither see each other nor what comes later, in each family of models."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.fused.packed_forward import PackedForward, RowBounds
from lightning_modules.internals.transformers_internals import packed_hidden_states
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from tests.stand_ins.families import TRAINED, family_lm

MakeBatch = Callable[..., Any]


def net_of(family: str, tokenizer: ThinkTokenizer, **settings: Any) -> ThinkNet:
    lm = family_lm(family, TRAINED[family] | settings)
    lora = LoraSettings(rank=4, target_modules=["o_proj"] if "experts" in str(lm) else "all-linear")
    net = ThinkNet(lm, tokenizer, lora)
    for p in net.parameters():
        if p.requires_grad:
            torch.manual_seed(p.numel())
            torch.nn.init.normal_(p, std=0.05)  # LoRA's B is 0 at first
    return net


@pytest.mark.parametrize("family", TRAINED)
def test_loss_and_gradients_of_a_packed_batch_are_transformers_own_of_each_row_alone(
    family: str, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    net, batch = net_of(family, tiny_tokenizer), make_batch(0, 3, 9)
    labels = torch.full_like(batch.input_ids, -100)
    labels[0, batch.predict_from + 1] = batch.targets
    net.eval()
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    ours = net(batch).total
    theirs = sum(
        net.causal_lm(input_ids=batch.input_ids[:, a:b], labels=labels[:, a:b], use_cache=False).loss
        * (labels[:, a:b] != -100).sum()
        for a, b in pairwise(batch.starts.tolist())
    )
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-5)
    for mine, own in zip(torch.autograd.grad(ours, trained), torch.autograd.grad(theirs, trained), strict=True):
        assert (mine - own).abs().max() <= 1e-4 * own.abs().max() + 1e-5


@pytest.mark.parametrize("family", TRAINED)
def test_a_token_changes_no_earlier_state_and_no_state_of_another_row(
    family: str, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    net, batch = net_of(family, tiny_tokenizer).eval(), make_batch(0, 3, 9)
    packed = PackedForward(RowBounds(batch.starts, batch.lengths))
    begin, end = batch.starts.tolist()[1:3]
    changed = (begin + end) // 2  # in the middle of the second row

    def states(ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return packed_hidden_states(net.causal_lm, ids, batch.position_ids, **packed.as_kwargs())[0]

    ids = batch.input_ids.clone()
    before = states(ids)
    ids[0, changed] = (ids[0, changed] + 1) % 500
    differs = (states(ids) != before).any(-1)
    assert not differs[:changed].any() and not differs[end:].any()
    assert differs[changed] and differs[changed:end].sum() > 1


@pytest.mark.parametrize("family", TRAINED)
def test_each_dropout_that_transformers_applies_in_training_is_applied(
    family: str, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    """By the config's own names; some of them have no effect in transformers either."""
    batch, known = make_batch(0, 3), family_lm(family, TRAINED[family]).config.to_dict()
    names = [name for name in known if "drop" in name]
    none = dict.fromkeys(names, 0.0)
    for name in names:
        net = net_of(family, tiny_tokenizer, **none | {name: 0.5})
        own = effect_of_training(net, lambda net: net.causal_lm(input_ids=batch.input_ids, use_cache=False).logits)
        assert effect_of_training(net, lambda net: net.supervised_hidden_states(batch)) == own, name


def effect_of_training(net: ThinkNet, compute: Callable[[ThinkNet], torch.Tensor]) -> bool:
    """Whether the training mode changes a result."""
    with torch.no_grad():
        net.train()
        trained = compute(net)
        net.eval()
        return not torch.allclose(trained, compute(net), rtol=1e-4, atol=1e-5)
