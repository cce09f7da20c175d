"""The files of a base model: which weights transformers loads, and what its config means for the computation."""

import json
from pathlib import Path
from typing import Any

from disk import digests, disk_error, is_file_name
from errors import UserError

# In the order in which transformers looks for them; an index names the files of a model in several parts
WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
# Keys of config.json that change nothing here: the versions and names of what wrote it; the dtype, which is that of
# model.dtype; the class, since a causal LM of `model_type` is loaded; the names of weight files and of code that is not
# run; the cache, which training never uses
WITHOUT_MEANING = {
    "_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures", "transformers_weights",
    "auto_map", "use_cache",
}  # fmt: skip


def weight_digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file, by name, that transformers loads as the weights of the model in a folder.

    Raises UserError for a folder without weights, with a missing file, or with an adapter beside the model.
    """
    if (folder / "adapter_config.json").is_file():
        problem = "holds an adapter, which would be loaded beside the model"
        raise UserError("model.name", folder, problem, "give a folder of merged weights, or remove adapter_config.json")
    names = _weight_files(folder)
    try:
        return dict(zip(names, digests([folder / name for name in names]), strict=True))
    except FileNotFoundError as error:
        raise UserError("model.name", error.filename, "is missing", "download the model again") from error
    except OSError as error:
        raise disk_error("model.name", error.filename or folder, error) from error


def _weight_files(folder: Path) -> list[str]:
    """The names of the weight files. Raises UserError if there are none, or if one is outside the folder."""
    found = _json(folder / "config.json").get("transformers_weights")
    found = found or next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        fix = f"give a folder with {WEIGHTS[0]} or {WEIGHTS[1]}"
        raise UserError("model.name", folder, "has no weights that transformers loads", fix)
    names = [found]
    if str(found).endswith(".index.json"):
        parts = _json(folder / found).get("weight_map")
        names = sorted({*parts.values()}, key=str) if isinstance(parts, dict) else [None]
    for name in names:
        if not is_file_name(name):
            raise UserError("model.name", folder / str(found), f"names {name!r} as a file", "download the model again")
    return names


def config_values(folder: Path) -> dict[str, Any]:
    """Return config.json without the keys that have no meaning here, and the end tokens of generation."""
    config = {key: value for key, value in _json(folder / "config.json").items() if key not in WITHOUT_MEANING}
    generation = folder / "generation_config.json"
    if generation.is_file() and (ends := _json(generation).get("eos_token_id")) is not None:
        config["generation_config.eos_token_id"] = ends if isinstance(ends, list) else [ends]
    return config


def first_difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first key with different values in two results of `config_values`, and both values; None if equal.

    A key may be missing on one side, or have the form of another release, if both mean the same to transformers.
    """
    if one == other:
        return None
    return _first_difference("", _meaning(one), _meaning(other))


def _first_difference(start: str, one: Any, other: Any) -> tuple[str, Any, Any] | None:
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = ((key, one.get(key), other.get(key)) for key in sorted({*one, *other}))
        inner = (_first_difference(f"{start}.{key}" if start else key, *pair) for key, *pair in pairs)
        return next(filter(None, inner), None)
    return None if one == other else (start, one, other)


def _meaning(values: dict[str, Any]) -> dict[str, Any]:
    """All values of a config with the defaults of its architecture; as it is if transformers does not know it."""
    from transformers import AutoConfig

    try:
        copy = json.loads(json.dumps(values))  # transformers changes what it is given
        known: dict[str, Any] = json.loads(AutoConfig.for_model(**copy).to_json_string(use_diff=False))
    except Exception:  # any, depending on what is wrong; loading the model says it
        return values
    return {key: value for key, value in known.items() if key not in WITHOUT_MEANING}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError("model.name", path, "is missing", "download the model again") from error
    except OSError as error:
        raise disk_error("model.name", path, error) from error
    except (ValueError, RecursionError) as error:
        raise UserError("model.name", path, f"is damaged ({error})", "download the model again") from error
    if not isinstance(content, dict):
        raise UserError("model.name", path, "is damaged (it holds no object)", "download the model again")
    return content
