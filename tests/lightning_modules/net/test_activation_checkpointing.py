from typing import Any

import pytest
import torch

from lightning_modules.internals.transformers_internals import decoder_layers
from lightning_modules.net.activation_checkpointing import checkpoint_activations
from tests.conftest import random_lm


@pytest.mark.parametrize(
    ("layers", "expected"), [(False, [0, 0]), (0, [0, 0]), (1, [1, 0]), (True, [1, 1]), (9, [1, 1])]
)
def test_the_first_layers_compute_twice_and_the_others_once(layers: bool | int, expected: list[int]) -> None:
    lm = random_lm("qwen2")
    checkpoint_activations(lm, layers)
    calls = [0, 0]
    for k, layer in enumerate(decoder_layers(lm)):

        def count(*_: object, k: int = k) -> None:
            calls[k] += 1

        norm: Any = layer.input_layernorm  # the first module: torch recomputes no further than it must
        norm.register_forward_hook(count)
    lm.train()
    out = lm(input_ids=torch.arange(6)[None], use_cache=False).logits.sum()
    assert calls == [1, 1]
    out.backward()
    assert [more - 1 for more in calls] == expected
