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


def test_only_the_new_ids_are_read_from_the_rows() -> None:
    inputs, _ = modules(tied=True)
    ids = torch.tensor([[1, 8, 9], [8, 3, 11]])
    expected = inputs.base.weight.clone()
    expected[IDS] = inputs.embeddings.detach()
    assert torch.equal(inputs(ids), expected[ids])


def test_the_head_is_the_base_with_two_columns_replaced() -> None:
    for tied in (True, False):
        inputs, head = modules(tied)
        hidden = torch.randn(2, 3, 4)
        matrix = head.base.weight.clone()
        matrix[IDS] = head.embeddings.detach()
        torch.testing.assert_close(head(hidden), hidden @ matrix.T)
        assert (head.embeddings is inputs.embeddings) == tied


def test_gradients_reach_the_rows_and_nothing_of_the_matrices() -> None:
    for tied in (True, False):
        inputs, head = modules(tied)
        head(inputs(torch.tensor([[1, 8, 9]]))).logsumexp(-1).sum().backward()
        assert inputs.embeddings.grad is not None and inputs.embeddings.grad.abs().min() > 0
        assert head.embeddings.grad is not None
        assert inputs.base.weight.grad is None and head.base.weight.grad is None


def test_without_new_ids_in_a_batch_the_rows_are_still_in_the_graph() -> None:
    """DDP fails on parameters that a step does not use."""
    inputs, _ = modules(tied=False)
    inputs(torch.tensor([[1, 2]])).sum().backward()
    assert inputs.embeddings.grad is not None and not inputs.embeddings.grad.any()


def test_rows_start_from_the_pieces_of_the_tags_and_apart() -> None:
    matrix = torch.randn(12, 4)
    rows = initial_embeddings(matrix.half(), [[1, 2, 3], [4, 2, 3]], known=10)
    torch.testing.assert_close(rows[0], matrix.half().float()[[1, 2, 3]].mean(0))
    assert rows.dtype == torch.float32
    assert not torch.allclose(rows[0], rows[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_may_start_at_the_mean_or_at_random_of_the_known_rows_and_apart(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    spread = torch.linspace(0.5, 2.0, 64)
    matrix = (torch.randn(20_000, 64) * spread + 3.0).to(dtype)
    matrix[10_000:] = 1000.0  # room in a padded vocabulary, which means nothing
    near = initial_embeddings(matrix, [[1]] * 200, known=10_000, init="mean")
    far = initial_embeddings(matrix, [[1]] * 200, known=10_000, init="random")
    for rows, share in ((near, 0.01), (far, 1.0)):
        assert rows.dtype == torch.float32
        assert (rows.mean(0) - 3.0).abs().max() < 0.1 + 0.5 * share
        torch.testing.assert_close(rows.std(0), spread * share, rtol=0.25, atol=0.0)
        assert not torch.equal(rows[0], rows[1])
