"""Damage to every file that a command reads: flipped bits, a cut end, zeros, other content, and no file at all.

A command then gives the right result, or it refuses in one line that names the file or its folder. Where the content
is the user's own word (a config, rows, a template, a base in a new fit), other content may give another result, but no
traceback.
"""

import functools
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.torture.forked import Ended, run
from tests.torture.suite import DONE, REFUSED, Case, ends_well, error_line, numbered
from tests.torture.world import COMMANDS, World, arguments, difference

KIND = "damage"
DAMAGES = (
    "flip", "flip", "cut", "zeros", "zeros", "other content", "empty", "folder", "no file",
    "link to nothing",
)  # fmt: skip
MORE_FLIPS = ("flip",) * 3  # for files whose bits are all weights, ids or code
BLOCK = 4_096  # bytes set to zero at most
RIGHT, ANY = "right", "any"  # the right result or a refusal; any result
USERS = "resume", "generate", "validate", "export"  # commands that depend on the base of a run


@dataclass(frozen=True)
class Target:
    """A file in a folder of the world, and what each command that reads it must do when it is damaged."""

    place: str
    start: str
    expected: dict[str, str]
    damages: tuple[str, ...] = DAMAGES
    more: tuple[str, ...] = ()  # arguments that make the commands read it


RUN = "runs/*/*"
OF_BEST = "generate", "evaluate", "validate"  # read the best checkpoint, or the last; an adapter names the one it is of
CONFIGS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
NEW = {"fit": ANY, "preview": ANY, "estimate": ANY}
TARGETS = [
    Target("cache/*/train.arrow", "stopped", {"resume": RIGHT}, DAMAGES + MORE_FLIPS),
    Target("cache/*/val.arrow", "stopped", {"resume": RIGHT}, DAMAGES + MORE_FLIPS),
    *(Target(f"cache/*/{split}.arrow", "trained", {"validate": RIGHT}) for split in ("train", "val")),
    Target("cache/*/stats.json", "trained", {"validate": RIGHT}),
    Target("cache/*/stats.json", "stopped", {"resume": RIGHT}),
    *(Target(f"base/{name}", "trained", dict.fromkeys(USERS[1:], RIGHT)) for name in ("model.safetensors", *CONFIGS)),
    *(Target(f"base/{name}", "stopped", {"resume": RIGHT}) for name in ("model.safetensors", *CONFIGS)),
    *(Target(f"base/{name}", "fresh", NEW) for name in ("model.safetensors", *CONFIGS)),
    Target("template.jinja", "fresh", {"fit": ANY, "preview": ANY}),
    Target("template.jinja", "trained", dict.fromkeys(("generate", "validate", "export"), RIGHT)),
    Target("template.jinja", "stopped", {"resume": RIGHT}),
    Target(f"{RUN}/checkpoints/last.ckpt", "stopped", {"resume": RIGHT}, DAMAGES + MORE_FLIPS),
    Target(f"{RUN}/checkpoints/best.ckpt", "stopped", {"resume": RIGHT}),
    Target(f"{RUN}/checkpoints/step-*.ckpt", "stopped", {"resume": RIGHT}),
    Target(f"{RUN}/checkpoints/best.ckpt", "trained", {**dict.fromkeys(OF_BEST, RIGHT), "adapter": ANY}),
    Target(f"{RUN}/config.yaml", "trained", {"generate": ANY, "validate": ANY, "export": ANY, "replay": ANY}),
    Target(f"{RUN}/config.yaml", "stopped", {"resume": RIGHT}),
    Target(f"{RUN}/summary.json", "trained", {"generate": RIGHT, "export": RIGHT, "validate": RIGHT}),
    Target(f"{RUN}/summary.json", "stopped", {"resume": RIGHT}),
    Target(f"{RUN}/metrics.csv", "stopped", {"resume": RIGHT}),
    Target(f"{RUN}/samples.md", "stopped", {"resume": RIGHT}),
    Target(f"{RUN}/environment.json", "stopped", {"resume": RIGHT}),
    Target(f"{RUN}/nonfinite/*.replay", "trained", {"replay": RIGHT}),
    Target("config.yaml", "fresh", {"fit": ANY, "preview": ANY, "estimate": ANY}),
    Target("prompts.txt", "trained", {"generate": ANY}),
    Target("questions.jsonl", "trained", {"evaluate": ANY}),
    Target("rows.jsonl", "fresh", {"fit": ANY}),
    Target("rows.jsonl", "stopped", {"resume": RIGHT}),
    *(
        Target(f"{folder}{name}", "fresh", {"preview": ANY}, DAMAGES + MORE_FLIPS, ("--data.source", folder or name))
        for folder, name in (
            ("", "rows.jsonl"), ("", "rows.json"), ("", "rows.jsonl.gz"), ("", "rows.parquet"), ("", "rows.arrow"),
            ("saved/", "data-00000-of-00001.arrow"), ("saved/", "state.json"), ("saved/", "dataset_info.json"),
        )
    ),
    *(
        Target(f"given/export/{name}", "trained", {"estimate": ANY, "fit": ANY}, more=("--model.name", "given/export"))
        for name in ("model.safetensors", *CONFIGS)
    ),
    Target("home/.cache/thinkwright/*.json", "trained", {"generate": RIGHT}),
]  # fmt: skip


def cases(world: World) -> list[Case]:
    return numbered(KIND, _checks(world))


def _checks(world: World) -> Iterator[tuple[str, Callable[[], None]]]:
    for target in TARGETS:
        start = getattr(world, target.start)
        for path in sorted(start.glob(target.place))[:1]:
            name = str(path.relative_to(start))
            for seed, damage in enumerate(target.damages):
                words = f"{damage} {seed} of {name}; {', '.join(target.expected)}"
                yield words, functools.partial(_check, world, target, name, damage, seed)
    for seed in range(6):
        yield f"other rows {seed} with prepared rows of the old ones", functools.partial(_not_stale, world, seed)


def _check(world: World, target: Target, name: str, damage: str, seed: int) -> None:
    with world.copy(target.start) as folder:
        words = _damage(folder / name, damage, f"{name} {seed}", folder)
        for command, expected in target.expected.items():
            right = world.right(command, *target.more) if expected == RIGHT else None
            with _copy(folder, folder.with_name(command)) as copied:
                ended = run(arguments(COMMANDS[command], copied, *target.more), copied)
                try:
                    ends_well(ended, DONE, REFUSED)
                    if expected == RIGHT:
                        _right_or_named(copied, COMMANDS[command].result, ended, right, name)
                except AssertionError as error:
                    raise AssertionError(f"{command}, {words}: {error}") from None


def _right_or_named(folder: Path, result: Callable[[Path, Ended], Any], ended: Ended, right: Any, name: str) -> None:
    if ended.code == REFUSED:
        path, line = Path(name), error_line(ended)
        folder_named = re.search(rf"\b{path.parent.name}\b", line) if path.parent.name else None
        assert path.name in line or folder_named, f"neither the file nor its folder is named: {line}"
    else:
        found = result(folder, ended)
        if Path(name).name == "metrics.csv":  # its own lines are lost, not the weights
            found, right = found["weights"], right["weights"]
        differs = difference(found, right)
        assert not differs, f"code 0, another result: {differs}"


def _not_stale(world: World, seed: int) -> None:
    """After a change of the rows, a fit beside the old prepared rows trains what a fit without them trains."""
    results = []
    for start in ("trained", "fresh"):
        with world.copy(start) as folder:
            path = folder / "rows.jsonl"
            data = bytearray(path.read_bytes())
            at = random.Random(seed).choice([k for k, byte in enumerate(data) if 48 <= byte <= 57])  # a digit
            data[at] = 48 + (data[at] - 47) % 10
            stat = path.stat()
            path.write_bytes(data)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # only the content shows the change
            ended = run(COMMANDS["fit"].args, folder)
            ends_well(ended, DONE)
            results.append(COMMANDS["fit"].result(folder, ended))
    assert results[0] == results[1], "prepared rows of the old file were used"


@contextmanager
def _copy(folder: Path, to: Path) -> Iterator[Path]:
    """A copy of a folder, so that each command meets the same damage; links to nothing stay links."""
    try:
        yield Path(shutil.copytree(folder, to, symlinks=True))
    finally:
        shutil.rmtree(to, ignore_errors=True)


def _damage(path: Path, damage: str, seed: str, folder: Path) -> str:
    """Damage a file; return words for what was done."""
    rng, data = random.Random(seed), bytearray(path.read_bytes())
    words = damage
    if damage == "flip":
        at = rng.randrange(8 * len(data))
        data[at // 8] ^= 1 << at % 8
        words = f"bit {at % 8} of byte {at // 8} flipped"
    elif damage == "cut":
        length = rng.randrange(len(data))
        words, data = f"cut to {length} of {len(data)} bytes", data[:length]
    elif damage == "zeros":
        length = rng.randrange(1, min(BLOCK, len(data)) + 1)
        at = rng.randrange(len(data) - length + 1)
        words, data[at : at + length] = f"bytes {at} to {at + length} zero", bytes(length)
    elif damage == "other content":
        others = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != path.suffix and p.stat().st_size]
        other = rng.choice([p for p in others if "tfevents" not in p.name])
        words, data = f"the content of {other.relative_to(folder)}", bytearray(other.read_bytes())
    elif damage == "empty":
        data = bytearray()
    if damage in ("folder", "no file", "link to nothing"):
        path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage == "link to nothing":
            path.symlink_to("nowhere")
    else:
        path.write_bytes(data)  # in place, as a bad disk does
    return words
