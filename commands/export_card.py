"""The facts in the model card of a run: from its settings, its evaluations, and the cards of its base and data."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from commands.load import Loaded
from commands.tasks import HELD_OUT, PUBLIC
from datamodules.rows.folders import format_of
from datamodules.rows.sources import BUILT_IN
from datamodules.text.segments import Template
from disk import digest
from hub import is_hub_id
from lightning_modules.export.card_facts import Asked, Card, Evaluation
from lightning_modules.export.hub_cards import card_metadata, languages_of, license_of
from lightning_modules.servers.one_block import several_blocks

log = logging.getLogger("thinkwright")


def card_of(loaded: Loaded, dtype: str, repository: str | None = None) -> Card:
    """Return the facts. `dtype` is that of the exported weights, `repository` the one of the hub that gets them.

    A local source of rows is not named as a data set of the hub.
    """
    tuner, data = loaded.tuner, loaded.config["data"]
    of_base = card_metadata("model", tuner.name, tuner.revision)
    found = {name: card_metadata("dataset", name, revision) for name, revision in _hub_sources(data)}
    datasets = {name: card for name, card in found.items() if card is not None}
    summary = loaded.run.read_summary()
    return Card(
        tuner.name,
        tuner.revision,
        summary.get("after", {}),
        loaded.checkpoint,
        quantize=loaded.config["model"].get("quantize"),
        step=loaded.step,
        parents=tuner.start.parents,
        name=loaded.run.folder.parent.name,
        license=license_of(of_base),
        datasets=list(datasets),
        languages=languages_of(datasets.values()),
        evaluations=list(evaluations(loaded.run.folder, loaded.checkpoint, list(datasets))),
        system=system_place(loaded.template),
        max_length=loaded.data.max_length,
        tags=loaded.template.tags,
        dtype=dtype,
        one_block=not several_blocks(loaded.data.steps.split, summary.get("after", {}).get("thoughts")),
        new_tokens=bool(tuner.tokenizer.new_ids),
        repository=repository,
    )


def system_place(template: Template) -> str:
    """Return where the exported chat template puts a system message, in a sentence."""
    if template.system is not None:
        given = "the system prompt of the training, which also stands there if a conversation has none"
        return f"A system message takes the place of {given}."
    if template.no_system or (template.chat is None and not template.system_parts):
        return "A system message stands before the first instruction, because the template has no place for one."
    return "A system message takes its own place in the template, as that of a row did in training, if it had one."


def evaluations(folder: Path, checkpoint: Path, datasets: list[str]) -> Iterator[Evaluation]:
    """Yield what `evaluate` found for this checkpoint, in the order of the files' names."""
    files = sorted((folder / "evaluations").glob("*.summary.json"))
    mine = digest(checkpoint) if files else ""
    for path in files:
        try:
            found = json.loads(path.read_bytes())
            if found["checkpoint"] == mine:
                asked = _asked(found["task"], datasets)
                yield Evaluation.of(asked, found["figures"], found["decoding"], found["samples"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            log.warning(f"warning: {path} cannot be read; the model card lacks its figures")


def _asked(task: str, datasets: list[str]) -> Asked:
    if public := PUBLIC.get(task):
        return Asked(public.hub_id, task, public.config, public.split, public.revision)
    if task == HELD_OUT:
        return Asked(
            datasets[0] if len(datasets) == 1 else HELD_OUT, "held-out rows of the training data", None, "test"
        )
    name = Path(task).stem
    return Asked(name, name)


def _hub_sources(data: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield (id, revision) of the sources of rows on the hub."""
    for one in data.get("mix") or [{"name": data.get("source"), "revision": data.get("revision")}]:
        name = str(one["name"])
        if name not in BUILT_IN and is_hub_id(name) and not format_of(Path(name)):
            yield name, one.get("revision")
