"""The interface of a fit's data module is what MagpieDataModule offers."""

import inspect
from pathlib import Path

from datamodules.magpie import MagpieDataModule
from lightning_modules.run.fit_data import EpochFigures, FitData, StepSizes


def members(protocol: type) -> set[str]:
    """The names that a protocol asks for."""
    return {name for name in [*vars(protocol), *inspect.get_annotations(protocol)] if not name.startswith("_")}


def test_magpie_offers_all_that_a_fit_needs(tmp_path: Path) -> None:
    data = MagpieDataModule(cache_dir=str(tmp_path))
    seen: FitData = data  # mypy compares the types
    assert seen.epochs is None
    assert not [name for name in members(FitData) if not hasattr(MagpieDataModule, name) and name not in vars(data)]


def test_its_step_sizes_and_epochs_do_too() -> None:
    from datamodules.batches.plan import StepSize
    from datamodules.batches.step_size import EpochLayout

    sizes: StepSizes = StepSize(4)
    assert not [name for name in members(StepSizes) if not hasattr(sizes, name)]
    assert not [name for name in members(EpochFigures) if not hasattr(EpochLayout, name)]
