"""What makes a run's rows the rows they are, so that resuming on others is refused with the difference named."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from errors import UserError

if TYPE_CHECKING:
    from datamodules.magpie import MagpieDataModule

ROWS = "rows"  # digests of the rows themselves, by split


def identity(data: "MagpieDataModule") -> dict[str, Any]:
    """Digests of the prepared rows, and the settings that they follow from; all of it plain JSON."""
    settings: dict[str, Any] = {
        "data.source": [one.name for one in data.given],
        "data.mix": [asdict(one) for one in data.given],
        "data.columns": asdict(data.columns),
        "data.where": data.where,
        "data.untidy": asdict(data.untidy),
        "data.template": data.template_setting,
        "data.system": data.system,
        "data.tags": asdict(data.tags),
        "data.source_tags": asdict(data.source_tags) if data.source_tags else None,
        "data.new_tokens": list(data.new_tokens),
        "data.steps": asdict(data.steps),
        "data.max_length": data.max_length,
        "data.overlong": data.overlong,
        "data.near_duplicate_threshold": data.near_duplicate_threshold,
        "data.heldout_ratio": data.heldout_ratio,
        "data.train_rows": data.rows_wanted["train"],
        "data.val_rows": data.rows_wanted["val"],
        "data.seed": data.seed,
        ROWS: {split: data.report.digests[split] for split in ("train", "val")},
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def check_same_rows(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises UserError that names the first difference between the rows of a checkpoint and those of this fit.

    Settings are of no account where the rows are the same all the same (a source that moved), but for the seed of their
    order.
    """
    if saved[ROWS] == now[ROWS] and saved["data.seed"] == now["data.seed"]:
        return
    for key, value in now.items():
        there = saved.get(key)
        if key == ROWS or there == value:
            continue
        if isinstance(value, dict) and isinstance(there, dict):
            inner = next(name for name in {**there, **value} if there.get(name) != value.get(name))
            key, value, there = f"{key}.{inner}", value.get(inner), there.get(inner)
        value, there = (one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in (value, there))
        fix = f"set {key} to {there}, or train anew without --ckpt_path"
        raise UserError(key, value, f"differs from the checkpoint's, {there}", fix)
    names, fix = ", ".join(now["data.source"]), "give the rows as they were, or train anew without --ckpt_path"
    raise UserError("data.source", names, "holds other rows than when the checkpoint was written", fix)
