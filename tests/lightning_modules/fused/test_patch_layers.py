from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.net.activation_checkpointing import checkpoint_activations
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from tests.conftest import random_lm

MakeBatch = Callable[..., Any]
ADAPTERS = {
    "attention": LoraSettings(rank=4),
    "all": LoraSettings(rank=4, target_modules="all-linear", use_rslora=True),
    "some": LoraSettings(rank=4, target_modules=["k_proj", "up_proj"]),
    "uneven": LoraSettings(rank=4, target_modules="all-linear", peft={"rank_pattern": {"v_proj": 2, "down_proj": 6}}),
    "some layers": LoraSettings(target_modules=["q_proj", "down_proj"], peft={"layers_to_transform": [1]}),
}


def made(
    lora: LoraSettings | None, tokenizer: ThinkTokenizer, fused: bool, kind: str = "qwen2", **more: Any
) -> ThinkNet:
    base = random_lm(kind, attention_dropout=more.get("attention_dropout", 0.0))
    for parameter in base.parameters():  # norms and biases
        if parameter.ndim == 1:
            torch.manual_seed(parameter.numel())
            nn.init.normal_(parameter, 1.0, 0.1)
    if more.get("dtype"):
        base = base.to(more["dtype"])
    checkpoint_activations(base, more.get("checkpointing", False))
    net = ThinkNet(base, tokenizer, lora, fused=fused)
    for p in net.parameters():
        if p.requires_grad:
            torch.manual_seed(p.numel())
            nn.init.normal_(p, std=0.05)
    return net


def results(net: ThinkNet, batch: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    total = net(batch).total
    return total, list(torch.autograd.grad(total, [p for p in net.parameters() if p.requires_grad]))


def loss_of(net: ThinkNet, batch: Any) -> float:
    return float(net(batch).total.detach())


@pytest.mark.parametrize("kind", ["qwen2", "qwen2-tied", "llama"])
@pytest.mark.parametrize("adapters", ADAPTERS)
def test_fused_layers_give_the_loss_and_gradients_of_transformers_layers(
    kind: str, adapters: str, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    batch, lora = make_batch(0, 3, 9), ADAPTERS[adapters]
    fused, plain = (made(lora, tiny_tokenizer, on, kind) for on in (True, False))
    assert fused.not_fused is None and plain.not_fused is not None
    (ours, mine), (theirs, right) = results(fused, batch), results(plain, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for one, two in zip(mine, right, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.float32, True), (torch.bfloat16, False), (torch.bfloat16, True)]
)
def test_in_half_precision_they_are_as_close_to_the_exact_gradient(
    dtype: torch.dtype, autocast: bool, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    batch, lora = make_batch(0, 3, 9), ADAPTERS["all"]
    _, exact = results(made(lora, tiny_tokenizer, False), batch)
    errors = []
    for fused in (True, False):
        net = made(lora, tiny_tokenizer, fused, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            _, mine = results(net, batch)
        assert all(g.dtype == torch.float32 for g in mine)
        errors.append(max(float((a - b).norm() / b.norm()) for a, b in zip(mine, exact, strict=True)))
    assert errors[0] < max(1.5 * errors[1], 0.02)


def test_gradient_checkpointing_and_fused_layers_go_together(
    tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    batch = make_batch(0, 3)
    once, again = (made(ADAPTERS["all"], tiny_tokenizer, True, checkpointing=on) for on in (False, True))
    for one, two in zip(results(once, batch)[1], results(again, batch)[1], strict=True):
        torch.testing.assert_close(one, two)


def test_attention_dropout_follows_the_seed_and_is_repeated_by_gradient_checkpointing(
    tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    batch = make_batch(0, 3)
    once, again = (
        made(ADAPTERS["all"], tiny_tokenizer, True, checkpointing=on, attention_dropout=0.3) for on in (False, True)
    )
    found = []
    for seed, net in [(1, once), (1, again), (2, once)]:
        torch.manual_seed(seed)
        found.append(results(net, batch))
    torch.testing.assert_close(found[0], found[1])
    assert (found[0][0] - found[2][0]).abs() > 1e-3


def test_they_keep_for_the_backward_pass_what_the_docstring_says(
    tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    """The inputs of both norms, q, k, v, the output of attention, gate and up; and narrow tensors: ranks, scales."""
    net, batch = made(ADAPTERS["attention"], tiny_tokenizer, True), make_batch(0)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        sums = net(batch)
    tokens, width, heads, kv = batch.input_ids.shape[1], 32, 4 * 8, 2 * 8
    a_layer = 4 * tokens * (2 * width + 2 * heads + 2 * kv + 2 * 48)
    narrow = 4 * tokens * (4 * 4 + 3 + 3 * 4) + 4 * tokens * 2 * 8  # ranks, scales, sums of attention; cos and sin
    assert sum(kept.values()) < 2 * (a_layer + narrow) + 4 * tokens * width * 4  # two layers, and both ends
    assert sums.total.requires_grad


@pytest.mark.parametrize(("lora", "reason"), [
    (LoraSettings(peft={"use_dora": True}), "not plain LoRA"), (LoraSettings(dropout=0.1), "dropout"),
    (None, "all weights"),
])  # fmt: skip
def test_other_layers_and_adapters_stay_with_transformers(
    lora: LoraSettings | None, reason: str, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    net = ThinkNet(random_lm("qwen2"), tiny_tokenizer, lora)
    assert net.not_fused is not None and reason in net.not_fused
    assert net(make_batch(0)).total.isfinite()
    lm = random_lm("qwen2", attention_dropout=0.1)
    assert "attention_dropout" in str(ThinkNet(lm, tiny_tokenizer, LoraSettings()).not_fused)
    assert "another kind" in str(ThinkNet(random_lm("qwen3"), tiny_tokenizer, LoraSettings()).not_fused)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("safe", [True, False])
def test_adapters_that_are_switched_off_merged_or_replaced_are_honoured(
    kind: str, safe: bool, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    batch, lora = make_batch(0, 3, 9), ADAPTERS["some"]
    fused, plain = (made(lora, tiny_tokenizer, on, kind) for on in (True, False))
    trained = loss_of(fused, batch)
    with fused.lm.disable_adapter(), plain.lm.disable_adapter():
        off = loss_of(fused, batch)
        assert off == pytest.approx(loss_of(plain, batch), rel=1e-5)
    assert abs(off - trained) > 1e-2
    assert loss_of(fused, batch) == trained
    fused.lm.merge_adapter(safe_merge=safe)
    assert loss_of(fused, batch) == pytest.approx(trained, rel=1e-5)
    fused.lm.unmerge_adapter()
    assert loss_of(fused, batch) == pytest.approx(trained, rel=1e-5)
    fused.lm.add_adapter("other", fused.lm.peft_config["default"])
    fused.lm.set_adapter("other")
    assert loss_of(fused, batch) == pytest.approx(off, rel=1e-5)  # its B is 0 at first
    fused.lm.set_adapter("default")
    assert loss_of(fused, batch) == trained


@pytest.mark.parametrize("name", ["self_attn.q_proj", "self_attn.v_proj.lora_A.default", "mlp", "input_layernorm", ""])
@pytest.mark.parametrize("hook", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_run(name: str, hook: str, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch) -> None:
    net, batch, calls = made(ADAPTERS["attention"], tiny_tokenizer, True), make_batch(0), []
    without = results(net, batch)
    module = net.causal_lm.model.layers[1].get_submodule(name)
    handle = getattr(module, f"register_{hook}_hook")(lambda *_: calls.append(1))
    seen = results(net, batch)
    assert calls
    handle.remove()
    torch.testing.assert_close(seen, without, rtol=1e-4, atol=1e-5)
    assert torch.equal(results(net, batch)[0], without[0])


def test_a_gradient_of_a_gradient_is_refused(tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch) -> None:
    """Else a penalty on the gradient would have no effect."""
    net = made(ADAPTERS["attention"], tiny_tokenizer, True)
    batch = make_batch(0)
    for total in (net(batch).total, net.supervised_hidden_states(batch).sum()):
        with pytest.raises(RuntimeError, match="first derivatives only"):
            torch.autograd.grad(total, [p for p in net.parameters() if p.requires_grad], create_graph=True)


@pytest.mark.gpu
@pytest.mark.parametrize("adapters", ["attention", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_on_a_gpu_they_give_what_transformers_layers_give(
    dtype: torch.dtype, adapters: str, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    batch, lora = make_batch(0, 3, 9), ADAPTERS[adapters]
    _, exact = results(made(lora, tiny_tokenizer, False), batch)
    errors = []
    for fused in (True, False):
        net = made(lora, tiny_tokenizer, fused, dtype=dtype).cuda()
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            _, mine = results(net, batch.to("cuda"))
        errors.append(max(float((a.cpu() - b).norm() / b.norm()) for a, b in zip(mine, exact, strict=True)))
    assert errors[0] < (1e-4 if dtype == torch.float32 else max(1.5 * errors[1], 0.02))
