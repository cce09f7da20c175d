"""Real rows and a real tokenizer for the benchmarks. Neither is part of the project; two variables name their folders:

THINKWRIGHT_REAL_ROWS       *.jsonl files with the columns instruction and response
THINKWRIGHT_REAL_TOKENIZER  tokenizer.json and tokenizer_config.json
"""

import os
from pathlib import Path

MISSING = (
    "give --rows FILE.jsonl … (columns instruction and response) and --tokenizer FOLDER (with tokenizer.json), "
    "or set THINKWRIGHT_REAL_ROWS and THINKWRIGHT_REAL_TOKENIZER"
)


def row_files() -> list[Path]:
    """Return the files of THINKWRIGHT_REAL_ROWS; none if it is not set."""
    folder = os.environ.get("THINKWRIGHT_REAL_ROWS")
    return sorted(Path(folder).glob("*.jsonl")) if folder else []


def tokenizer_folder() -> Path | None:
    folder = os.environ.get("THINKWRIGHT_REAL_TOKENIZER")
    return Path(folder) if folder else None
