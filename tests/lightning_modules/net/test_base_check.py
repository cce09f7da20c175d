from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.net.base_check import BaseCheck, merged_difference
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.new_token_embeddings import NewTokenEmbedding
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import random_lm
from tests.stand_ins.families import REFUSED, TRAINED, family_lm

DTYPES = (torch.float32, torch.bfloat16)


def built(lm: Any, tokenizer: ThinkTokenizer, lora: bool = True) -> ThinkNet:
    """The net after the check, as ThinkTuner builds it."""
    check = BaseCheck(lm, tokenizer, "the base")
    target: Any = "all-linear" if "experts" not in str(lm) else ["o_proj"]
    net = ThinkNet(lm, tokenizer, LoraSettings(target_modules=target) if lora else None)
    check.check(net)
    return net


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", TRAINED)
def test_a_base_that_the_net_computes_as_transformers_does_is_accepted(
    family: str, dtype: torch.dtype, tiny_tokenizer: ThinkTokenizer
) -> None:
    net = built(family_lm(family, TRAINED[family]).to(dtype), tiny_tokenizer)
    assert net.training and any(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", REFUSED)
def test_a_base_that_the_net_would_compute_otherwise_is_refused_in_one_line(
    family: str, dtype: torch.dtype, tiny_tokenizer: ThinkTokenizer
) -> None:
    settings, words = REFUSED[family]
    lm = family_lm(family, settings).to(dtype)
    with pytest.raises(UserError) as refused:
        built(lm, tiny_tokenizer)
    text = str(refused.value)
    assert text.startswith("model.name: 'the base' ") and "\n" not in text
    assert words in text or (dtype == torch.bfloat16 and "fails in a check" in text)


def test_a_base_that_caps_its_logits_is_refused_however_small_they_are(tiny_tokenizer: ThinkTokenizer) -> None:
    lm = random_lm("gemma2", attn_logit_softcapping=None, final_logit_softcapping=30.0)
    with pytest.raises(UserError, match="caps its logits softly"):
        built(lm, tiny_tokenizer)


def test_a_base_that_attends_to_later_tokens_is_refused(
    tiny_tokenizer: ThinkTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss of a row alone is the same in both ways, so only the second question finds it."""
    attention = F.scaled_dot_product_attention

    def to_all(query: Any, key: Any, value: Any, mask: Any = None, **given: Any) -> Any:
        return attention(query, key, value, scale=given["scale"], enable_gqa=query.shape[1] != key.shape[1])

    monkeypatch.setattr(F, "scaled_dot_product_attention", to_all)
    with pytest.raises(UserError, match="a later token changes earlier states"):
        built(random_lm("qwen3"), tiny_tokenizer)


def test_a_base_that_carries_a_state_from_token_to_token_is_refused(tiny_tokenizer: ThinkTokenizer) -> None:
    lm = random_lm("qwen3")
    lm.model.norm = Carried(lm.model.norm)
    with pytest.raises(UserError, match="another loss than in transformers"):
        built(lm, tiny_tokenizer)


class Carried(nn.Module):
    """Adds the state before to each state, and thereby that of another row to the first of a row."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm, self.weight = norm, norm.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(x + F.pad(x, (0, 0, 1, 0))[:, :-1])
        return out


@pytest.mark.parametrize("scale", [1.0, 5.5])
@pytest.mark.parametrize("kind", ["gemma3_text", "qwen2", "qwen2-tied"])
def test_new_tokens_are_computed_as_after_merging(kind: str, scale: float, tiny_tokenizer: ThinkTokenizer) -> None:
    net = built(random_lm(kind), tiny_tokenizer)
    assert merged_difference(net.causal_lm) is None
    embedding = net.causal_lm.get_input_embeddings()
    assert isinstance(embedding, NewTokenEmbedding)
    embedding.scale *= scale
    assert (merged_difference(net.causal_lm) is None) == (scale == 1)


@pytest.mark.parametrize("lora", [True, False])
def test_the_check_changes_nothing(lora: bool, tiny_tokenizer: ThinkTokenizer) -> None:
    """Weights, gradients, the mode, windows and the state of random numbers are as without it."""
    lm, other = (random_lm("mistral", sliding_window=7) for _ in range(2))
    torch.manual_seed(3)
    plain = ThinkNet(other, tiny_tokenizer, LoraSettings() if lora else None)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    check = BaseCheck(lm, tiny_tokenizer, "the base")
    net = ThinkNet(lm, tiny_tokenizer, LoraSettings() if lora else None)
    check.check(net)
    assert torch.equal(torch.rand(1), drawn)
    assert net.training and net.causal_lm.config.sliding_window == 7
    for (name, mine), (_, theirs) in zip(net.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name
        assert mine.grad is None and mine.requires_grad == theirs.requires_grad
