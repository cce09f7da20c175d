"""A fit that begins with the weights of another run: equal to the bit, or refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import UserError
from lightning_modules.checkpoints.checkpoint_file import PARTS, read_checkpoint, write_checkpoint
from lightning_modules.checkpoints.content import CONTENT_KEY, CheckpointContent, Parent
from lightning_modules.checkpoints.start_weights import StartWeights
from lightning_modules.net.lora import LoraSettings
from lightning_modules.think_tuner import ThinkTuner

BASE = "assets/tiny-qwen"
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"lora": LoraSettings(rank=4, target_modules="all-linear")},
    "dora": {"lora": LoraSettings(rank=4, peft={"use_dora": True})},
    "pissa": {"lora": LoraSettings(rank=4, peft={"init_lora_weights": "pissa_niter_2"})},
    "pissa, bfloat16": {
        "lora": LoraSettings(32, 64, target_modules="all-linear", peft={"init_lora_weights": "pissa"}),
        "dtype": "bfloat16",
    },
    "olora": {"lora": LoraSettings(rank=4, peft={"init_lora_weights": "olora"})},
    "all weights": {"lora": None},
}
LORA = KINDS["lora"]


def trained(seed: int, **settings: Any) -> ThinkTuner:
    """A tuner whose trained tensors have moved away from their start."""
    torch.manual_seed(seed)
    tuner = ThinkTuner(BASE, **settings)
    tuner.configure_model()
    with torch.no_grad():
        for parameter in tuner.trained().values():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return tuner


def write(tuner: ThinkTuner, path: Path, step: int = 7) -> Path:
    checkpoint: dict[str, Any] = {name: kind() for name, kind in PARTS.items()}
    checkpoint |= {"state_dict": tuner.state_dict(), "global_step": step}
    checkpoint[CONTENT_KEY] = tuner.checkpoint_content().to_dict()
    write_checkpoint(checkpoint, path)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Return the folder of a run with these checkpoints of a trained LoRA, each from another seed."""

    def make(*names: str) -> Path:
        folder = tmp_path / "runs" / "parent"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").touch()
        for seed, name in enumerate(names):
            write(trained(seed, **LORA), folder / "checkpoints" / name)
        return folder

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_the_net_begins_with_the_weights_and_the_loss_of_its_parent(
    kind: str, tmp_path: Path, make_batch: Callable[..., Any]
) -> None:
    """All tensors are equal to the bit, those of a changed base and the first loss of training too."""
    parent = trained(1, **KINDS[kind])
    path = write(parent, tmp_path / "a.ckpt")
    torch.manual_seed(2)
    child = ThinkTuner(BASE, start=str(path), **KINDS[kind])
    child.configure_model()
    assert parent.net is not None and child.net is not None
    theirs, ours = dict(parent.net.named_parameters()), dict(child.net.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert {name for name, p in ours.items() if p.requires_grad} == {n for n, p in theirs.items() if p.requires_grad}
    batch = make_batch(0, 3, 5)
    for mode in (True, False):
        losses = [one.net.train(mode)(batch).total for one in (parent, child)]  # type: ignore[union-attr]
        assert torch.equal(*losses)


def test_a_second_checkpoint_has_both_parents_and_is_loaded_without_them(tmp_path: Path) -> None:
    first = write(trained(1, **LORA), tmp_path / "first.ckpt", 7)
    second = ThinkTuner(BASE, start=str(first), **LORA)
    second.configure_model()
    middle = write(second, tmp_path / "second.ckpt", 9)
    third = ThinkTuner(BASE, start=str(middle), **LORA)
    third.configure_model()
    last = write(third, tmp_path / "third.ckpt", 11)
    content = CheckpointContent.of(read_checkpoint(last))
    assert [(one.path, one.step) for one in content.parents] == [(str(middle), 9), (str(first), 7)]
    assert len({one.digest for one in content.parents}) == 1  # nothing was trained in between
    first.unlink()
    middle.unlink()
    again = ThinkTuner(BASE, start=str(middle), **LORA)
    again.start.go_on(content.parents)
    again.configure_model()
    checkpoint = read_checkpoint(last)
    again.on_load_checkpoint(checkpoint)
    again.load_state_dict(checkpoint["state_dict"], strict=False)
    assert again.checkpoint_content().parents == content.parents
    assert all(torch.equal(p, third.trained()[name]) for name, p in again.trained().items())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "rank": ({"lora": LoraSettings(8, target_modules="all-linear")}, r"model\.lora\.rank: '8' differs .*, 4\. Set"),
    "alpha": ({"lora": LoraSettings(4, 8.0, target_modules="all-linear")}, r"model\.lora\.alpha: '8.0' differs"),
    "targets": ({"lora": LoraSettings(4)}, r"model\.lora\.target_modules: .* differs"),
    "variant": (
        {"lora": LoraSettings(4, target_modules="all-linear", peft={"use_dora": True})},
        r"model\.lora\.peft\.use_dora: 'True' differs",
    ),
    "all weights": ({"lora": None}, r"model\.lora\.rank: .*differs"),
    "new tokens": (LORA | {"new_tokens": ["<step>"]}, r"model\.name: .* has another tokenizer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_weights_of_another_model_are_refused_before_the_base_is_loaded(
    case: str, run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, words = REFUSED[case]
    folder = run("last.ckpt")
    monkeypatch.setattr("lightning_modules.think_tuner.load_base", lambda *_: pytest.fail("loaded"))
    with pytest.raises(UserError, match=words) as raised:
        ThinkTuner(BASE, start=str(folder), **settings).configure_model()
    assert "--ckpt_path" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_damaged_file_is_refused_and_a_whole_one_beside_it_named(run: Callable[..., Path]) -> None:
    checkpoints = run("best.ckpt", "last.ckpt") / "checkpoints"
    content = bytearray((checkpoints / "best.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoints / "best.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"^model\.start: .*best\.ckpt' is damaged .* --model\.start .*last\.ckpt"):
        ThinkTuner(BASE, start=str(checkpoints.parent), **LORA).configure_model()


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    tuner = trained(1, **LORA)
    next(iter(tuner.trained().values())).data[0, 0] = torch.nan
    path = write(tuner, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"^model\.start: .* holds values that are not finite, in net\."):
        ThinkTuner(BASE, start=str(path), **LORA).configure_model()


def test_ranks_that_read_different_weights_are_refused(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP2 would put the net together from parts of both."""
    monkeypatch.setattr(
        "lightning_modules.checkpoints.start_weights.from_all_ranks", lambda mine: [*mine, "another digest"]
    )
    with pytest.raises(UserError, match=r"^model\.start: .* holds other weights on another rank"):
        ThinkTuner(BASE, start=str(run("last.ckpt")), **LORA).configure_model()


def test_a_checkpoint_that_began_elsewhere_refuses_another_start(in_tmp: Path) -> None:
    parent = Parent(str(in_tmp / "runs/a/checkpoints/best.ckpt"), 7, "0")
    for given in (None, "runs/a", "runs/a/checkpoints/best.ckpt", str(in_tmp / "runs/a")):
        start = StartWeights(given)
        start.go_on([parent])
        assert (start.given, start.parents) == (None, [parent])
    for given, parents in (("runs/b", [parent]), ("runs/a", [])):
        with pytest.raises(UserError, match=r"^model\.start: .* is not what the run of the checkpoint began with"):
            StartWeights(given).go_on(parents)
