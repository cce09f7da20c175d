"""Paths of a config where nothing is. No heavy imports: they are refused before torch is loaded."""

from pathlib import Path
from typing import Any

import hub
from datamodules.rows import folders
from datamodules.rows.sources import BUILT_IN, open_source
from lightning_modules.checkpoints.start_path import find_start


def check_fit_paths(given: Any, checkpoint: Path | None) -> None:
    """Raises UserError for a model, a source of rows or a start that is not there. A `checkpoint` needs no start."""
    check_model(given)
    check_data(given)
    if checkpoint is None and given.model.start is not None:
        find_start(given.model.start)


def check_model(given: Any) -> None:
    """Raises UserError for a model that is not on this machine and cannot be on the hub, or that is damaged."""
    name, revision = given.model.name, given.model.revision
    if hub.local_folder(name) or not hub.is_hub_id(name):
        hub.model_folder(name, revision)


def check_data(given: Any) -> None:
    """Raises UserError for a source of rows that is not on this machine and cannot be on the hub."""
    data = given.data
    local = not hub.is_hub_id(data.source) or folders.format_of(Path(data.source))
    if data.mix is None and data.source not in BUILT_IN and local:
        open_source(data.source, data.revision, data.split, data.heldout_ratio, data.seed, data.config, data.order)
