from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules.text.segments import Role
from datamodules.text.tags import Tags
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.net import loss as loss_module
from lightning_modules.net.activation_checkpointing import checkpoint_activations
from lightning_modules.net.lora import LoraSettings
from lightning_modules.net.loss import LossSettings, RoleWeights
from lightning_modules.net.new_token_embeddings import NewTokenInit
from lightning_modules.net.think_net import ThinkNet, load_base
from lightning_modules.update.optim import OptimSettings, build_optimizer
from tests.conftest import KINDS, TINY, random_lm

MakeBatch = Callable[..., Any]
LORA = LoraSettings()


def net_of(kind: str, tokenizer: ThinkTokenizer, lora: LoraSettings | None = LORA, vocabulary: int = 640) -> ThinkNet:
    return ThinkNet(random_lm(kind, vocabulary), tokenizer, lora)


def labelled_rows(batch: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each row with labels as transformers wants them: targets at their own place, -100 elsewhere."""
    labels = torch.full_like(batch.input_ids, -100)
    labels[0, batch.predict_from + 1] = batch.targets
    for start, end in pairwise(batch.starts.tolist()):
        yield batch.input_ids[:, start:end], labels[:, start:end]


def logits_of(lm: Any, batch: Any) -> torch.Tensor:
    """(T, V) transformers' own logits, of each row by itself."""
    rows = [lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0] for ids in batch.token_ids()]
    return torch.cat(rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [LoraSettings(rank=4, target_modules="all-linear"), LoraSettings(), None])
def test_loss_and_gradients_are_transformers_own(
    kind: str, lora: LoraSettings | None, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    net, batch = net_of(kind, tiny_tokenizer, lora), make_batch(0, 3, 9)
    trained = [p for p in net.parameters() if p.requires_grad]
    for p in trained:
        torch.manual_seed(p.numel())
        torch.nn.init.normal_(p, std=0.05)  # LoRA's B starts at zero, which would hide half of the gradients
    mean = net(batch).total / len(batch.targets)
    theirs = sum(
        net.causal_lm(input_ids=ids, labels=labels, use_cache=False).loss * (labels != -100).sum()
        for ids, labels in labelled_rows(batch)
    ) / len(batch.targets)
    torch.testing.assert_close(mean, theirs, rtol=1e-5, atol=1e-5)
    for ours, right in zip(torch.autograd.grad(mean, trained), torch.autograd.grad(theirs, trained), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["qwen2", "qwen2-tied"])
@pytest.mark.parametrize("role", [role for role in Role if role != Role.PROMPT], ids=lambda role: role.name.lower())
def test_each_role_is_weighed_smoothed_and_held_as_full_logits_would_be(
    kind: str, role: Role, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    """Every setting of the loss at once, by transformers' logits and torch's own cross-entropy."""
    weights = RoleWeights(thought=0.5, tag=3.0, answer=2.0, end=0.0)
    settings = LossSettings(weights, label_smoothing=0.1, z_loss=1e-2)
    net = ThinkNet(random_lm(kind), tiny_tokenizer, LORA, loss=settings)
    trained = [p for p in net.parameters() if p.requires_grad]
    for p in trained:
        torch.manual_seed(p.numel())
        torch.nn.init.normal_(p, std=0.05)
    batch = make_batch(0, 3, 9)
    only = (batch.target_roles == role).nonzero()[:, 0]  # a batch in which nothing else is supervised
    kept = replace(
        batch, predict_from=batch.predict_from[only], targets=batch.targets[only], target_roles=batch.target_roles[only]
    )
    mine = net(kept).total / len(kept.targets)
    logits = logits_of(net.causal_lm, batch)[kept.predict_from]
    each = F.cross_entropy(logits, kept.targets, label_smoothing=0.1, reduction="sum")
    theirs = weights.by_role()[role] * (each + 1e-2 * logits.logsumexp(-1).square().sum()) / len(kept.targets)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    for ours, right in zip(torch.autograd.grad(mine, trained), torch.autograd.grad(theirs, trained), strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["qwen2", "qwen2-tied"])
def test_further_tokens_have_rows_of_their_own(kind: str, make_batch: MakeBatch) -> None:
    tokenizer = ThinkTokenizer.load(str(TINY), None, Tags(), ("<step>", "[mol]"))
    net = ThinkNet(random_lm(kind), tokenizer, LORA)
    rows = [p for name, p in net.named_parameters() if name.endswith(".rows")]
    assert [tuple(p.shape) for p in rows] == [(4, 32)] * (1 if kind == "qwen2-tied" else 2)
    batch = make_batch(0)
    batch.input_ids[0, 3] = tokenizer.new_ids[2]
    net(batch).total.backward()
    assert all(p.grad is not None and p.grad[2].any() for p in rows)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the most numbers that an operation makes anew, forward or backward; views of what is there do not count."""

    def __init__(self, there: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.there = {tensor.untyped_storage().data_ptr() for tensor in there}
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.there:
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["qwen2", "qwen2-tied"])
def test_no_step_makes_a_copy_of_a_vocabulary_matrix_or_all_logits(
    kind: str,
    dtype: torch.dtype,
    tiny_tokenizer: ThinkTokenizer,
    make_batch: MakeBatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor a gradient of one, nor moments: the largest tensor that a whole training step makes is smaller."""
    vocabulary, width = 40_000, 32
    monkeypatch.setattr(loss_module, "chunk_rows", lambda *_: 8)  # of the batch's hundreds of positions
    net, batch = ThinkNet(random_lm(kind, vocabulary).to(dtype), tiny_tokenizer, LORA), make_batch(0, 3, 9)
    optimizer = build_optimizer(net.named_parameters(), OptimSettings(weight_decay=0.1))
    with Largest(net.parameters()) as seen:
        net(batch).total.backward()
        optimizer.step()
    assert len(batch.targets) * vocabulary > vocabulary * width > seen.numbers >= vocabulary  # it does see the logits


def test_rows_start_as_is_set(tiny_tokenizer: ThinkTokenizer) -> None:
    starts: dict[NewTokenInit, torch.Tensor] = {}
    for init in get_args(NewTokenInit):
        torch.manual_seed(0)
        net = ThinkNet(random_lm("qwen2"), tiny_tokenizer, LORA, init)
        starts[init] = next(p.detach() for name, p in net.named_parameters() if name.endswith(".rows"))
    matrix = random_lm("qwen2").get_input_embeddings().weight.detach()
    pieces = torch.stack([matrix[list(ids)].mean(0) for ids in tiny_tokenizer.subtoken_ids])
    torch.testing.assert_close(starts["subtokens"], pieces)
    known = matrix[: tiny_tokenizer.base_size]
    assert (starts["mean"] - known.mean(0)).abs().max() < 0.1 * known.std()
    assert (starts["random"] - known.mean(0)).abs().max() > known.std()
    assert all(not torch.equal(*rows) for rows in starts.values())


def test_sums_by_role_add_up(tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch) -> None:
    net, batch = net_of("qwen2", tiny_tokenizer), make_batch(0, 3, 9)
    sums = net(batch)
    torch.testing.assert_close(sums.losses.sum().float(), sums.total.detach())
    assert sums.tokens.tolist() == torch.bincount(batch.target_roles, minlength=6).tolist()
    assert sums.tokens[0] == 0  # nothing of the prompt is learned


def test_rows_of_a_batch_do_not_see_each_other(tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch) -> None:
    net = net_of("qwen2", tiny_tokenizer)
    alone = sum(net(make_batch(i)).total for i in (0, 3, 9))
    torch.testing.assert_close(net(make_batch(0, 3, 9)).total, alone, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_trains_adapters_and_the_two_rows_and_nothing_else(kind: str, tiny_tokenizer: ThinkTokenizer) -> None:
    net = net_of(kind, tiny_tokenizer)
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    rows = {name: p for name, p in trained.items() if name.endswith(".rows")}
    assert [tuple(p.shape) for p in rows.values()] == [(2, 32)] * (1 if kind.endswith("tied") else 2)
    assert all("lora_" in name for name in set(trained) - set(rows))
    assert len(set(trained) - set(rows)) == 2 * 4 * 2  # layers x q, k, v, o x A, B
    assert all(p.dtype == torch.float32 for p in trained.values())


def test_all_linear_adapts_every_linear_layer_but_the_head(tiny_tokenizer: ThinkTokenizer) -> None:
    net = net_of("qwen2", tiny_tokenizer, LoraSettings(target_modules="all-linear"))
    adapted = [name for name, _ in net.named_parameters() if "lora_A" in name]
    assert len(adapted) == 2 * 7
    assert not any("lm_head" in name for name in adapted)


@pytest.mark.parametrize("kind", ["qwen2", "qwen2-tied"])
def test_a_half_precision_base_keeps_what_is_trained_in_float32(
    kind: str, tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    net = ThinkNet(random_lm(kind).to(torch.bfloat16), tiny_tokenizer, LoraSettings())
    assert {p.dtype for p in net.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in net.parameters() if not p.requires_grad} == {torch.bfloat16}
    net(make_batch(0, 3)).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)


def test_the_matrix_is_never_shrunk_and_grows_only_where_it_must(tiny_tokenizer: ThinkTokenizer) -> None:
    assert net_of("qwen2", tiny_tokenizer, vocabulary=640).vocabulary == 640
    assert net_of("qwen2", tiny_tokenizer, vocabulary=len(tiny_tokenizer)).vocabulary == len(tiny_tokenizer)
    grown = net_of("qwen2", tiny_tokenizer, vocabulary=len(tiny_tokenizer) - 2)
    assert grown.vocabulary >= len(tiny_tokenizer)
    assert grown.vocabulary % 64 == 0
    for ends in (grown.causal_lm.get_input_embeddings(), grown.causal_lm.get_output_embeddings()):
        assert not ends.weight[len(tiny_tokenizer) - 2 :].any()  # not random: no checkpoint holds them


def test_the_base_counts_unchanged_before_training(tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch) -> None:
    """Adapters start as nothing; only the columns of the two new ids differ from the base's."""
    base = random_lm("qwen2")
    ids = make_batch(0).input_ids[:, : make_batch(0).prompt_lengths[0]]
    before = base(input_ids=ids).logits
    after = ThinkNet(base, tiny_tokenizer, LoraSettings()).causal_lm(input_ids=ids).logits
    other = [i for i in range(640) if i not in tiny_tokenizer.new_ids]
    torch.testing.assert_close(after[..., other], before[..., other])
    assert not torch.allclose(after[..., tiny_tokenizer.new_ids], before[..., tiny_tokenizer.new_ids])


def test_training_moves_the_rows_and_leaves_the_matrices(tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch) -> None:
    net, batch = net_of("qwen2", tiny_tokenizer), make_batch(0, 3)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    first = net(batch).total.item()
    for _ in range(10):
        optimizer.zero_grad()
        total = net(batch).total
        total.backward()
        optimizer.step()
    assert total.item() < first
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in net.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("peft", [{}, {"use_dora": True}, {"init_lora_weights": "pissa"}], ids=str)
def test_gradient_checkpointing_gives_the_same_gradients(
    peft: dict[str, Any], tiny_tokenizer: ThinkTokenizer, make_batch: MakeBatch
) -> None:
    grads = []
    for checkpointed in (False, True, 1):
        base = random_lm("qwen2")
        checkpoint_activations(base, checkpointed)
        net = ThinkNet(base, tiny_tokenizer, LoraSettings(rank=4, peft=peft))
        torch.manual_seed(0)
        for p in net.parameters():
            if p.requires_grad:
                torch.nn.init.normal_(p, std=0.05)
        net(make_batch(0, 3)).total.backward()
        grads.append([p.grad for p in net.parameters() if p.requires_grad])
    for one, two, three in zip(*grads, strict=True):
        torch.testing.assert_close(one, two)
        torch.testing.assert_close(one, three)


def test_the_embedded_model_loads_and_starts_anew_by_seed() -> None:
    torch.manual_seed(1)
    one = load_base(str(TINY), None, "float32", from_scratch=True).state_dict()
    torch.manual_seed(1)
    two = load_base(str(TINY), None, "float32", from_scratch=True).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert load_base(str(TINY), None, "bfloat16").dtype == torch.bfloat16


def test_a_broken_model_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((TINY / "config.json").read_text())
    with pytest.raises(UserError, match=r"model.name: .* cannot be loaded"):
        load_base(str(tmp_path), None, "float32")
    (tmp_path / "model.safetensors").write_bytes((TINY / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model.name: .* cannot be loaded"):
        load_base(str(tmp_path), None, "float32")


def test_the_real_vocabulary_keeps_its_size(qwen_base: Callable[..., Path]) -> None:
    for tied in (True, False):
        folder = str(qwen_base(tied))
        net = ThinkNet(load_base(folder, None, "float32"), ThinkTokenizer.load(folder), LoraSettings())
        assert net.vocabulary == 151_936
        rows = [p for name, p in net.named_parameters() if name.endswith(".rows")]
        assert len(rows) == (1 if tied else 2)
