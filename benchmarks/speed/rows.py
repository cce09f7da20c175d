"""The rows that every side trains on: token ids and roles in one small file, with their tokenizer.

    python -m benchmarks.speed.rows OUT.npz [--rows FILE.jsonl …] [--tokenizer FOLDER] [--max-length 4096]

The rows go through the project's own preparation, with a think block for each sentence. One file serves every length:
the benchmark takes the rows that are short enough. A machine without network needs only this file.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_inputs import MISSING, row_files, tokenizer_folder

ROOT = Path(__file__).resolve().parents[2]
PROMPT = 0  # Role.PROMPT of datamodules.text.segments, which the peers' interpreter may not be able to import
IGNORED = -100  # transformers computes no loss for this label


@dataclass
class Rows:
    """All rows one after another: `ids` int32, `roles` int8; row k is from offsets[k] to offsets[k + 1]."""

    ids: np.ndarray
    roles: np.ndarray
    offsets: np.ndarray
    tag_ids: list[int]
    tag_subtokens: list[list[int]]  # the tokens of each tag's text in the base tokenizer
    tokenizer: dict[str, bytes]  # name -> content of its files

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def row(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (ids, roles) of row k."""
        part = slice(int(self.offsets[k]), int(self.offsets[k + 1]))
        return self.ids[part], self.roles[part]

    def labels(self, k: int) -> np.ndarray:
        """Return transformers' labels: the ids, with IGNORED in the prompt and for the first token."""
        ids, roles = self.row(k)
        labels = np.where(roles == PROMPT, IGNORED, ids).astype(np.int64)
        labels[0] = IGNORED
        return labels

    def supervised(self, k: int) -> int:
        return int((self.row(k)[1][1:] != PROMPT).sum())

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = {"ids": self.ids, "roles": self.roles, "offsets": self.offsets}
        arrays |= {"tag_ids": np.array(self.tag_ids)}
        arrays |= {f"tokenizer/{name}": np.frombuffer(content, np.uint8) for name, content in self.tokenizer.items()}
        arrays |= {f"subtokens/{k}": np.array(ids) for k, ids in enumerate(self.tag_subtokens)}
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path | str) -> "Rows":
        with np.load(path) as file:
            tags = file["tag_ids"].tolist()
            tokenizer = {n.split("/")[1]: file[n].tobytes() for n in file.files if n.startswith("tokenizer/")}
            subtokens = [file[f"subtokens/{k}"].tolist() for k in range(len(tags))]
            return cls(file["ids"], file["roles"], file["offsets"], tags, subtokens, tokenizer)

    def of_length(self, length: int, rows: int) -> "Rows":
        """Return rows of exactly `length` tokens, made from parts of these rows; only for scaling.py and --largest."""
        supervised = np.flatnonzero(self.roles != PROMPT)
        prompt = self.ids[self.roles == PROMPT][: max(1, length // 8)]
        body = length - len(prompt)
        starts = [(k * body) % max(1, len(supervised) - body) for k in range(rows)]
        parts = [np.resize(supervised[start : start + body], body) for start in starts]
        ids = np.concatenate([np.concatenate([prompt, self.ids[part]]) for part in parts])
        roles = np.concatenate([np.concatenate([np.zeros(len(prompt), np.int8), self.roles[part]]) for part in parts])
        offsets = np.arange(rows + 1, dtype=np.int64) * length
        return Rows(ids, roles, offsets, self.tag_ids, self.tag_subtokens, self.tokenizer)


def make(files: list[Path], tokenizer: Path, max_length: int) -> Rows:
    """Prepare rows as MagpieDataModule does, but keep near duplicates."""
    from datamodules.magpie import MagpieDataModule
    from datamodules.prepare.pass_over_sources import PassOverSources
    from datamodules.text.steps import StepSettings
    from datamodules.text.tags import Tags
    from datamodules.tokens.tokenizer import ThinkTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        names = ("tokenizer.json", "tokenizer_config.json")
        contents = {name: (tokenizer / name).read_bytes() for name in names if (tokenizer / name).exists()}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        (folder / "config.json").write_text('{"model_type": "qwen2"}')
        (folder / "all.jsonl").write_bytes(b"".join(file.read_bytes().rstrip(b"\n") + b"\n" for file in files))
        think = ThinkTokenizer.load(scratch, None, Tags(), ())
        module = MagpieDataModule(
            str(folder / "all.jsonl"), steps=StepSettings("sentence"), max_length=max_length, train_rows=None,
            val_rows=1, heldout_ratio=0.01, near_duplicate_threshold=None, num_proc=1, cache_dir=scratch,
            tokenizer=scratch,
        )  # fmt: skip
        kept = list(PassOverSources(module.parts(), think.encoder, module.rows_wanted, None))
    rows = [(example.ids, example.roles) for example, _, split in kept if split == "train"]
    order = np.random.default_rng(0).permutation(len(rows))
    ids, roles = (np.concatenate([rows[k][part] for k in order]) for part in (0, 1))
    offsets = np.concatenate([[0], np.cumsum([len(rows[k][0]) for k in order])])
    return Rows(ids, roles, offsets, think.new_ids, think.subtoken_ids, contents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=Path, nargs="+", default=row_files())
    parser.add_argument("--tokenizer", type=Path, default=tokenizer_folder())
    parser.add_argument("--max-length", type=int, default=4096)
    args = parser.parse_args()
    if not args.rows or not args.tokenizer:
        parser.error(MISSING)
    rows = make(args.rows, args.tokenizer, args.max_length)
    rows.save(args.out)
    lengths = rows.lengths
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, {len(lengths)} rows, {lengths.sum()} tokens")
    for limit in (512, 1024, 2048, 4096):
        print(f"  at most {limit} tokens: {(lengths <= limit).sum()} rows")


if __name__ == "__main__":
    main()
