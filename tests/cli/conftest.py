"""One short run, trained once for all tests that look at a run."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import main
from tests.conftest import ROOT

DEMO = str(ROOT / "configs" / "demo.yaml")
# A run of seconds: 4 optimizer steps of 32 rows in two epochs, 8 rows answered in at most 24 tokens
SHORT = (
    "--data.train_rows", "64", "--data.val_rows", "16", "--data.test_rows", "8", "--model.evaluation.rows", "8",
    "--model.evaluation.decoding.max_new_tokens", "24", "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1",
)  # fmt: skip


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared rows, shared by the runs of the session."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="session")
def fit(cache: Path) -> Callable[..., int]:
    """Runs `fit` with the demo's config cut short, in the current folder; arguments come after and win."""

    def run(*more: str) -> int:
        return main(["fit", "--config", DEMO, *SHORT, "--data.cache_dir", str(cache), *more])

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, fit: Callable[..., int]) -> Path:
    """A folder in which one run was trained. Not to be written to."""
    folder, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    os.chdir(folder)
    try:
        assert fit() == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def in_trained(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test in that folder; gives the run's own folder."""
    monkeypatch.chdir(trained)
    (run,) = (trained / "runs" / "demo").iterdir()
    return run
