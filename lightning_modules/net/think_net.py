"""The net: a base model with adapters, embeddings of new tokens, and its own loss."""

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches.collate import Batch
from datamodules.text.segments import Role
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.fused.packed_forward import PackedForward, ProductDtypes, RowBounds
from lightning_modules.fused.patch_layers import FusedLayers, patch_layers, unsupported_reason
from lightning_modules.fused.varlen_attention import use_varlen_attention
from lightning_modules.internals.transformers_internals import decoder_layers, final_norm, packed_hidden_states
from lightning_modules.net.base_model import grow_vocabulary
from lightning_modules.net.lora import LoraSettings, LoraStart, add_lora
from lightning_modules.net.loss import Head, RoleWeights, supervised_cross_entropy, target_ranks
from lightning_modules.net.new_token_embeddings import (
    NewTokenEmbedding,
    NewTokenHead,
    NewTokenInit,
    initial_embeddings,
)

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

log = logging.getLogger("thinkwright")


class LossSums(NamedTuple):
    """Sums over the supervised tokens of a batch. The caller knows the whole step or epoch and divides them."""

    total: Tensor  # () float32, the training loss; the only sum with a gradient
    losses: Tensor  # (roles,) float64, cross-entropy
    tokens: Tensor  # (roles,) float64
    tags: Tensor | None  # (2, 3) float64: number, probability, rank of opening and closing tags; None in training


class ThinkNet(nn.Module):
    """Batch -> LossSums. All trained tensors are inside, and only a forward pass reads weights: so FSDP2 can shard it.

    With LoRA the base is frozen, and embeddings of new tokens are trained beside its matrices. Without LoRA all weights
    are trained, and the embeddings of new tokens are in the matrices.

    role_weights: weights of tokens in the training loss
    lora_start:   initial adapters of the checkpoint that will be loaded; afterwards the attribute holds the initial
                  adapters that were subtracted from the base, or None
    fused:        False keeps transformers' own decoder layers; for tests and benchmarks
    """

    def __init__(
        self,
        base: "PreTrainedModel",
        tokenizer: ThinkTokenizer,
        lora: LoraSettings | None,
        new_token_init: NewTokenInit = "subtokens",
        role_weights: RoleWeights = RoleWeights(),  # noqa: B008 (never changed)
        lora_start: LoraStart | None = None,
        fused: bool = True,
    ) -> None:
        super().__init__()
        weights = role_weights.by_role()
        equal = all(weights[role] == 1 for role in Role if role != Role.PROMPT)
        self.role_weights: Tensor | None
        self.register_buffer("role_weights", None if equal else torch.tensor(weights), persistent=False)
        grow_vocabulary(base, len(tokenizer))
        use_varlen_attention(base)
        self.lm: Any
        self.lm, self.lora_start = (base, None) if lora is None else add_lora(base, lora, lora_start)
        _add_new_tokens(base, tokenizer, new_token_init, trained_base=lora is None)
        self.not_fused = unsupported_reason(self.causal_lm) if fused else "fused=False"  # the reason, or None
        self.fused_layers: FusedLayers | None = None
        if self.not_fused is None:
            self.fused_layers = patch_layers(self.causal_lm)
        elif fused and lora is not None:
            log.info(f"transformers' own decoder layers are used, not fused layers: {self.not_fused}")
        self.train()

    @property
    def causal_lm(self) -> "PreTrainedModel":
        """The transformers model, with adapters and new embeddings in place."""
        return self.lm.get_base_model() if hasattr(self.lm, "get_base_model") else self.lm

    @property
    def vocabulary(self) -> int:
        """The size of the head's vocabulary; at least the size of the tokenizer's."""
        return int(self.causal_lm.get_output_embeddings().weight.shape[0])

    @property
    def head(self) -> Head:
        """The head's tensors; valid within a forward pass only, as FSDP2 shards them otherwise."""
        module: Any = self.causal_lm.get_output_embeddings()
        if isinstance(module, NewTokenHead):
            return Head(module.weight, module.embeddings, module.index)
        return Head(module.weight)

    def shard(self, mesh: "DeviceMesh") -> None:
        """Shard by FSDP2: each decoder layer by itself, the rest together. A second call does nothing."""
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

        if isinstance(self, FSDPModule):
            return
        for layer in decoder_layers(self.causal_lm):
            fully_shard(layer, mesh=mesh)
        fully_shard(self, mesh=mesh)
        register_fsdp_forward_method(self, "generate")

    def forward(self, batch: Batch) -> LossSums:
        hidden, head = self.supervised_hidden_states(batch), self.head
        roles, targets = batch.target_roles, batch.targets
        weights = None if self.role_weights is None else self.role_weights[roles]
        total, losses = supervised_cross_entropy(hidden, head, targets, weights)
        # (N, roles); a GPU repeats a sum by a matrix product to the bit
        by_role = F.one_hot(roles, len(Role)).double()
        tags = None
        if not self.training:
            at = ((roles == Role.TAG_OPEN) | (roles == Role.TAG_CLOSE)).nonzero()[:, 0]
            ranks = target_ranks(hidden[at], head, targets[at])
            each = torch.stack([torch.ones_like(losses[at]), (-losses[at]).exp(), ranks.float()], 1).double()
            tags = by_role[at][:, [Role.TAG_OPEN, Role.TAG_CLOSE]].T @ each
        return LossSums(total, losses.detach().double() @ by_role, by_role.sum(0), tags)

    def token_losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each supervised token, (N,) float32, from the states before them."""
        return supervised_cross_entropy(hidden, self.head, targets)[1]

    def supervised_hidden_states(self, batch: Batch) -> Tensor:
        """Return the final hidden states of the supervised positions, (N, D)."""
        lm, bounds, needed = self.causal_lm, RowBounds(batch.starts, batch.lengths), batch.predict_from
        if self.fused_layers is None or self.fused_layers.suspended_reason():
            packed = PackedForward(bounds)
            return packed_hidden_states(lm, batch.input_ids, batch.position_ids, **packed.as_kwargs())[0, needed]
        packed = PackedForward(bounds, needed, ProductDtypes.current(final_norm(lm).weight))
        with torch.autocast(batch.input_ids.device.type, enabled=False):  # fused layers choose dtypes themselves
            return packed_hidden_states(lm, batch.input_ids, batch.position_ids, **packed.as_kwargs())[0]

    def generate(self, **inputs: Any) -> Tensor:
        """Call transformers' `generate` of the model as it is now, with adapters and new embeddings."""
        written: Tensor = self.causal_lm.generate(**inputs)
        return written


def _add_new_tokens(base: Any, tokenizer: ThinkTokenizer, init: NewTokenInit, trained_base: bool) -> None:
    """Initialize the embeddings of new tokens: in the matrices of a trained base, beside those of a frozen one."""
    embedding, head, ids = base.get_input_embeddings(), base.get_output_embeddings(), tokenizer.new_ids
    if not ids:
        return
    tied = head.weight is embedding.weight

    def initial(matrix: Tensor) -> Tensor:
        return initial_embeddings(matrix, tokenizer.subtoken_ids, tokenizer.base_size, init)

    if trained_base:
        with torch.no_grad():
            for matrix in [embedding.weight] if tied else [embedding.weight, head.weight]:
                matrix[ids] = initial(matrix).to(matrix.dtype)
    else:
        inputs = NewTokenEmbedding(embedding, ids, initial(embedding.weight))
        outputs = inputs.embeddings if tied else nn.Parameter(initial(head.weight))
        base.set_input_embeddings(inputs)
        base.set_output_embeddings(NewTokenHead(head, ids, outputs))
