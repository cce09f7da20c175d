"""Is the base what the net takes it for? A check of a few tokens, when the net is built.

ThinkNet packs rows into one sequence, attends within them, and computes the loss itself. This is right for a causal
transformer whose logits are the product of its last hidden state and its head. Another base would be trained on another
objective without a word. No list of names can tell, so the check computes. It uses float32, also for a base in half
precision, because rounding would hide small differences.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.batches.collate import Batch
from datamodules.text.segments import Role
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.internals.torch_internals import compute_in_float32
from lightning_modules.internals.transformers_internals import decoder_layers, narrow_windows
from lightning_modules.net.new_token_embeddings import NewTokenEmbedding, NewTokenHead
from lightning_modules.net.think_net import ThinkNet

TEXTS = ("A bat and a ball cost 1.10 in total, so", "Let me think: 17 is a prime number, and")  # ordinary words
LENGTH = 8  # tokens of a row
WINDOW = 3  # tokens that a layer with a sliding window sees during the check
TOLERANCE = 2e-3  # nats for one token. Rounding in float32 gives less than 1e-4, a base of another kind at least 5e-3
FOUR_BITS = 0.2  # nats, for a base in 4 bits, which computes in half precision
WAY_OUT = "choose a model like Qwen, Llama, Mistral, Gemma or SmolLM (docs/limits.md)"


class BaseCheck:
    """Computes the base's own loss of two rows, each alone, before the net changes the base. Then `check(net)`.

    Raises UserError for a base without the parts that the net needs.
    """

    def __init__(self, base: Any, tokenizer: ThinkTokenizer, name: str) -> None:
        self.name = name
        try:
            decoder_layers(base), base.get_input_embeddings().weight, base.get_output_embeddings().weight
        except AttributeError as error:
            raise self._refusal(f"is built in another way than the net expects ({error})") from error
        if getattr(base.get_output_embeddings(), "bias", None) is not None:
            raise self._refusal("has an output head with a bias, which the loss does not compute")
        if getattr(base.config, "final_logit_softcapping", None):  # small logits of a few tokens would hardly show it
            raise self._refusal("caps its logits softly, which the loss does not compute")
        first, second = (row[:LENGTH] for row in tokenizer.encoder.encode(TEXTS))
        self.rows = [first, second]
        with self._quietly(base):
            self.own = _own_losses(base, self.rows)

    def check(self, net: ThinkNet) -> None:
        """Raise UserError that names the first of three faults.

        1. The loss of two rows in one batch differs from the base's own loss of each row alone.
        2. A later token changes an earlier state, or a row changes another one.
        3. New tokens are computed otherwise when they are merged into the base's matrices, as `export` does.

        One pass computes four rows: the two, the first with another end, and the second again.
        """
        first, second = self.rows
        other = [*first[: LENGTH // 2], *second[LENGTH // 2 :]]
        with self._quietly(net):
            with _in_float32(net):
                losses, states = _packed(net, [first, second, other, second])
            tolerance = FOUR_BITS if getattr(net.causal_lm, "is_quantized", False) else TOLERANCE
            for ours, own in zip(losses, self.own, strict=False):
                if not _near(ours, own, tolerance):
                    told = f"{ours.mean():.4f} in a batch, {own.mean():.4f} by its own code"
                    raise self._refusal(f"has another loss than in transformers: {told}, in nats per token")
            if not _near(states[0][: LENGTH // 2], states[2][: LENGTH // 2], tolerance):
                raise self._refusal("is not causal: a later token changes earlier states")
            if not _near(states[1], states[3], tolerance):
                raise self._refusal("lets a row change the next one in its batch")
            if difference := merged_difference(net.causal_lm):
                raise self._refusal(f"computes new tokens otherwise when they are merged for export: {difference}")

    def _refusal(self, problem: str) -> UserError:
        return UserError("model.name", self.name, problem, WAY_OUT)

    @contextmanager
    def _quietly(self, module: Any) -> Iterator[None]:
        """Compute without gradients and dropout, and with short windows. Refuse a base that fails."""
        was_training = module.training
        lm = module.causal_lm if isinstance(module, ThinkNet) else module
        module.eval()
        try:
            with torch.no_grad(), narrow_windows(lm, WINDOW):
                yield
        except (
            AttributeError,
            IndexError,
            KeyError,
            NotImplementedError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            problem = f"fails in a check of a few tokens ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
            raise self._refusal(problem) from error
        finally:
            module.train(was_training)


def _in_float32(lm: Any) -> AbstractContextManager[Any]:
    """Return a mode for the forward passes of the check; a base in 4 bits computes in its own precision."""
    dtypes = {p.dtype for p in lm.parameters()}
    half = bool(dtypes & {torch.float16, torch.bfloat16}) and all(dtype.is_floating_point for dtype in dtypes)
    return compute_in_float32() if half else nullcontext()


def _near(ours: Tensor, own: Tensor, tolerance: float) -> bool:
    return bool(((ours - own).abs() <= tolerance * own.abs().clamp_min(1)).all())


def _own_losses(lm: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the loss of each token but the first, (rows, T - 1) float32, by the forward pass of transformers.

    The rows have one length, so no padding is between them.
    """
    ids = torch.tensor(rows, device=lm.get_input_embeddings().weight.device)
    with _in_float32(lm):
        logits: Tensor = lm(input_ids=ids, use_cache=False).logits
    return F.cross_entropy(logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none")


def _packed(net: ThinkNet, rows: Sequence[Sequence[int]]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return losses as they are trained, (T - 1,) for each row, and the final states before them, (T - 1, D)."""
    batch = _batch(net, rows)
    states = net.supervised_hidden_states(batch)
    losses = net.token_losses(states, batch.targets)
    sizes = [len(row) - 1 for row in rows]
    return torch.split(losses, sizes), torch.split(states, sizes)


def _batch(net: ThinkNet, rows: Sequence[Sequence[int]]) -> Batch:
    """Return the rows as a batch in which every token but the first of a row is supervised."""
    lengths = [len(row) for row in rows]
    starts = np.cumsum([0, *lengths])
    from_ = np.concatenate([np.arange(start, end - 1) for start, end in pairwise(starts)])
    ids = torch.tensor([token for row in rows for token in row])
    batch = Batch(
        input_ids=ids[None],
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
        starts=torch.tensor(starts, dtype=torch.int32),
        lengths=lengths,
        predict_from=torch.tensor(from_),
        targets=ids[from_ + 1],
        target_roles=torch.full((len(from_),), int(Role.THOUGHT)),
        step_tokens=len(from_),
        prompt_lengths=[1] * len(rows),
        indices=list(range(len(rows))),
        row_ids=["check"] * len(rows),
        groups=["all"] * len(rows),
    )
    return batch.to(net.causal_lm.get_input_embeddings().weight.device)


def merged_difference(lm: Any) -> str | None:
    """Return where new tokens give other numbers than their embeddings in the matrices do; None if nowhere."""
    embedding, head = lm.get_input_embeddings(), lm.get_output_embeddings()
    if not isinstance(embedding, NewTokenEmbedding) or not isinstance(head, NewTokenHead):
        return None  # they are in the matrices
    ids, matrix = head.index, head.weight
    state = embedding.base(ids[:1]).to(matrix.dtype)
    computed = {"embeddings": embedding(ids), "logits": head(state)[:, ids]}
    with _merged(embedding, head):
        merged = {"embeddings": embedding.base(ids), "logits": head.base(state)[:, ids]}
    eps = torch.finfo(matrix.dtype).eps
    for name, ours in computed.items():
        if (ours - merged[name]).abs().max() > 8 * eps * merged[name].abs().max():
            return f"{name} of size {ours.abs().max():.4g} in training, {merged[name].abs().max():.4g} merged"
    return None


@contextmanager
def _merged(*modules: NewTokenEmbedding | NewTokenHead) -> Iterator[None]:
    """Put the embeddings of new tokens into the matrices of the base."""
    kept = [module.weight[list(module.ids)].clone() for module in modules]
    for module in modules:
        module.weight[list(module.ids)] = module.embeddings.to(module.weight.dtype)
    try:
        yield
    finally:
        for module, values in zip(modules, kept, strict=True):
            module.weight[list(module.ids)] = values
