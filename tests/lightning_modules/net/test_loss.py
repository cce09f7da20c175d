"""The chunked loss is torch's cross-entropy of all logits."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.text.segments import Role
from errors import UserError
from lightning_modules.net import loss as module
from lightning_modules.net.loss import Head, RoleWeights, supervised_cross_entropy, target_ranks

N, D, V = 37, 16, 101
IDS = torch.tensor([7, 90])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "positions_per_chunk", lambda *_: 10)  # four chunks, the last one short


def inputs(with_new: bool = True, seed: int = 0) -> tuple[Tensor, Head, Tensor]:
    """Hidden states, a head with or without embeddings of new tokens, and targets."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, new = (torch.randn(*shape, generator=generator) for shape in ((N, D), (V, D), (len(IDS), D)))
    targets = torch.randint(V, (N,), generator=generator)
    targets[:4] = IDS.repeat(2)
    head = Head(weight, new.requires_grad_(), IDS) if with_new else Head(weight)
    return hidden.requires_grad_(), head, targets


def matrix_of(head: Head) -> Tensor:
    """The head as one matrix, the embeddings of new tokens in place."""
    if head.new_embeddings is None:
        return head.weight
    matrix = head.weight.clone()
    matrix[IDS] = head.new_embeddings
    return matrix


def reference(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, matrix_of(head)), targets, reduction="none")


@pytest.mark.parametrize("with_new", [True, False])
@pytest.mark.parametrize("trained_head", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_loss_and_gradients_are_those_of_full_logits(with_new: bool, trained_head: bool, weighted: bool) -> None:
    hidden, head, targets = inputs(with_new)
    head.weight.requires_grad_(trained_head)
    token_weights = torch.rand(N) * 2 if weighted else None
    parts = [hidden, *([head.weight] if trained_head else [])]
    parts += [head.new_embeddings] if head.new_embeddings is not None else []
    ours, per_token = supervised_cross_entropy(hidden, head, targets, token_weights)
    each = reference(hidden, head, targets)
    theirs = (each if token_weights is None else each * token_weights).sum()
    torch.testing.assert_close(per_token, each, rtol=1e-5, atol=1e-5)  # reported losses have no weights
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for mine, right in zip(torch.autograd.grad(3 * ours, parts), torch.autograd.grad(3 * theirs, parts), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1, 10, 100])
def test_very_unlikely_tokens_have_exact_losses_and_gradients(scale: int) -> None:
    """In float32 the probability is 0 if the loss is above about 90."""
    hidden, head, targets = inputs(with_new=False)
    ours, per_token = supervised_cross_entropy(scale * hidden, head, targets)
    theirs = reference((scale * hidden).double(), Head(head.weight.double()), targets)
    torch.testing.assert_close(per_token.double(), theirs, rtol=1e-6, atol=1e-6 * scale)
    (mine,), (right,) = torch.autograd.grad(ours, hidden), torch.autograd.grad(theirs.sum(), hidden)
    torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5 * scale)


def test_a_nan_in_one_position_is_a_nan_in_its_loss_and_in_the_sum() -> None:
    hidden, head, targets = inputs(with_new=False)
    with torch.no_grad():
        hidden[5, 0] = float("nan")
    total, per_token = supervised_cross_entropy(hidden, head, targets)
    assert total.isnan() and per_token[5].isnan() and per_token.isnan().sum() == 1


def test_a_frozen_head_gets_no_gradient_and_without_grad_none_is_computed() -> None:
    hidden, head, targets = inputs()
    total, _ = supervised_cross_entropy(hidden, head, targets)
    total.backward()  # type: ignore[no-untyped-call]
    assert head.weight.grad is None
    with torch.no_grad():
        again, _ = supervised_cross_entropy(hidden, head, targets)
    assert torch.equal(again, total)
    assert not again.requires_grad


def test_without_positions_the_gradient_is_zero() -> None:
    """A rank whose part of a step is empty takes part in the backward pass like any other."""
    hidden, head, targets = inputs()
    total, per_token = supervised_cross_entropy(hidden[:0], head, targets[:0])
    total.backward()  # type: ignore[no-untyped-call]
    assert (total.item(), per_token.shape) == (0.0, (0,))
    assert hidden.grad is not None and not hidden.grad.any()
    assert head.new_embeddings is not None and head.new_embeddings.grad is not None
    assert not head.new_embeddings.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_head_gives_float32_losses_near_the_exact_ones(dtype: torch.dtype) -> None:
    hidden, head, targets = inputs()
    half, half_head = hidden.detach().to(dtype).requires_grad_(), Head(head.weight.to(dtype), head.new_embeddings, IDS)
    total, per_token = supervised_cross_entropy(half, half_head, targets)
    total.backward()  # type: ignore[no-untyped-call]
    exact = reference(half.detach().float(), Head(half_head.weight.float(), head.new_embeddings, IDS), targets)
    assert per_token.dtype == torch.float32
    torch.testing.assert_close(per_token, exact, rtol=2e-2, atol=5e-2)
    assert half.grad is not None and half.grad.dtype == dtype
    assert head.new_embeddings is not None and head.new_embeddings.grad is not None
    assert head.new_embeddings.grad.dtype == torch.float32


def test_under_autocast_the_softmax_stays_in_float32() -> None:
    hidden, head, targets = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        _, per_token = supervised_cross_entropy(hidden, head, targets)
    assert per_token.dtype == torch.float32
    torch.testing.assert_close(per_token, reference(hidden, head, targets), rtol=2e-2, atol=8e-2)


def test_a_rank_is_the_place_among_all_logits() -> None:
    hidden, head, targets = inputs()
    order = F.linear(hidden.detach(), matrix_of(head).detach()).argsort(-1, descending=True)
    places = (order == targets[:, None]).int().argmax(-1) + 1
    assert torch.equal(target_ranks(hidden, head, targets), places)


def test_weights_that_are_all_0_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.role_weights: are all 0"):
        RoleWeights(0, 0, 0, 0)


def test_every_supervised_role_has_its_weight() -> None:
    weights = RoleWeights(thought=1.0, tag=2.0, answer=3.0, end=4.0).by_role()
    assert {role.name: weights[role] for role in Role} == {
        "PROMPT": 0.0, "TAG_OPEN": 2.0, "THOUGHT": 1.0, "TAG_CLOSE": 2.0, "ANSWER": 3.0, "END": 4.0,
    }  # fmt: skip


def test_a_chunk_holds_the_same_part_of_any_memory_up_to_a_limit() -> None:
    from lightning_modules.net.loss import CHUNK_SHARE, MOST_CHUNK_BYTES

    chunk = POSITIONS_PER_CHUNK
    gpu, limit = torch.device("cuda", 0), MOST_CHUNK_BYTES["cuda", 2]
    assert chunk(1000, gpu, 2, memory=CHUNK_SHARE * 10_000) == 5
    assert chunk(1000, gpu, 2, memory=CHUNK_SHARE * 4 * limit) == limit // 2000
    assert chunk(10**9, gpu, 2, memory=10**6) == 1


POSITIONS_PER_CHUNK = module.positions_per_chunk  # before the fixture replaces it


def test_a_gradient_of_a_gradient_is_refused() -> None:
    """Without the error a penalty on the gradient would count as constant."""
    hidden, head, targets = inputs()
    total, _ = supervised_cross_entropy(hidden, head, targets)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(total, hidden, create_graph=True)
