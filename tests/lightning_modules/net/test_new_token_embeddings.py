import pytest
import torch
from torch import nn

from lightning_modules.net.new_token_embeddings import NewTokenEmbedding, NewTokenHead, initial_embeddings

IDS = [8, 9]


def modules(tied: bool) -> tuple[NewTokenEmbedding, NewTokenHead]:
    torch.manual_seed(0)
    embedding, head = nn.Embedding(12, 4), nn.Linear(4, 12, bias=False)
    if tied:
        head.weight = embedding.weight
    for module in (embedding, head):
        module.requires_grad_(False)
    inputs = NewTokenEmbedding(embedding, IDS, torch.randn(2, 4))
    return inputs, NewTokenHead(head, IDS, inputs.embeddings if tied else nn.Parameter(torch.randn(2, 4)))


def test_only_new_ids_get_new_embeddings() -> None:
    inputs, _ = modules(tied=True)
    ids = torch.tensor([[1, 8, 9], [8, 3, 11]])
    expected = inputs.base.weight.clone()
    expected[IDS] = inputs.embeddings.detach()
    assert torch.equal(inputs(ids), expected[ids])


def test_the_head_is_the_base_with_the_logits_of_new_ids_replaced() -> None:
    for tied in (True, False):
        inputs, head = modules(tied)
        hidden = torch.randn(2, 3, 4)
        matrix = head.base.weight.clone()
        matrix[IDS] = head.embeddings.detach()
        torch.testing.assert_close(head(hidden), hidden @ matrix.T)
        assert (head.embeddings is inputs.embeddings) == tied


def test_gradients_reach_new_embeddings_and_not_the_matrices() -> None:
    for tied in (True, False):
        inputs, head = modules(tied)
        head(inputs(torch.tensor([[1, 8, 9]]))).logsumexp(-1).sum().backward()
        assert inputs.embeddings.grad is not None and inputs.embeddings.grad.abs().min() > 0
        assert head.embeddings.grad is not None
        assert inputs.base.weight.grad is None and head.base.weight.grad is None


def test_new_embeddings_are_in_the_graph_of_a_batch_without_new_ids() -> None:
    """DDP fails on parameters that a step does not use."""
    inputs, _ = modules(tied=False)
    inputs(torch.tensor([[1, 2]])).sum().backward()
    assert inputs.embeddings.grad is not None and not inputs.embeddings.grad.any()


def test_by_subtokens_they_start_at_the_mean_of_their_pieces_and_differ() -> None:
    matrix = torch.randn(12, 4)
    new = initial_embeddings(matrix.half(), [[1, 2, 3], [4, 2, 3]], known=10)
    torch.testing.assert_close(new[0], matrix.half().float()[[1, 2, 3]].mean(0))
    assert new.dtype == torch.float32
    assert not torch.allclose(new[0], new[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_by_mean_or_random_they_start_around_the_mean_of_known_embeddings_and_differ(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    spread = torch.linspace(0.5, 2.0, 64)
    matrix = (torch.randn(20_000, 64) * spread + 3.0).to(dtype)
    matrix[10_000:] = 1000.0  # padding of the vocabulary
    near = initial_embeddings(matrix, [[1]] * 200, known=10_000, init="mean")
    far = initial_embeddings(matrix, [[1]] * 200, known=10_000, init="random")
    for new, scale in ((near, 0.01), (far, 1.0)):
        assert new.dtype == torch.float32
        assert (new.mean(0) - 3.0).abs().max() < 0.1 + 0.5 * scale
        torch.testing.assert_close(new.std(0), spread * scale, rtol=0.25, atol=0.0)
        assert not torch.equal(new[0], new[1])
