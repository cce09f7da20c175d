"""Fixtures of several rooms: the embedded model, rows with R1's shapes, a base with Qwen's, and a hub on loopback.

Environment variables name further inputs; the last two of these three replace generated ones:
THINKWRIGHT_CASES           a folder of small inputs that were once misread
THINKWRIGHT_REAL_ROWS       a folder with r1_*.jsonl, rows of R1's answers: instruction, response
THINKWRIGHT_REAL_TOKENIZER  a folder with Qwen1.5's tokenizer.json and tokenizer_config.json

Programs of others are tested where a variable names them:
THINKWRIGHT_VLLM            a folder with vLLM's own code, made as tests/vllm.txt says
THINKWRIGHT_LLAMA_SERVER    llama.cpp's llama-server
"""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from datamodules.layouts.columns import Columns
from datamodules.layouts.conversation import RawExample
from datamodules.layouts.reader import RowReader
from datamodules.text.segments import Role, Segment, Template
from tests.stand_ins.base import make_base, make_tokenizer
from tests.stand_ins.hub import Hub
from tests.stand_ins.recipe import make_repositories, repositories
from tests.stand_ins.rows import Row, generated_rows, real_rows

# Set before any library reads them: no test asks the real hub, and each test process uses one thread
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("thinkwright", deadline=None)  # no test fails because the machine is busy
settings.load_profile("thinkwright")

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "assets" / "tiny-qwen"
REAL_ROWS, REAL_TOKENIZER = (os.environ.get(f"THINKWRIGHT_REAL_{name}") for name in ("ROWS", "TOKENIZER"))
# The template of `data.template instruction`, for a model without a beginning-of-text token
TEMPLATE = Template((Segment(Role.PROMPT, "### Instruction: "), None, Segment(Role.PROMPT, "\n### Response: ")))

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in ("test_recipe.py", "test_processes.py"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `gpu` on a machine without a GPU."""
    import torch

    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    """Reset the program's log, which a command of an earlier test may have changed: `caplog` reads it from the root."""
    log = logging.getLogger("thinkwright")
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)


MakeOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Return the folder of a name. One test process makes it, and the others wait."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def make_once(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def r1_rows() -> list[Row]:
    """1,500 generated rows, or the real ones."""
    return real_rows(Path(REAL_ROWS)) if REAL_ROWS else generated_rows(1_500)


@pytest.fixture(scope="session")
def qwen_tokenizer(make_once: MakeOnce) -> Path:
    """A folder with a tokenizer of Qwen's 151,646 tokens, and a config.json that names the architecture only."""

    def make(folder: Path) -> None:
        if REAL_TOKENIZER:
            shutil.copytree(REAL_TOKENIZER, folder, dirs_exist_ok=True)
            (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
        else:
            make_tokenizer(folder)

    return make_once("qwen-tokenizer", make)


@pytest.fixture(scope="session")
def qwen_base(qwen_tokenizer: Path, make_once: MakeOnce) -> Callable[[bool], Path]:
    """Return a model folder with that tokenizer, Qwen's vocabulary of 151,936 and random weights; tied or not."""

    def base(tied: bool) -> Path:
        return make_once(f"qwen-{'tied' if tied else 'untied'}", lambda folder: make_base(folder, qwen_tokenizer, tied))

    return base


@pytest.fixture(scope="session")
def hub(qwen_tokenizer: Path, r1_rows: list[Row], make_once: MakeOnce) -> Iterator[Hub]:
    """A hub with the models and the data set of the recipe, without faults."""
    root = make_once("hub", lambda folder: make_repositories(folder, qwen_tokenizer, r1_rows))
    with Hub(repositories(root)).serving() as hub:
        yield hub


@pytest.fixture(scope="session")
def hub_env(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that uses this hub."""
    return hub.environment(tmp_path_factory.mktemp("hf_home"))


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the test in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def disk_order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the program makes durable, in order: the name of each file or folder that is flushed, and "rename"."""
    done: list[str] = []
    fsync = os.fsync

    def flushed(descriptor: int) -> None:
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def noted(rename: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def renamed(old: Any, new: Any) -> None:
            done.append("rename")
            rename(old, new)

        return renamed

    monkeypatch.setattr(os, "fsync", flushed)
    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, noted(getattr(os, name)))
    return done


KINDS = ("qwen2", "qwen2-tied", "qwen3", "llama")


def random_lm(kind: str = "qwen2-tied", vocabulary: int = 640, **settings: Any) -> Any:
    """Return a causal LM of a few thousand random weights; `kind` is one of KINDS. `settings` are of its config."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    name, _, tied = kind.partition("-")
    tiny: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": bool(tied),
        "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    config = AutoConfig.for_model(name, **(tiny | settings))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1) if parameter.ndim > 1 else parameter.fill_(1.0)
    return model


def raw_example(row: Mapping[str, Any], position: int = 0, columns: Columns = Columns()) -> RawExample:  # noqa: B008
    """Return the only example of a row."""
    (raw,) = RowReader(columns).read(row, position)
    return raw


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    from datamodules.tokens.tokenizer import ThinkTokenizer

    return ThinkTokenizer.load(str(TINY))


@pytest.fixture
def make_batch(tiny_tokenizer: Any) -> Callable[..., Any]:
    """Return a training batch of the built-in rows with these indices."""
    from datamodules.batches.collate import collate
    from datamodules.prepare.token_dataset import TokenExample
    from datamodules.rows import builtin
    from datamodules.text.example import parse_example
    from datamodules.text.segments import render
    from datamodules.text.steps import StepSettings

    def make(*indices: int, step_tokens: int | None = None) -> Any:
        examples = [parse_example(raw_example(builtin.row(0, i), i)) for i in indices]
        rows = [render(example, TEMPLATE, StepSettings()) for example in examples]
        encoded = tiny_tokenizer.encoder.encode_rows(rows)
        taken = [TokenExample(i, str(i), "easy", *pair) for i, pair in zip(indices, encoded, strict=True)]
        tokens = sum(int((row.roles != 0).sum()) for row in taken)
        return collate(taken, tokens if step_tokens is None else step_tokens, pad_id=tiny_tokenizer.end_id)

    return make
