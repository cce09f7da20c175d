"""The table of a measurement, beside the one from before training: what was gained, what was lost, and how surely."""

from collections.abc import Mapping

from datamodules.magpie import MagpieDataModule
from lightning_modules.evaluation.comparison import compare
from lightning_modules.evaluation.summary import print_table
from lightning_modules.evaluation.think_scores import rights
from lightning_modules.run.folder import Run
from lightning_modules.think_tuner import ThinkTuner


def print_beside_before(
    run: Run, data: MagpieDataModule, model: ThinkTuner, figures: Mapping[str, Mapping[str, float]]
) -> None:
    """Print the figures of one stage, {"val" or "test": figures}, that `model` was just measured with.

    Those of "val" get a column with the figures from before training and a comparison of the right answers, if the
    validation rows are still the same.
    """
    saved = run.read_summary()
    known = saved.get("data", {}).get("identity", {}).get("rows", {})
    if "val" not in figures or "before" not in saved or known.get("val") != data.stats.digests.get("val"):
        print_table(figures)
        return
    first = "start" if saved.get("parents") else "before"  # a run that began with the weights of another one
    print_table({first: saved["before"], "after": figures["val"]})
    before, after = saved.get("right_before", {}), rights(model.answered)
    found = compare(*({key: [bool(right)] for key, right in one.items()} for one in (before, after)))
    if found is not None:
        print(*found.lines(), sep="\n")
