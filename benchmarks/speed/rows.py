"""The rows that every side is fed: token ids and roles in one small file, with the tokenizer they were made by.

    python -m benchmarks.speed.rows OUT.npz [--rows FILE.jsonl …] [--tokenizer FOLDER] [--max-length 4096]

The rows go through the project's own preparation, one think block a sentence. Rows up to 512 tokens are then those of
the file that are no longer, so one file serves every length. A machine without network needs nothing but this file.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared"  # real rows and a real tokenizer where this is developed; not a part of the project
PROMPT = 0  # datamodules.text.segments.Role, which the peers' interpreter need not be able to import
IGNORED = -100  # a label without a loss, for transformers


@dataclass
class Rows:
    """`ids` int32 and `roles` int8 of all rows, one after another; row k is from offsets[k] to offsets[k + 1]."""

    ids: np.ndarray
    roles: np.ndarray
    offsets: np.ndarray
    tag_ids: list[int]
    tag_pieces: list[list[int]]  # what each tag's text was before it became a token
    tokenizer: dict[str, bytes]  # files

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def row(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids, roles)"""
        part = slice(int(self.offsets[k]), int(self.offsets[k + 1]))
        return self.ids[part], self.roles[part]

    def labels(self, k: int) -> np.ndarray:
        """As transformers wants them: the ids, but IGNORED in the prompt. Nothing predicts the first."""
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
        arrays |= {f"pieces/{k}": np.array(ids) for k, ids in enumerate(self.tag_pieces)}
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path | str) -> "Rows":
        with np.load(path) as file:
            tags = file["tag_ids"].tolist()
            tokenizer = {n.split("/")[1]: file[n].tobytes() for n in file.files if n.startswith("tokenizer/")}
            pieces = [file[f"pieces/{k}"].tolist() for k in range(len(tags))]
            return cls(file["ids"], file["roles"], file["offsets"], tags, pieces, tokenizer)

    def of_length(self, length: int, rows: int) -> "Rows":
        """So many rows of exactly `length` tokens, cut out of these ones: for scaling, not for comparing."""
        supervised = np.flatnonzero(self.roles != PROMPT)
        prompt = self.ids[self.roles == PROMPT][: max(1, length // 8)]
        body = length - len(prompt)
        starts = [(k * body) % max(1, len(supervised) - body) for k in range(rows)]
        parts = [np.resize(supervised[start : start + body], body) for start in starts]
        ids = np.concatenate([np.concatenate([prompt, self.ids[part]]) for part in parts])
        roles = np.concatenate([np.concatenate([np.zeros(len(prompt), np.int8), self.roles[part]]) for part in parts])
        offsets = np.arange(rows + 1, dtype=np.int64) * length
        return Rows(ids, roles, offsets, self.tag_ids, self.tag_pieces, self.tokenizer)


def make(files: list[Path], tokenizer: Path, max_length: int) -> Rows:
    """Through MagpieDataModule's sources, steps, template and tokenizer; near duplicates stay."""
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
        kept = list(PassOverSources(module.parts(), think.encoder, module.quotas("fit"), None))
    rows = [(outcome.ids, outcome.roles) for outcome, _, split in kept if split == "train"]
    order = np.random.default_rng(0).permutation(len(rows))
    ids, roles = (np.concatenate([rows[k][part] for k in order]) for part in (0, 1))
    offsets = np.concatenate([[0], np.cumsum([len(rows[k][0]) for k in order])])
    return Rows(ids, roles, offsets, think.new_ids, think.subtoken_ids, contents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=Path, nargs="+", default=sorted((REAL / "real").glob("*.jsonl")))
    parser.add_argument("--tokenizer", type=Path, default=REAL / "qwen1.5-tokenizer")
    parser.add_argument("--max-length", type=int, default=4096)
    args = parser.parse_args()
    rows = make(args.rows, args.tokenizer, args.max_length)
    rows.save(args.out)
    lengths = rows.lengths
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, {len(lengths)} rows, {lengths.sum()} tokens")
    for limit in (512, 1024, 2048, 4096):
        print(f"  at most {limit} tokens: {(lengths <= limit).sum()} rows")


if __name__ == "__main__":
    main()
