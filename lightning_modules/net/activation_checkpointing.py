"""Gradient checkpointing (arXiv 1604.06174): layers that keep their input alone and compute the rest again."""

from typing import TYPE_CHECKING

from errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_checkpointing(wanted: bool | int) -> None:
    """Raises UserError for a number of layers that cannot be."""
    if wanted < 0:
        fix = "give how many layers, or true for all"
        raise UserError("model.gradient_checkpointing", wanted, "is below 0", fix)


def checkpoint_activations(base: "PreTrainedModel", wanted: bool | int) -> None:
    """Has all layers, or so many from the first on, keep their input alone and compute the rest again, backward."""
    if not wanted:
        return
    # The name changed within transformers 5
    getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)()
    if wanted is not True:
        for layer in base.base_model.layers[wanted:]:
            layer.gradient_checkpointing = False
