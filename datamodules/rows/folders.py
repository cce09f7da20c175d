"""The files that the name of a local source stands for: a file, a glob, a folder, or one split of a folder.

A split of a folder is found as `datasets` finds it: in a data set that it saved, by the list of configs in README.md,
or else by the names of files and folders, such as test.jsonl, dev/a.jsonl and data/train-00000-of-00002.parquet.
"""

import glob
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import hub
from datamodules.rows.text_files import COMPRESSED, SETTING, is_compressed
from disk import is_file_name
from errors import UserError, in_line, suggest

FORMATS = {
    ".parquet": "parquet", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv",
    ".arrow": "arrow",
}  # fmt: skip
FORMATS_IN_WORDS = ".parquet, .jsonl, .json, .csv, .tsv (also .gz or .zst) or .arrow"
SAVE_AGAIN = "save the data set again"
METADATA = {"dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json"}  # JSON files without rows
SPLIT_WORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
SPLIT_WORD = re.compile(rf"(?:^|[-._ \d])({'|'.join(SPLIT_WORDS)})(?=[-._ \d]|$)")
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\..+")
NAMES_SHOWN = 5  # files that one line names


class LocalFiles(NamedTuple):
    """The files of a source in order, none if nothing exists there, and how they were chosen in words."""

    paths: list[Path]
    words: str = ""


def format_of(path: Path) -> str | None:
    """Return `parquet`, `json`, `csv` or `arrow`; None for any other file and for metadata."""
    if path.name in METADATA:
        return None
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    file_format = FORMATS.get(suffix)
    return None if file_format not in ("json", "csv") and is_compressed(path) else file_format


def local_files(name: str, split: str, config: str | None = None) -> LocalFiles:
    """Return the data files at a path, in a folder or of a glob.

    `split` and `config` choose among the files of a folder. Raises UserError for a folder without data, a missing split
    or config, files of more than one format and empty files.
    """
    path = Path(name).expanduser()
    if not path.exists() and (hub.CHECKOUT / name).exists():
        path = hub.CHECKOUT / name
    if path.is_dir():
        found = _in_folder(path, name, split, config)
    elif path.exists():
        found = LocalFiles([path])
    else:
        names = sorted(glob.glob(str(path), recursive=True))
        matches = [Path(match) for match in names if os.path.exists(match)]  # no link to nowhere or to itself
        files = [p for p in matches if p.is_file()] or [f for p in matches for f in _in_folder(p, name, split).paths]
        # "data/**" also matches other files, like a README: they are skipped. "*.xlsx" matches nothing else: an error.
        found = LocalFiles([p for p in files if format_of(p)] or files)
    formats = {format_of(p) for p in found.paths}
    if found.paths and (None in formats or len(formats) > 1):
        raise UserError(SETTING, name, f"does not have one format of {FORMATS_IN_WORDS}", "give files of one format")
    for p in found.paths:
        if p.stat().st_size == 0:
            raise UserError(SETTING, p, "is empty", "give a file with rows in it")
    return found


def _in_folder(folder: Path, name: str, split: str, config: str | None = None) -> LocalFiles:
    """The files of a split of a folder. Hidden files are not its files."""
    if (folder / "dataset_dict.json").is_file():
        splits = _json_file(folder / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not all(is_file_name(one) for one in splits):
            raise UserError(SETTING, folder / "dataset_dict.json", "names no splits", SAVE_AGAIN)
        if split not in splits:
            raise _no_split(split, name, splits)
        folder = folder / split
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        found = LocalFiles(_saved_files(folder))
    else:
        below = (p for p in folder.rglob("*") if not any(part[0] == "." for part in p.relative_to(folder).parts))
        files = sorted(p for p in below if p.is_file() and format_of(p))
        found = _of_config(folder, name, files, split, config) or _of_split(folder, name, files, split)
    if not found.paths:
        raise UserError(SETTING, name, f"contains no {FORMATS_IN_WORDS} file", "give the folder with the data files")
    return found


def _of_config(folder: Path, name: str, files: list[Path], split: str, config: str | None) -> LocalFiles | None:
    """The files of a config in README.md, as the hub shows them; None if it lists none with files, and none is asked
    for. Without such a list, a config is the folder with its name."""
    listed = {str(one.get("config_name", "default")): one for one in _listed_configs(folder / "README.md")}
    if config is None:
        marked = [key for key, one in listed.items() if one.get("default") is True or key == "default"]
        if not marked and len(listed) > 1:
            raise UserError("data.config", None, f"has to choose a part of {name}", f"give one of {', '.join(listed)}")
        if not listed:
            return None
        chosen = (marked or [*listed])[0]
    elif config not in listed and (folder / config).is_dir() and is_file_name(config):
        return _of_split(folder / config, name, [file for file in files if folder / config in file.parents], split)
    elif config not in listed:
        fix = suggest(config, list(listed), f"it has {', '.join(listed)}" if listed else "set data.config null")
        raise UserError("data.config", config, f"is not in {name}", fix)
    else:
        chosen = config
    data_files = listed[chosen].get("data_files")
    if isinstance(data_files, str) or (isinstance(data_files, list) and all(isinstance(x, str) for x in data_files)):
        data_files = [{"split": "train", "path": data_files}]
    if not isinstance(data_files, list) or not data_files:
        return None
    paths = {str(one.get("split")): one.get("path") for one in data_files if isinstance(one, dict)}
    if split not in paths:
        raise _no_split(split, name, list(paths))
    patterns = paths[split] if isinstance(paths[split], list) else [paths[split]]
    named = {match for pattern in patterns or () for match in folder.glob(str(pattern).removeprefix("./"))}
    return LocalFiles([file for file in files if file in named], f"config {chosen}, split {split}, by its README.md")


def _listed_configs(readme: Path) -> list[dict[str, Any]]:
    """The `configs` in the first lines of a README.md of the hub."""
    if not readme.is_file():
        return []
    parts = re.split(r"^---\s*$", readme.read_text("utf-8", "replace"), maxsplit=2, flags=re.MULTILINE)
    try:
        card = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except yaml.YAMLError as error:
        raise unreadable(readme, error) from error
    configs = card.get("configs") if isinstance(card, dict) else None
    return [one for one in configs if isinstance(one, dict)] if isinstance(configs, list) else []


def _of_split(folder: Path, name: str, files: list[Path], split: str) -> LocalFiles:
    """The files whose names belong to a split; all files if no name belongs to one."""
    by_split: dict[str, list[Path]] = {}
    others = []
    for file in files:
        found = _split_of(file.relative_to(folder))
        by_split.setdefault(found, []).append(file) if found else others.append(file)
    wanted = split if split in by_split else SPLIT_WORDS.get(split, split)
    if not by_split or (len(by_split) == 1 and wanted not in by_split and not {*by_split} & {*SPLIT_WORDS.values()}):
        return LocalFiles(files)  # "part-00000-of-00002.parquet" names no split
    if wanted not in by_split:
        raise _no_split(split, name, list(by_split))
    chosen = by_split[wanted]
    left = [file.relative_to(folder).as_posix() for file in files if file not in set(chosen)]
    words = f"split {wanted}: {in_line((f.relative_to(folder).as_posix() for f in chosen), NAMES_SHOWN)}"
    return LocalFiles(chosen, words + (f"; not read: {in_line(left, NAMES_SHOWN)}" if left else ""))


def _split_of(path: Path) -> str | None:
    """The split in the name of a file, else in the names of its folders."""
    if shard := SHARD.fullmatch(path.name):
        return SPLIT_WORDS.get(shard[1], shard[1])
    stem = path.name.removesuffix("".join(path.suffixes[-2:])) if is_compressed(path) else path.stem
    for part in (stem, *reversed(path.parent.parts)):
        if word := SPLIT_WORD.search(part.lower()):
            return SPLIT_WORDS[word[1]]
    return None


def _no_split(split: str, name: str, present: list[str]) -> UserError:
    return UserError("data.split", split, f"is not in {name}", f"it has {', '.join(present)}")


def _saved_files(folder: Path) -> list[Path]:
    """The files that the state.json of `datasets` lists. Raises UserError for a file that is missing or elsewhere."""
    path = folder / "state.json"
    listed = _json_file(path).get("_data_files")
    if not isinstance(listed, list):
        raise UserError(SETTING, path, "lists no files", SAVE_AGAIN)
    names = [file.get("filename") if isinstance(file, dict) else file for file in listed]
    for file in names:
        if not is_file_name(file):
            raise UserError(SETTING, path, f"lists {file!r:.100}, which is no file of this folder", SAVE_AGAIN)
        if not (folder / file).is_file():
            raise UserError(SETTING, folder / file, "is missing in this saved data set", SAVE_AGAIN)
    return [folder / str(file) for file in names]


def _json_file(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from error
    if not isinstance(content, dict):
        raise UserError(SETTING, path, "holds no JSON object", SAVE_AGAIN)
    return content


def unreadable(path: Path, error: Exception) -> UserError:
    """Return the error for a file that its library refuses."""
    problem = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:160]})"
    return UserError(SETTING, path, problem, "it may be cut off: copy or download it again")
