"""One short run, trained once for all tests that look at a run."""

import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest

from cli import main
from tests.conftest import ROOT, MakeOnce

DEMO = str(ROOT / "configs" / "demo.yaml")
# A run of seconds: 4 optimizer steps of 32 rows in two epochs, 8 rows answered in at most 24 tokens
SHORT = (
    "--data.train_rows", "64", "--data.val_rows", "16", "--data.test_rows", "8", "--model.evaluation.rows", "8",
    "--model.evaluation.decoding.max_new_tokens", "24", "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1",
)  # fmt: skip


@pytest.fixture(scope="session")
def cache(make_once: MakeOnce) -> Path:
    """Prepared rows, shared by the runs of all test processes."""
    return make_once("prepared", lambda folder: None)


@pytest.fixture(scope="session")
def fit(cache: Path) -> Callable[..., int]:
    """Run `fit` with the demo's config cut short, in the current folder; later arguments win."""

    def run(*more: str) -> int:
        return main(["fit", "--config", DEMO, *SHORT, "--data.cache_dir", str(cache), *more])

    return run


@pytest.fixture(scope="session")
def trained(make_once: MakeOnce, fit: Callable[..., int]) -> Path:
    """A folder in which one run was trained. Not to be written to."""

    def train(folder: Path) -> None:
        with chdir(folder):
            assert fit() == 0

    return make_once("trained", train)


@pytest.fixture
def in_trained(trained: Path, in_tmp: Path) -> Path:
    """Run the test in a copy of that folder; return the folder of the run."""
    shutil.copytree(trained, in_tmp, dirs_exist_ok=True)
    (run,) = (in_tmp / "runs" / "demo").iterdir()
    return run
