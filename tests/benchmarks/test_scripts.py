"""The other benchmarks: their modules import, and each prints its help."""

import importlib

import pytest

from tests.datamodules.text.test_steps import labelled_steps

SCRIPTS = [
    "base_check",
    "budget",
    "generate",
    "gpu.__main__",
    "hostile_text",
    "judge",
    "loading",
    "memory",
    "plan",
    "prepare",
    "self_training",
    "speed.__main__",
    "speed.rows",
    "speed.scaling",
    "startup",
    "traffic",
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_imports_and_prints_its_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr("sys.argv", ["benchmark", "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert module.__doc__ is not None
    assert module.__doc__.splitlines()[0] in " ".join(capsys.readouterr().out.split("\n"))


def test_the_step_benchmark_scores_a_perfect_splitter_with_one() -> None:
    steps = importlib.import_module("benchmarks.steps")
    everything = steps.excerpts(steps.LABELLED, "all")
    texts = {excerpt["text"]: labelled_steps(excerpt, "sentence") for excerpt in everything}
    precision, recall, labelled = steps.precision_and_recall(texts.__getitem__, everything, "sentence")
    assert (precision, recall) == (1, 1)
    assert labelled > 500


def test_the_memory_benchmark_estimates_its_smallest_setting() -> None:
    memory = importlib.import_module("benchmarks.memory")
    estimate = memory.estimate(memory.Setting("body", 1, 16), "cpu")
    weights = 512 * (32_000 + 8 * (4 * 512 + 3 * 1408)) * 4
    assert estimate.held.frozen == pytest.approx(weights, rel=0.01)
