from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_modules.fused.lora_linear import FusedLoRALinear
from lightning_modules.fused.packed_forward import ProductDtypes

EXACT = ProductDtypes(torch.float32, torch.float32)


def modules(bias: bool) -> nn.ModuleDict:
    """Four linear layers of one input by peft: two with adapters of other ranks and scales, two without."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    plain = nn.ModuleDict({name: nn.Linear(12, width, bias) for name, width in zip("abcd", (8, 6, 5, 7), strict=True)})
    config = LoraConfig(r=3, target_modules=["a", "c"], rank_pattern={"c": 2}, alpha_pattern={"c": 5}, bias="none")
    lm: Any = get_peft_model(plain, config)
    for parameter in lm.parameters():
        nn.init.normal_(parameter)
    return lm.base_model.model  # type: ignore[no-any-return]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stacked", [True, False])
def test_outputs_and_gradients_are_those_of_the_layers_one_by_one(bias: bool, stacked: bool) -> None:
    layers = modules(bias)
    each = [layers[name] for name in "abcd"]
    x = torch.randn(9, 12, requires_grad=True)
    right = [layer(x) for layer in each]
    grads = [torch.randn_like(out) for out in right]
    group = FusedLoRALinear(each)
    wanted = torch.autograd.grad(right, [x, *group.trained()], grads)

    weights = group.weights(EXACT, stacked)
    assert len(weights.frozen) == (1 if stacked else 4)
    with torch.no_grad():
        outputs, a_out = group.forward(x, weights, EXACT)
        given = group.like_outputs(x, weights)
        for place, grad in zip(given, grads, strict=True):
            place.copy_(grad)
        grad_x, trained = group.backward(given, x, a_out, weights, EXACT)
        none, _ = group.backward(given, x, a_out, weights, EXACT, to_x=False)
    assert none is None and grad_x is not None
    for ours, theirs in zip([*outputs, grad_x, *trained], [*right, *wanted], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_stacked_weights_are_the_layers_own_and_adapters_are_read_at_each_pass() -> None:
    """A change of a layer's weights, as by a merge, changes the stack; there is no second copy."""
    layers = modules(True)
    each = [layers[name] for name in "abcd"]
    group, x = FusedLoRALinear(each), torch.randn(4, 12)

    def check() -> None:
        with torch.no_grad():
            outputs, _ = group.forward(x, group.weights(EXACT, True), EXACT)
            for ours, layer in zip(outputs, each, strict=True):
                torch.testing.assert_close(ours, layer(x), rtol=1e-5, atol=1e-5)

    check()
    assert group.stack is not None
    storages = {base.weight.untyped_storage().data_ptr() for base in group.bases}
    assert storages == {group.stack.untyped_storage().data_ptr()}
    with torch.no_grad():
        group.bases[1].weight.mul_(2)
        for parameter in group.trained():
            parameter.add_(1)
    check()
    group.bases[0].weight.data = group.bases[0].weight.data.clone()  # as a move to another device does
    check()
    for tensor in (group.bases[2].weight, group.bases[1].bias):  # as merging one adapter does
        tensor.data = tensor.data + 1
        check()
    with torch.no_grad():
        group.bases[3].bias.add_(1)
    check()


def test_a_first_pass_in_inference_mode_leaves_training_possible() -> None:
    group, x = FusedLoRALinear([modules(True)[name] for name in "ab"]), torch.randn(4, 12)
    with torch.inference_mode():
        group.weights(EXACT, True)
    weights = group.weights(EXACT, True)
    _, a_out = group.forward(x, weights, EXACT)
    assert not any(part.is_inference() for part in (*weights.frozen, weights.a, a_out) if part is not None)


def test_without_adapters_there_is_nothing_trained() -> None:
    group = FusedLoRALinear([nn.Linear(3, 4), nn.Linear(3, 2)])
    x: Tensor = torch.randn(5, 3)
    weights = group.weights(EXACT, False)
    _, a_out = group.forward(x, weights, EXACT)
    assert a_out is None and group.trained() == []
    assert group.backward([torch.ones(5, 4), torch.ones(5, 2)], None, None, weights, EXACT)[1] == []
