import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.net.lora import LoraSettings, add_lora
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.update.optim import OptimSettings, build_optimizer
from tests.conftest import ROOT, random_lm

MakeBatch = Callable[..., Any]
STARTS = ["pissa", "pissa_niter_2", "olora"]
VARIANTS: list[dict[str, Any]] = [
    {"use_dora": True},
    {"init_lora_weights": "gaussian"},
    {"init_lora_weights": "orthogonal"},
    *({"init_lora_weights": start} for start in STARTS),
    {"init_lora_weights": "pissa", "use_dora": True},
    {"rank_pattern": {"q_proj": 6}, "alpha_pattern": {"o_proj": 3.5}},
    {"layers_to_transform": [1]},
    {"exclude_modules": ["k_proj"]},
]


@pytest.mark.parametrize(
    ("peft", "message"),
    [
        ({"use_dorra": True}, r"use_dorra: there is no such setting\. Did you mean use_dora\?"),
        ({"r": 4}, r"peft\.r: has a setting of its own\. Set model\.lora\.rank"),
        ({"use_rslora": True}, r"Set model\.lora\.use_rslora"),
        ({"dropout": 0.1}, r"Set model\.lora\.dropout"),
        ({"task_type": "SEQ_CLS"}, r"task_type: is set by this program"),
        ({"inference_mode": True}, r"inference_mode: is set by this program"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save: would train and save whole matrices; model\.lora null"),
        ({"trainable_token_indices": [1]}, r"trainable_token_indices: is not needed"),
        ({"bias": "all"}, r"bias: would train biases in the base's dtype"),
        ({"kasa_config": {}}, r"kasa_config: is a variant that this program was not tested with"),
        ({"loftq_config": {}}, r"loftq_config: initializes from data"),
        ({"init_lora_weights": "loftq"}, r"init_lora_weights: 'loftq' needs data.*pissa"),
        ({"init_lora_weights": "eva"}, r"init_lora_weights: 'eva' needs data"),
        ({"init_lora_weights": "mica"}, r"init_lora_weights: 'mica' freezes"),
        ({"init_lora_weights": "pisa"}, r"init_lora_weights: 'pisa' is not an initialization.*Did you mean pissa\?"),
        ({"init_lora_weights": "pissa_niter_99999999"}, r"'pissa_niter_99999999' is not an initialization"),
        ({"init_lora_weights": "pissa_niter_x"}, r"'pissa_niter_x' is not an initialization"),
        ({"use_dora": "yes"}, r"use_dora: 'yes' is not true or false"),
        ({"rank_pattern": {"q_proj": 0}}, r"rank_pattern: .* does not map names to numbers above 0"),
        ({"alpha_pattern": {"q_proj": float("nan")}}, r"alpha_pattern: .* does not map names to numbers above 0"),
        ({"rank_pattern": [4]}, r"rank_pattern: .* does not map names to numbers above 0"),
        ({"layers_pattern": "layers"}, r"model\.lora\.peft: .* is refused by peft \(When `layers_pattern`"),
        ({"init_lora_weights": "orthogonal", "rank_pattern": {"q_proj": 3}}, r"model\.lora\.rank: '3' is odd"),
        ({"init_lora_weights": "pissa", "target_parameters": ["a.weight"]}, r"cannot initialize"),
    ],
)
def test_peft_settings_that_are_unknown_or_cannot_be_kept_are_refused(peft: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LoraSettings(peft=peft).check()


@pytest.mark.slow
def test_peft_is_imported_only_where_its_settings_are_given() -> None:
    code = "import sys, lightning_modules.think_tuner as m; m.ThinkTuner('x'); sys.exit('peft' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ["query"]}, r"target_modules: .* matches no layer.*down_proj.*q_proj"),
        ({"target_modules": ["q_proj", "lm_head"]}, r"target_modules: .* adapts lm_head, where the embeddings"),
        ({"peft": {"rank_pattern": {"w_proj": 4}}}, r"model\.lora\.peft: .*did not match any.*the layers are"),
        ({"peft": {"exclude_modules": ["w_proj"]}}, r"model\.lora\.peft: .*no modules were excluded"),
        ({"peft": {"layers_to_transform": [7]}}, r"model\.lora\.peft: .*not found in the base model"),
        ({"peft": {"lora_bias": True}}, r"model\.lora\.peft: .*has no bias"),
        (
            {"rank": 64, "peft": {"init_lora_weights": "pissa"}},
            r"rank: '64' is above 32, the highest rank that pissa can give to .*q_proj",
        ),
    ],
)
def test_names_and_ranks_that_do_not_fit_the_model_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        add_lora(random_lm("qwen2"), LoraSettings(**settings))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("peft", VARIANTS, ids=str)
def test_every_variant_learns_in_float32_and_leaves_the_base_unchanged(
    peft: dict[str, Any], dtype: torch.dtype, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    lora = LoraSettings(rank=4, peft=peft)
    lora.check()
    net, batch = ThinkNet(random_lm("qwen2").to(dtype), tiny_tokenizer, lora), make_batch(0, 3)
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    frozen = {name: p.clone() for name, p in net.named_parameters() if not p.requires_grad}
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert all("lora_" in name or name.endswith(".embeddings") for name in trained)
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = build_optimizer(trained.items(), OptimSettings(lr=1e-2, weight_decay=0.1))
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        total = net(batch).total
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < losses[0]
    assert not [name for name, p in trained.items() if torch.equal(p, before[name])]
    assert all(torch.equal(p, frozen[name]) for name, p in net.named_parameters() if name in frozen)


@pytest.mark.parametrize("start", STARTS)
def test_initial_adapters_are_subtracted_from_the_base(start: str) -> None:
    base, ids = random_lm("qwen2"), torch.tensor([[5, 300, 7, 12]])
    before, weight = base(input_ids=ids).logits, base.model.layers[0].self_attn.q_proj.weight.clone()
    lm, _ = add_lora(base, LoraSettings(rank=4, peft={"init_lora_weights": start}))
    torch.testing.assert_close(lm(input_ids=ids).logits, before, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(base.model.layers[0].self_attn.q_proj.base_layer.weight, weight, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("use_rslora", [False, True], ids=["", "use_rslora"])
def test_with_the_initial_adapters_of_a_checkpoint_the_base_is_equal_to_the_bit_and_nothing_is_decomposed(
    start: str, use_rslora: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = LoraSettings(rank=4, use_rslora=use_rslora, peft={"init_lora_weights": start, "rank_pattern": {"q_proj": 6}})
    torch.manual_seed(1)
    first, kept = add_lora(random_lm("qwen2").to(dtype), lora)
    for name in ("torch.linalg.svd", "torch.linalg.qr", "peft.tuners.lora.layer.svd_lowrank"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("decomposed"))
    base = random_lm("qwen2").to(dtype)
    torch.manual_seed(2)
    again, same = add_lora(base, lora, kept)
    assert same is kept
    one, two = first.state_dict(), again.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_plain_adapters_subtract_nothing_from_the_base() -> None:
    for peft in ({}, {"use_dora": True}, {"init_lora_weights": "gaussian"}):
        assert add_lora(random_lm("qwen2"), LoraSettings(peft=peft))[1] is None


def test_the_initial_values_of_other_adapters_are_refused() -> None:
    lora = LoraSettings(rank=4, peft={"init_lora_weights": "pissa"})
    _, kept = add_lora(random_lm("qwen2"), lora)
    lora.target_modules = ["q_proj"]
    with pytest.raises(UserError, match="initial values of other adapters"):
        add_lora(random_lm("qwen2"), lora, kept)


def test_identity_is_all_settings_but_the_dropout() -> None:
    one = LoraSettings(dropout=0.1, peft={"use_dora": True}).identity()
    assert one == LoraSettings(dropout=0.0, peft={"use_dora": True}).identity()
    assert one["lora.peft.use_dora"] is True
    for other in (LoraSettings(), LoraSettings(alpha=1), LoraSettings(use_rslora=True), LoraSettings(rank=1)):
        assert other.identity() != one
    swapped = LoraSettings(target_modules=["v_proj", "q_proj"]).identity()
    assert swapped == LoraSettings(target_modules=["q_proj", "v_proj"]).identity()
