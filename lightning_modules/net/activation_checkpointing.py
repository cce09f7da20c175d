"""Activation checkpointing (arXiv 1604.06174): layers keep only their input and recompute the rest backward."""

from typing import TYPE_CHECKING

from lightning_modules.internals.transformers_internals import (
    decoder_layers,
    disable_checkpointing,
    enable_checkpointing,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def checkpoint_activations(base: "PreTrainedModel", layers: bool | int) -> None:
    """Switch on activation checkpointing in all layers, or in the first `layers` of them."""
    if not layers:
        return
    enable_checkpointing(base)
    if layers is not True:
        disable_checkpointing(list(decoder_layers(base))[layers:])
