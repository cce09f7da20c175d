"""What several tests share: the tiny model, real inputs where they are at hand, and a hub on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from datamodules.text.segments import Role, Segment, Template

# Before any library reads them: no test asks the real hub, and tests that run side by side do not fight over cores
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
TINY = ROOT / "assets" / "tiny-qwen"
# The recipe's, as data.template instruction gives it for a model without a beginning-of-text token
TEMPLATE = Template((Segment(Role.PROMPT, "### Instruction: "), None, Segment(Role.PROMPT, "\n### Response: ")))

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` need one."""
    import torch

    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real R1 traces, the real Qwen tokenizer and a small hub, kept beside the checkout where we develop."""
    if not (SHARED / "README.md").is_file():
        pytest.skip("needs the real inputs in ../shared, which are not part of the project")
    return SHARED


@pytest.fixture(scope="session")
def real_rows(shared: Path) -> list[dict[str, str]]:
    """1,502 answers of DeepSeek-R1 and its distils to puzzles and mathematics."""
    files = ("r1_puzzles.jsonl", "r1_math.jsonl")
    return [json.loads(line) for name in files for line in (shared / "real" / name).open(encoding="utf-8")]


def script(*args: Path | str) -> None:
    """Runs a Python script in a process of its own."""
    subprocess.run([sys.executable, *map(str, args)], check=True, capture_output=True)


@pytest.fixture(scope="session")
def qwen_base(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a model folder with the real tokenizer and vocabulary, random weights, tied or not; each one once."""
    made: dict[bool, Path] = {}

    def make(tied: bool) -> Path:
        if tied not in made:
            folder = tmp_path_factory.mktemp("qwen") / ("tied" if tied else "untied")
            shape = ["--dtype", "float32", *(["--tied"] if tied else [])]
            script(shared / "make_qwen_base.py", folder, *shape)
            made[tied] = folder
        return made[tied]

    return make


@pytest.fixture(scope="session")
def hub_root(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a hub on which the recipe's own ids resolve; 550 rows, some of them untidy."""
    root = tmp_path_factory.mktemp("hub")
    script(shared / "make_hub.py", root, "--rows", "550")
    return root


@pytest.fixture(scope="session")
def hub_env(shared: Path, hub_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment for subprocesses in which that hub is the hub."""
    server = subprocess.Popen([sys.executable, shared / "mini_hub.py", hub_root], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        endpoint = server.stdout.readline().partition("HF_ENDPOINT=")[2].strip()
        environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
        yield environment | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path_factory.mktemp("hf_home"))}
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


KINDS = ("qwen2", "qwen2-tied", "qwen3", "llama")


def random_lm(kind: str = "qwen2-tied", vocabulary: int = 640) -> Any:
    """A causal LM of a few thousand random weights, of one of KINDS."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    name, _, tied = kind.partition("-")
    config = AutoConfig.for_model(
        name, vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, tie_word_embeddings=bool(tied), max_position_embeddings=512,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1) if parameter.ndim > 1 else parameter.fill_(1.0)
    return model


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    from datamodules.tokens.tokenizer import ThinkTokenizer

    return ThinkTokenizer.load(str(TINY))


@pytest.fixture
def make_batch(tiny_tokenizer: Any) -> Callable[..., Any]:
    """Batches of built-in rows, by index, as training sees them."""
    from datamodules.batches.collate import collate
    from datamodules.prepare.token_dataset import TokenExample
    from datamodules.rows import builtin
    from datamodules.text.example import Columns, parse_example
    from datamodules.text.segments import render
    from datamodules.text.steps import StepSettings

    def make(*indices: int, step_tokens: int | None = None) -> Any:
        examples = [parse_example(Columns().read(builtin.row(0, i), i)) for i in indices]
        rows = [render(example, TEMPLATE, StepSettings()) for example in examples]
        encoded = tiny_tokenizer.encoder.encode_rows(rows)
        taken = [TokenExample(i, str(i), "easy", *pair) for i, pair in zip(indices, encoded, strict=True)]
        tokens = sum(int((row.roles != 0).sum()) for row in taken)
        return collate(taken, tokens if step_tokens is None else step_tokens, pad_id=tiny_tokenizer.end_id)

    return make
