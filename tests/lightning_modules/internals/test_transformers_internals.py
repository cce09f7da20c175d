"""Each private API of transformers that the project uses does what its docstring says."""

from typing import Any

import pytest
import torch

from lightning_modules.internals.transformers_internals import (
    PLAIN_DECODER_LAYERS,
    decoder_layers,
    disable_checkpointing,
    enable_checkpointing,
    final_norm,
    is_checkpointed,
    layer_parts,
    norm_eps,
    not_plain_reason,
    packed_hidden_states,
    sdpa_attention,
    use_attention,
)
from tests.conftest import KINDS, random_lm

IDS = torch.arange(1, 7)[None]
POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 2]])


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_keywords_reach_the_attention_function_with_no_mask_built(kind: str) -> None:
    lm, seen = random_lm(kind), []

    def attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **given: Any) -> Any:
        seen.append((given.pop("packed_forward"), attention_mask.shape))
        return sdpa_attention(module, query, key, value, None, **given)

    use_attention(lm, "recorded", attention)
    mine = object()
    hidden = packed_hidden_states(lm, IDS, POSITIONS, packed_forward=mine)
    assert hidden.shape == (1, 6, 32)
    assert seen == [(mine, (1, 1, 1, 1))] * 2  # two layers


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_keywords_reach_each_layer(kind: str) -> None:
    lm, seen = random_lm(kind), []
    use_attention(lm, "as_sdpa", lambda *args, packed_forward=None, **given: sdpa_attention(*args, **given))

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append((kwargs["packed_forward"], {"position_embeddings"} <= kwargs.keys()))

    for layer in decoder_layers(lm):
        layer.register_forward_pre_hook(note, with_kwargs=True)
    packed_hidden_states(lm, IDS, POSITIONS, packed_forward="mine")
    assert seen == [("mine", True)] * 2


def test_an_attention_function_of_our_own_keeps_masks_for_padding() -> None:
    ours, theirs = random_lm("qwen2"), random_lm("qwen2")
    use_attention(ours, "as_sdpa", sdpa_attention)
    theirs.set_attn_implementation("eager")
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]])
    mine, right = (lm(input_ids=IDS, attention_mask=mask).logits for lm in (ours, theirs))
    torch.testing.assert_close(mine[0, 2:], right[0, 2:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_plain_layer_is_computed_by_its_parts(kind: str) -> None:
    """Norm, attention of one token (its own value), norm, gated product: nothing else is in the layer."""
    lm = random_lm(kind)
    assert not_plain_reason(lm) is None
    assert {type(layer).__name__ for layer in decoder_layers(lm)} <= set(PLAIN_DECODER_LAYERS)
    x = torch.randn(1, 1, 32)
    parts = layer_parts(decoder_layers(lm)[0])
    assert norm_eps(parts.input_norm) == lm.config.rms_norm_eps == norm_eps(final_norm(lm))
    assert (parts.scaling, parts.sliding_window) == (8**-0.5, None)
    assert len(parts.linear) == 7
    value = parts.qkv[2](parts.input_norm(x)).view(2, 8).repeat_interleave(2, 0).view(1, 1, 32)
    y = x + parts.o(value)
    gate, up = (linear(parts.post_attention_norm(y)) for linear in parts.gate_up)
    expected = y + parts.down(torch.nn.functional.silu(gate) * up)
    cos, sin = lm.base_model.rotary_emb(x, torch.tensor([[0]]))
    out = decoder_layers(lm)[0](x, position_embeddings=(cos, sin), attention_mask=None)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_other_layers_and_activations_are_not_plain() -> None:
    assert not_plain_reason(random_lm("qwen3")) == "Qwen3DecoderLayer is another kind of layer"
    gelu = random_lm("llama")
    gelu.config.hidden_act = "gelu"
    assert not_plain_reason(gelu) == "its activation is gelu"


def test_checkpointing_is_switched_on_for_all_and_off_for_some() -> None:
    lm = random_lm("qwen2").train()
    first, second = decoder_layers(lm)
    assert not is_checkpointed(first)
    enable_checkpointing(lm)
    disable_checkpointing([second])
    assert (is_checkpointed(first), is_checkpointed(second)) == (True, False)
    lm.eval()
    assert not is_checkpointed(first)
