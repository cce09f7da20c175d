"""The identity of a run's rows. A checkpoint stores it, and a resume with other rows is refused."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from errors import UserError

ROWS = "rows"  # digests of the prepared rows, by split
TEMPLATE_SETTING = "template_setting"  # data.template as it was given; beside it stands the text that the run keeps
# The settings that decide which rows are held out, and where the test rows begin
BORDER = (
    "data.source", "data.order", "data.turns", "data.seed", "data.heldout_ratio", "data.near_duplicate_threshold",
    "data.val_rows",
)  # fmt: skip


def identity(data: Any) -> dict[str, Any]:  # a MagpieDataModule, which imports this file
    """Return the digests of the prepared rows and the settings that decide them, as plain JSON."""
    return settings_of(data) | {ROWS: {split: data.stats.digests[split] for split in ("train", "val")}}


def settings_of(data: Any) -> dict[str, Any]:
    """Return the settings that decide the rows, as plain JSON."""
    settings: dict[str, Any] = {
        "data.source": [one.name for one in data.mix],
        "data.order": data.order,
        "data.mix": [asdict(one) for one in data.mix],
        "data.columns": asdict(data.columns),
        "data.candidates": asdict(data.candidates),
        "data.filters": data.filters,
        "data.malformed": data.malformed,
        "data.malformed_overrides": data.malformed_overrides,
        "data.template": data.run_template.to_keep(data.think_tokenizer),
        TEMPLATE_SETTING: data.run_template.setting,
        "data.system": data.run_template.system,
        "data.turns": data.run_template.turns,
        "data.history_reasoning": data.run_template.history_reasoning,
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
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def go_on_with_template(data: Any, saved: Mapping[str, Any] | None) -> None:
    """Make a MagpieDataModule use the template that a run has kept; `saved` is the identity in its checkpoint."""
    if saved is not None:
        data.run_template.go_on(saved[TEMPLATE_SETTING], saved["data.template"])


def check_same_rows(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UserError with the first difference between the rows of a checkpoint and the rows of this run.

    Other settings are accepted if they give equal rows, for example after a source was moved. The seed must be equal,
    because it also decides the order of the rows.
    """
    if saved[ROWS] == now[ROWS] and saved["data.seed"] == now["data.seed"]:
        return
    for key, value in now.items():
        before = saved.get(key, value)  # an older checkpoint lacks newer settings
        if key in (ROWS, TEMPLATE_SETTING) or before == value:
            continue
        if key == "data.template":
            before, value = saved.get(TEMPLATE_SETTING), now[TEMPLATE_SETTING]
        if isinstance(value, dict) and isinstance(before, dict):
            inner = next(name for name in {**before, **value} if before.get(name) != value.get(name))
            key, value, before = f"{key}.{inner}", value.get(inner), before.get(inner)
        value, before = (
            one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in (value, before)
        )
        fix = f"set {key} to {before}, or train anew without --ckpt_path"
        raise UserError(key, value, f"differs from the checkpoint's, {before}", fix)
    names, fix = ", ".join(now["data.source"]), "give the rows as they were, or train anew without --ckpt_path"
    raise UserError("data.source", names, "holds other rows than when the checkpoint was written", fix)


def seen_by_parent_warning(saved: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str | None:
    """Return a line if held-out rows may have been trained on in the run whose weights a fit begins with.

    saved: the identity in its checkpoint. Rows of other sources are other rows, so None is returned for them.
    """
    if saved is None or not {*saved["data.source"]} & {*now["data.source"]}:
        return None
    return seen_warning(saved, now, "the run of model.start", "the held-out rows")


def seen_warning(
    saved: Mapping[str, Any], now: Mapping[str, Any], run: str = "the run", rows: str = "these rows"
) -> str | None:
    """Return a line if test rows may have been trained or validated on in the run of `saved`; None if they were not.

    `now` has the settings of the test. More validation rows than in the run only move the first test row. `run` and
    `rows` are the words of the line.
    """
    for key in BORDER:
        before, value = saved.get(key, now[key]), now[key]
        more = key == "data.val_rows" and (value is None or (before is not None and value >= before))
        if value != before and not more:
            told = f"{key} is {json.dumps(value)}, and was {json.dumps(before)} in {run}"
            return f"warning: {told}: some of {rows} may have been trained or validated on"
    return None
