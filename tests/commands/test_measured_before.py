"""The measurement before training is remembered, and never used where anything that decides it differs."""

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import commands.measured_before as measured_before
from cli import main
from commands.fit_settings import fit_parser
from commands.measured_before import MODEL_TRAINING_ONLY, PLAIN_LORA_SIZE, TRAINER_TRAINING_ONLY, settings_key
from lightning_modules.checkpoints.checkpoint_file import read_checkpoint
from lightning_modules.evaluation.remembered import Remembered
from lightning_modules.think_tuner import ThinkTuner
from tests.cli.conftest import DEMO, SHORT

PISSA = {"init_lora_weights": "pissa"}


@cache
def config() -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts model and trainer of the demo's config, with all defaults."""
    parser = fit_parser("fit")
    given = parser.read(["--config", DEMO])
    return measured_before._plain(given.model), measured_before._plain(given.trainer)


def leaves(part: dict[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
    for name, value in part.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, *above, name)
        else:
            yield (*above, name)


def with_leaf(part: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """A copy with another value at one place."""
    new = copy.deepcopy(part)
    inner = new
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = "another value"
    return new


def file(model: dict[str, Any], trainer: dict[str, Any], seed: int = 1, parents: tuple[Any, ...] = ()) -> Path:
    return Remembered(Path("x"), settings_key(model, trainer, seed, parents)).path


@settings(deadline=None)  # the first example parses a config
@given(st.data())
def test_every_setting_that_may_decide_the_figures_is_in_the_key_and_no_other(data: st.DataObject) -> None:
    model, trainer = config()
    places = [("model", *one) for one in leaves(model)] + [("trainer", *one) for one in leaves(trainer)]
    path = data.draw(st.sampled_from(places))
    if path[0] == "model":
        other = file(with_leaf(model, path[1:]), trainer)
        harmless = path[1] in MODEL_TRAINING_ONLY or (path[1] == "lora" and path[2] in PLAIN_LORA_SIZE)
    else:
        other = file(model, with_leaf(trainer, path[1:]))
        harmless = path[1] in TRAINER_TRAINING_ONLY
    assert (other == file(model, trainer)) == harmless, path


def test_the_listed_settings_exist() -> None:
    model, trainer = config()
    assert set(model) >= MODEL_TRAINING_ONLY
    assert set(model["lora"]) >= PLAIN_LORA_SIZE
    assert set(trainer) >= TRAINER_TRAINING_ONLY


@pytest.mark.parametrize(
    ("change", "parents"),
    [
        ({"lora": {"rank": 8, "peft": PISSA}}, ()),  # the base loses what the adapters begin with
        ({"new_token_init": "random"}, ()),
        ({"from_scratch": True, "lora": None}, ()),
        ({}, ({"digest": "0"},)),
    ],
)
def test_the_seed_and_the_size_of_adapters_count_where_they_change_the_model(
    change: dict[str, Any], parents: tuple[Any, ...]
) -> None:
    model, trainer = config()
    changed = model | change
    assert file(model, trainer, 1) == file(model, trainer, 2)
    assert file(changed, trainer, 1, parents) != file(changed, trainer, 2, parents)
    if changed["lora"] and (parents or changed["lora"]["peft"]):
        larger = changed | {"lora": changed["lora"] | {"rank": 16}}
        assert file(changed, trainer, 1, parents) != file(larger, trainer, 1, parents)
    assert file(model, trainer, parents=({"digest": "0"},)) != file(model, trainer, parents=({"digest": "1"},))


def test_a_remembered_measurement_leaves_what_a_new_one_leaves(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table, metrics, samples, comparison and the trained weights; adapters of another rank change nothing."""
    rows = in_tmp / "cache"
    validations: list[int] = []
    step: Callable[..., None] = ThinkTuner.validation_step

    def counted(tuner: ThinkTuner, *args: Any) -> None:
        validations.append(tuner.trainer.global_step)
        step(tuner, *args)

    monkeypatch.setattr(ThinkTuner, "validation_step", counted)

    def fit(name: str, *more: str) -> tuple[dict[str, Any], Path, str, int]:
        validations.clear()
        short = (*SHORT, "--trainer.max_epochs", "1", "--data.cache_dir", str(rows), "--run.name", name)
        assert main(["fit", "--config", DEMO, *short, *more]) == 0
        (run,) = (in_tmp / "runs" / name).iterdir()
        summary = json.loads((run / "summary.json").read_text())
        return summary, run, capsys.readouterr().err, validations.count(0)

    first, first_run, said, measured = fit("first", "--model.lora.rank", "4")
    assert measured and "remembered from" not in said
    second, second_run, said, measured = fit("second")
    (kept,) = (rows / measured_before.FOLDER).iterdir()
    assert not measured and f"delete {kept} to measure again" in said and "before: remembered from 20" in said
    kept.unlink()
    third, third_run, said, measured = fit("third")
    assert measured and "remembered from" not in said
    for name in ("before", "right_before"):
        assert first[name] == second[name] == third[name] and second[name]
    zeroth = [(run / "metrics.csv").read_text().splitlines()[:2] for run in (first_run, second_run, third_run)]
    assert zeroth[0] == zeroth[1] == zeroth[2]
    samples = [(run / "samples.md").read_text() for run in (second_run, third_run)]
    assert samples[0] == samples[1] and "## Step 0" in samples[0]
    tensors = [read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (second_run, third_run)]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[1])
    # Where the time went
    parts = [third["time"][f"{name}_seconds"] for name in ("training", "validation", "loading", "saving")]
    assert sum(parts) == pytest.approx(third["time"]["seconds"], abs=0.3) and 0 < third["time"]["not_training"] < 1
    assert "time: " in said
