"""AdamW's parameter groups, and the learning rate by optimizer step."""

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.checkpoints.resume_position import ResumePosition
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.think_net import ThinkNet
from lightning_modules.think_tuner import ThinkTuner
from lightning_modules.update.optim import OptimSettings, build_optimizer, lr_factor, restore_settings, settings_of
from tests.conftest import random_lm


def test_only_trained_parameters_are_optimized_and_only_matrices_decay() -> None:
    module = nn.ModuleDict({"frozen": nn.Linear(2, 2), "adapter": nn.Linear(2, 3)})
    module["frozen"].requires_grad_(False)
    rows = nn.Parameter(torch.zeros(2, 4))
    parameters = [*module.named_parameters(), ("embed.embeddings", rows)]
    groups = build_optimizer(parameters, OptimSettings(lr=1e-3, new_token_lr=1e-2, weight_decay=0.1)).param_groups
    assert [[tuple(p.shape) for p in group["params"]] for group in groups] == [[(3, 2)], [(3,)], [(2, 4)]]
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-3, 0.1), (1e-3, 0.0), (1e-2, 0.0)]


@pytest.mark.parametrize("lora", [LoraSettings(rank=4, target_modules="all-linear", peft={"use_dora": True}), None])
def test_decay_acts_on_matrices_only(lora: LoraSettings | None, tiny_tokenizer: ThinkTokenizer) -> None:
    """Not on DoRA's magnitudes, new-token embeddings, biases and norms."""
    net = ThinkNet(random_lm("qwen2"), tiny_tokenizer, lora)
    groups = build_optimizer(net.named_parameters(), OptimSettings(weight_decay=0.1)).param_groups
    names = {id(p): name for name, p in net.named_parameters()}
    decaying = {names[id(p)] for group in groups for p in group["params"] if group["weight_decay"]}
    others = {names[id(p)] for group in groups for p in group["params"] if not group["weight_decay"]}
    assert decaying | others == {name for name, p in net.named_parameters() if p.requires_grad}
    if lora is None:
        assert {name.rsplit(".", 1)[-1] for name in decaying} == {"weight"}
        assert not any("norm" in name for name in decaying)
        assert all("norm" in name or name.endswith(".bias") for name in others)
    else:
        assert all("lora_A" in name or "lora_B" in name for name in decaying)
        assert all("lora_magnitude_vector" in name or name.endswith(".embeddings") for name in others)
        assert any("lora_magnitude_vector" in name for name in others)


def test_new_embeddings_take_the_common_rate_by_default() -> None:
    (group,) = build_optimizer(
        [("new.embeddings", nn.Parameter(torch.zeros(2, 4)))], OptimSettings(lr=1e-3)
    ).param_groups
    assert group["lr"] == 1e-3


def test_a_loaded_optimizer_keeps_its_moments_and_takes_the_new_settings() -> None:
    def build(settings: OptimSettings) -> tuple[torch.optim.AdamW, LambdaLR]:
        torch.manual_seed(0)
        optimizer = build_optimizer([("a.weight", nn.Parameter(torch.ones(2, 2)))], settings)
        return optimizer, LambdaLR(optimizer, lambda step: lr_factor(step, 10, settings))

    first, schedule = build(OptimSettings(lr=1e-3, lr_scheduler_type="linear"))
    first.param_groups[0]["params"][0].grad = torch.ones(2, 2)
    first.step()
    schedule.step()
    saved = deepcopy((first.state_dict(), schedule.state_dict()))
    for settings in (OptimSettings(lr=1e-3, lr_scheduler_type="linear"), OptimSettings(lr=5e-3, weight_decay=0.1)):
        second, schedule = build(settings)
        own = settings_of(second)
        second.load_state_dict(saved[0])
        schedule.load_state_dict(saved[1])
        restore_settings(schedule, own)
        (group,) = second.param_groups
        assert group["lr"] == settings.lr * lr_factor(1, 10, settings)
        assert group["weight_decay"] == settings.weight_decay
        assert second.state_dict()["state"][0]["exp_avg"].equal(saved[0]["state"][0]["exp_avg"])
        schedule.step()
        assert group["lr"] == settings.lr * lr_factor(2, 10, settings)


def test_schedules_warm_up_and_fall() -> None:
    level = [lr_factor(step, 10, OptimSettings()) for step in range(10)]
    assert level == [1.0] * 10
    warm = OptimSettings(lr_scheduler_type="linear", warmup_ratio=0.2)
    line = [lr_factor(step, 11, warm) for step in range(11)]
    assert line[:4] == [pytest.approx(1 / 4), pytest.approx(2 / 4), pytest.approx(3 / 4), 1.0]
    assert line[3:] == pytest.approx([1 - k / 7 for k in range(8)])
    cosine = [lr_factor(step, 101, OptimSettings(lr_scheduler_type="cosine", min_lr_ratio=0.1)) for step in range(101)]
    assert [cosine[0], cosine[50], cosine[100]] == pytest.approx([1.0, 0.55, 0.1])
    assert cosine == sorted(cosine, reverse=True)


@given(
    total=st.integers(1, 400),
    warmup=st.floats(0, 1),
    least=st.floats(0, 1),
    kind=st.sampled_from(["linear", "cosine"]),
)
def test_the_last_step_has_exactly_the_lowest_rate(total: int, warmup: float, least: float, kind: Any) -> None:
    settings = OptimSettings(lr_scheduler_type=kind, warmup_ratio=warmup, min_lr_ratio=least)
    rates = [lr_factor(step, total, settings) for step in range(total)]
    assert rates[-1] == least
    assert all(0 <= rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@given(
    steps=st.integers(1, 40), other_steps=st.integers(1, 40), same=st.booleans(), epochs=st.integers(1, 5),
    max_steps=st.one_of(st.just(-1), st.integers(1, 150)), stop=st.integers(0, 150), least=st.floats(0, 0.9),
)  # fmt: skip
def test_a_schedule_ends_at_its_lowest_rate_after_any_resume(
    steps: int, other_steps: int, same: bool, epochs: int, max_steps: int, stop: int, least: float
) -> None:
    """With other batches, devices, max_epochs or max_steps: the rate is a function of the optimizer step."""
    epoch, step = divmod(stop, steps)
    saved = ResumePosition(epoch, step, stop, False, steps, 1, (0,), "")
    sizes = SimpleNamespace(accumulate=1, rows_of_a_step=(0,) if same else (1,), described=lambda: "")
    now, _ = saved.carried_over(SimpleNamespace(steps_per_epoch=other_steps, sizes=lambda: sizes))
    left = (epochs - now.epoch) * other_steps - now.step
    end = stop + left if max_steps < 0 else min(stop + left, max_steps)
    if end <= stop:
        return  # training has ended
    settings = OptimSettings(lr_scheduler_type="cosine", min_lr_ratio=least)
    trainer = SimpleNamespace(
        max_epochs=epochs, max_steps=max_steps, datamodule=SimpleNamespace(steps_per_epoch=other_steps)
    )
    tuner: Any = SimpleNamespace(trainer=trainer, optim=settings, extra_steps=now.extra_steps)
    total = ThinkTuner.total_steps(tuner)
    assert total == end
    rates = [lr_factor(k, total, settings) for k in range(stop, end)]
    assert rates[-1] == least and all(rate > least for rate in rates[:-1])
