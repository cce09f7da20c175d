"""docs/lightning.md: each line of its table is true."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cli import main
from tests.cli.conftest import DEMO
from tests.conftest import ROOT

# 8 batches and 4 optimizer steps in an epoch; 3 steps are trained
TINY = (
    "--data.train_rows", "64", "--data.val_rows", "4", "--data.test_rows", "4", "--data.batch_size", "8",
    "--data.num_proc", "1", "--model.evaluation.rows", "0", "--trainer.log_every_n_steps", "1", "--trainer.max_epochs",
    "2", "--trainer.max_steps", "3", "--trainer.enable_progress_bar", "false",
)  # fmt: skip
TABLE = re.findall(r"^\| `(--.*?)` \| (works|refused) \|(.*?)\|$", (ROOT / "docs" / "lightning.md").read_text(), re.M)


@pytest.fixture
def fit(in_tmp: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a fit of seconds in an empty folder; return its exit code and what it wrote to stderr."""

    def run(*more: str) -> tuple[int, str]:
        code = main(["fit", "--config", DEMO, *TINY, "--data.cache_dir", str(cache), *more])
        return code, capfd.readouterr().err

    return run


def words(options: str) -> list[str]:
    """The options of a line as a shell would split them, if each value with a space stood in quotes."""
    return [part for pair in re.split(r" (?=--)", options) for part in re.split(r"(?<!:) ", pair, maxsplit=1)]


@pytest.mark.parametrize(("options", "result", "why"), TABLE, ids=[row[0] for row in TABLE])
def test_what_the_table_says_of_a_setting(
    options: str, result: str, why: str, fit: Callable[..., tuple[int, str]], in_tmp: Path
) -> None:
    code, err = fit(*words(options))
    runs = list(in_tmp.glob("runs/demo/*"))
    if result == "refused":
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert code == 2 and "Traceback" not in err and not runs
        named = re.match(r" `([^`]+)`", why)
        assert named is not None and line.startswith(f"error: {named[1]}:"), line
    else:
        assert code == 0, err
        dry = "fast_dev_run" in options
        assert len(runs) == (not dry) and [run for run in runs if (run / "checkpoints" / "last.ckpt").is_file()] == runs
        assert ("has no effect" in err) == ("has no effect" in why)


def test_the_table_names_every_callback_of_lightning() -> None:
    """A new one in a new release of Lightning fails here until it was tried. Those without a line have no use alone."""
    from lightning.pytorch import callbacks

    bases = {"Callback", "Checkpoint", "ProgressBar", "BaseFinetuning", "BackboneFinetuning", "BasePredictionWriter",
             "LambdaCallback", "ThroughputMonitor", "ModelSummary"}  # fmt: skip
    named = {match for options, _, _ in TABLE for match in re.findall(r"callbacks\+=(\w+)", options)}
    assert set(callbacks.__all__) - bases <= named


def test_overfit_batches_trains_the_same_rows_in_each_epoch(fit: Callable[..., tuple[int, str]], in_tmp: Path) -> None:
    constant = ("--model.optim.lr_scheduler_type", "constant", "--model.optim.warmup_ratio", "0")
    code, _ = fit("--trainer.overfit_batches", "2", "--trainer.max_epochs", "8", "--trainer.max_steps", "8", *constant,
                  "--model.optim.lr", "1e-12")  # fmt: skip
    assert code == 0
    lines = next(in_tmp.glob("runs/demo/*/metrics.csv")).read_text().splitlines()
    column = lines[0].split(",").index("train/loss")
    losses = {round(float(value), 5) for line in lines[1:] if (value := line.split(",")[column])}
    assert len(losses) == 1  # the model does not change, so other rows would give another loss


def test_the_check_before_training_is_no_figure(fit: Callable[..., tuple[int, str]], in_tmp: Path) -> None:
    assert (
        fit("--trainer.num_sanity_val_steps", "1", "--model.evaluation.rows", "2", "--trainer.max_steps", "1")[0] == 0
    )
    (run,) = in_tmp.glob("runs/demo/*")
    lines = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    step, loss = lines[0].index("step"), lines[0].index("val/loss")
    assert [line[step] for line in lines[1:] if line[loss]].count("0") == 1  # of the base, before training
    assert (run / "samples.md").read_text().count("## Step 0") == 1


def test_variables_of_lightning_are_named(fit: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "7")
    code, err = fit("--trainer.fast_dev_run", "true")
    assert code == 0
    assert "PL_TRAINER_MAX_EPOCHS has no effect: set trainer.max_epochs" in err


def test_yaml_anchors_work(fit: Callable[..., tuple[int, str]], in_tmp: Path) -> None:
    text = "model: {optim: &rates {lr: 0.5}}\ndata: {new_tokens: &empty []}\ntrainer: {callbacks: *empty}\n"
    assert yaml.safe_load(text)["trainer"]["callbacks"] == []
    (in_tmp / "anchors.yaml").write_text(text)
    assert fit("--config", "anchors.yaml", "--trainer.fast_dev_run", "true")[0] == 0
