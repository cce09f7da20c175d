"""Activation checkpointing (arXiv 1604.06174): layers keep only their input and recompute the rest backward."""

from typing import TYPE_CHECKING

from errors import UserError
from lightning_modules.internals.transformers_internals import (
    decoder_layers,
    disable_checkpointing,
    enable_checkpointing,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_checkpointing(layers: bool | int) -> None:
    """Raise UserError if the number of layers is negative."""
    if layers < 0:
        fix = "give the number of layers, or true for all"
        raise UserError("model.gradient_checkpointing", layers, "is below 0", fix)


def checkpoint_activations(base: "PreTrainedModel", layers: bool | int) -> None:
    """Switch on activation checkpointing in all layers, or in the first `layers` of them."""
    if not layers:
        return
    enable_checkpointing(base)
    if layers is not True:
        disable_checkpointing(list(decoder_layers(base))[layers:])
