"""The hub of the recipe: the models and the data set that configs/multi_think.yaml and its comments name."""

from collections.abc import Sequence
from pathlib import Path

from tests.stand_ins.base import make_base
from tests.stand_ins.hub import Kind, Repository
from tests.stand_ins.rows import Row, as_magpie

DATASET = "Magpie-Align/Magpie-Reasoning-V2-250K-CoT-Deepseek-R1-Llama-70B"
COMMIT = "d78edb811991faba57a3b7226719f3818460e723"  # data.revision of the recipe
UNTIED, TIED = "Qwen/Qwen1.5-1.8B-Chat", "Qwen/Qwen2-1.5B-Instruct"
ROWS = 550


def make_repositories(root: Path, tokenizer: Path, rows: Sequence[Row]) -> None:
    """Writes the folders that `repositories` serves; the data set has 550 rows in two shards."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, tied in ((UNTIED, False), (TIED, True)):
        make_base(root / "models" / name, tokenizer, tied)
    data = root / "datasets" / DATASET / "data"
    data.mkdir(parents=True)
    made = list(as_magpie(rows, ROWS))
    for row in made[96::97]:  # the calls that fail in the real set, whichever rows are given
        row["response"] = ""
    for shard in (0, 1):
        table = pa.Table.from_pylist(made[shard * ROWS // 2 : (shard + 1) * ROWS // 2])
        pq.write_table(table, data / f"train-{shard:05d}-of-00002.parquet")


def repositories(root: Path) -> dict[tuple[Kind, str], Repository]:
    """The repositories in the folders that `make_repositories` wrote."""
    models: dict[tuple[Kind, str], Repository] = {
        ("models", name): Repository(root / "models" / name) for name in (UNTIED, TIED)
    }
    return models | {("datasets", DATASET): Repository(root / "datasets" / DATASET, COMMIT)}
