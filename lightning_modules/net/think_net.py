"""The net: a causal LM from a folder or the hub, the think rows beside it, LoRA in it, and its own loss."""

import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.batches.collate import Batch
from datamodules.text.segments import Role
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from hub import model_folder
from lightning_modules.fused.lora_linear import Dtypes
from lightning_modules.fused.patch_layers import patch_layers, unsupported_reason
from lightning_modules.fused.varlen_attention import NO_MASK, Bounds, use_within_rows
from lightning_modules.net.lora import LoraSettings, Start, add_lora
from lightning_modules.net.loss import LossSettings, supervised_cross_entropy, target_ranks
from lightning_modules.net.new_token_embeddings import NewTokenEmbedding, NewTokenHead, NewTokenInit, start_embeddings
from lightning_modules.net.quantize import Quantize, compute_as_in_training, quantization

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

log = logging.getLogger("thinkwright")

Dtype = Literal["float32", "bfloat16", "float16"]
ROWS_TO_A_MULTIPLE_OF = 64  # of a matrix that must grow; keeps the tensor cores' tiles full


class LossSums(NamedTuple):
    """Sums over the supervised tokens of a batch; dividing them is left to who knows the whole step or epoch."""

    total: Tensor  # () float32, what is minimized; the only one with a gradient
    losses: Tensor  # (roles,) float64, cross-entropy
    tokens: Tensor  # (roles,) float64
    tags: (
        Tensor | None
    )  # (2, 3) float64; of opening and closing tags their number, probability and rank; not in training


class ThinkNet(nn.Module):
    """Batch -> LossSums. All that is trained lives in here, and no weight is read outside a forward: so it shards.

    With LoRA the base is frozen and the rows of new tags are trained beside its matrices; without, everything is
    trained and the rows are in the matrices themselves. `lora_start` is what the adapters took out of the base
    when they were new: to be given where a checkpoint will be loaded, None where there was nothing.
    """

    def __init__(
        self,
        base: "PreTrainedModel",
        tokenizer: ThinkTokenizer,
        lora: LoraSettings | None,
        rows_init: NewTokenInit = "subtokens",
        loss: LossSettings = LossSettings(),  # noqa: B008 (never changed)
        lora_start: Start | None = None,
        lean: bool = True,
    ) -> None:
        super().__init__()
        ids, pieces = tokenizer.new_ids, tokenizer.subtoken_ids
        self.loss = loss
        self.role_weights: Tensor | None
        weights = loss.weights.by_role()
        plain = all(weights[role] == 1 for role in Role if role != Role.PROMPT)
        self.register_buffer("role_weights", None if plain else torch.tensor(weights), persistent=False)
        rows = base.get_input_embeddings().num_embeddings
        if len(tokenizer) > rows:
            base.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=ROWS_TO_A_MULTIPLE_OF, mean_resizing=False)
            with torch.no_grad():  # random ones, which no checkpoint holds, would be others where it is loaded
                base.get_input_embeddings().weight[rows:] = 0
                base.get_output_embeddings().weight[rows:] = 0
        use_within_rows(base)
        self.lm: Any
        self.lm, self.lora_start = (base, None) if lora is None else add_lora(base, lora, lora_start)
        embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
        if getattr(head, "bias", None) is not None or getattr(base.config, "final_logit_softcapping", None):
            problem = "has an output head with a bias or soft-capping"
            raise UserError("model.name", base.name_or_path, problem, "choose a model like Qwen, Llama or SmolLM")
        tied = head.weight is embedding.weight

        def start(matrix: Tensor) -> Tensor:
            return start_embeddings(matrix, pieces, tokenizer.base_size, rows_init)

        if ids and lora is None:
            with torch.no_grad():
                for matrix in [embedding.weight] if tied else [embedding.weight, head.weight]:
                    matrix[ids] = start(matrix).to(matrix.dtype)
        elif ids:
            inputs = NewTokenEmbedding(embedding, ids, start(embedding.weight))
            outputs = inputs.rows if tied else nn.Parameter(start(head.weight))
            base.set_input_embeddings(inputs)
            base.set_output_embeddings(NewTokenHead(head, ids, outputs))
        self.not_fused = unsupported_reason(self.causal_lm) if lean else "model.lean is false"
        if self.not_fused is None:
            patch_layers(self.causal_lm)
        elif lean and lora is not None:
            log.info(f"layers compute as transformers has them, not lean: {self.not_fused}")
        self.train()

    @property
    def causal_lm(self) -> "PreTrainedModel":
        """The transformers model, adapters and rows in place."""
        return self.lm.get_base_model() if hasattr(self.lm, "get_base_model") else self.lm

    @property
    def vocabulary(self) -> int:
        """Rows of the head; at least the ids that the tokenizer knows."""
        return int(self.causal_lm.get_output_embeddings().weight.shape[0])

    def shard(self, mesh: "DeviceMesh") -> None:
        """FSDP2: each decoder layer by itself, the rest as one. All that is trained is inside, so none drifts apart."""
        from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

        if isinstance(self, FSDPModule):
            return
        for layer in self.causal_lm.base_model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(self, mesh=mesh)
        register_fsdp_forward_method(self, "generate")

    def forward(self, batch: Batch) -> LossSums:
        model, picked = self.causal_lm, self._picked(batch)
        head: Any = model.get_output_embeddings()
        rows, ids = (head.rows, head.index) if isinstance(head, NewTokenHead) else (None, None)
        roles, targets = batch.target_roles, batch.targets
        weights = None if self.role_weights is None else self.role_weights[roles]
        total, losses = supervised_cross_entropy(
            picked, head.weight, targets, rows, ids, weights, self.loss.label_smoothing, self.loss.z_loss
        )
        # (N, roles); summed by a matrix product, which a GPU repeats to the bit
        by_role = F.one_hot(roles, len(Role)).double()
        tags = None
        if not self.training:
            at = ((roles == Role.TAG_OPEN) | (roles == Role.TAG_CLOSE)).nonzero()[:, 0]
            ranks = target_ranks(picked[at], head.weight, targets[at], rows, ids)
            each = torch.stack([torch.ones_like(losses[at]), (-losses[at]).exp(), ranks.float()], 1).double()
            tags = by_role[at][:, [Role.TAG_OPEN, Role.TAG_CLOSE]].T @ each
        return LossSums(total, losses.detach().double() @ by_role, by_role.sum(0), tags)

    def _picked(self, batch: Batch) -> Tensor:
        """(N, D): the final hidden states of the positions where a loss is due."""
        run = partial(
            self.causal_lm.base_model,
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=NO_MASK,
            use_cache=False,
            bounds=Bounds.of(batch),
        )
        hidden: Tensor
        if self.not_fused is not None:
            hidden = run().last_hidden_state
            return hidden[0, batch.predict_from]
        dtypes = Dtypes.now(self.causal_lm.base_model.norm.weight)
        with torch.autocast(batch.input_ids.device.type, enabled=False):  # lean layers see to it themselves
            hidden = run(needed=batch.predict_from, dtypes=dtypes).last_hidden_state
        return hidden[0]

    def generate(self, **inputs: Any) -> Tensor:
        """`transformers.GenerationMixin.generate` of the model as it is now: adapters, rows and all."""
        written: Tensor = self.causal_lm.generate(**inputs)
        return written


def load_base(
    name: str, revision: str | None, dtype: Dtype, from_scratch: bool = False, quantize: Quantize | None = None
) -> "PreTrainedModel":
    """The base model in `dtype`; with `from_scratch` random weights of its architecture.

    With `quantize` the linear layers but the head hold 4 bits a weight, and compute in `dtype`.

    Raises UserError if there is no such model, or its files cannot be read as one.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    folder = model_folder(name, revision, weights=not from_scratch)
    try:
        if from_scratch:
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=getattr(torch, dtype))
        if quantize is None:
            return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        config = quantization(quantize, getattr(torch, dtype))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), quantization_config=config)
        compute_as_in_training(model)
        return model
    except Exception as error:  # OSError, ValueError, KeyError, SafetensorError: by what is broken
        problem = f"cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise UserError(
            "model.name", name, problem, "give a decoder-only transformers model with its weights"
        ) from error
