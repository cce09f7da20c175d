"""The facts of a card: from a run's settings and evaluations, and from the cards of its base and data."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from commands import export_card
from commands.export_card import card_of, evaluations, system_place
from datamodules.text.steps import StepSettings
from datamodules.tokens.template import load_template
from disk import digest
from lightning_modules.checkpoints.start_weights import StartWeights
from lightning_modules.run.folder import Run
from tests.datamodules.text.test_exported_template import OMITS
from tests.stand_ins.chat_templates import chat_tokenizer

MAGPIE = "Magpie-Align/Magpie-Reasoning-V2-250K-CoT-Deepseek-R1-Llama-70B"
CARDS: dict[tuple[str, str], Any] = {
    ("model", "Qwen/Qwen2-0.5B"): {"license": "apache-2.0", "language": ["en"]},
    ("dataset", MAGPIE): {"license": "llama3", "language": ["en", "de"]},
    ("dataset", "me/mine"): {},
}
FOUND: dict[str, Any] = {
    "evaluation": 1, "decoding": {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 64}, "samples": 1,
    "figures": {"questions": 9, "right": 0.5, "interval": [0.2, 0.8], "well_formed": 1.0},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = tmp_path / "runs" / "mine" / "T1"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    (folder / "summary.json").write_text(json.dumps({"after": {"loss": 0.5}}))
    return Run(folder)


def loaded(run: Run, template: Any, **data: Any) -> Any:
    tokenizer = SimpleNamespace(new_ids=[7])
    tuner = SimpleNamespace(name="Qwen/Qwen2-0.5B", revision="abc", start=StartWeights(None), tokenizer=tokenizer)
    config = {"model": {"quantize": "nf4"}, "data": data}
    module = SimpleNamespace(max_length=512, steps=StepSettings())
    return SimpleNamespace(
        run=run, checkpoint=run.best, tuner=tuner, template=template, config=config, step=7, data=module
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []

    def metadata(kind: str, name: str, revision: str | None) -> Any:
        asked.append((kind, name, revision))
        return CARDS.get((kind, name))

    monkeypatch.setattr(export_card, "card_metadata", metadata)
    return asked


def test_a_card_names_the_data_sets_of_the_hub_only(run: Run, asked: list[Any]) -> None:
    mix = [
        {"name": MAGPIE, "revision": "0123"}, {"name": "builtin"}, {"name": "rows/mine.jsonl"}, {"name": "/data/rows"},
        {"name": "me/mine"}, {"name": "rows/of-another-folder"},
    ]  # fmt: skip
    template = load_template("instruction", None, chat_tokenizer("qwen1.5"))
    card = card_of(loaded(run, template, mix=mix), "bfloat16")
    assert card.datasets == [MAGPIE, "me/mine"] and card.languages == ["en", "de"]
    assert ("dataset", MAGPIE, "0123") in asked and ("model", "Qwen/Qwen2-0.5B", "abc") in asked
    assert card.license == {"license": "apache-2.0"}  # of the base
    assert (card.name, card.max_length, card.dtype, card.quantize, card.step) == ("mine", 512, "bfloat16", "nf4", 7)
    assert card.figures == {"loss": 0.5}
    assert card_of(loaded(run, template, source=MAGPIE, mix=None), "").datasets == [MAGPIE]
    assert card_of(loaded(run, template, source="builtin"), "").datasets == []
    assert card.repository is None
    assert card_of(loaded(run, template, source="builtin"), "", "me/mine").repository == "me/mine"


def test_a_card_has_the_evaluations_of_its_checkpoint_only(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert list(evaluations(run.folder, run.best, [])) == []
    folder = run.folder / "evaluations"
    folder.mkdir()
    mine = digest(run.best)
    tasks = {"a": "gsm8k", "b": "heldout", "c": "/home/me/questions.jsonl"}
    for name, task in tasks.items():
        (folder / f"{name}.summary.json").write_text(json.dumps(FOUND | {"task": task, "checkpoint": mine}))
    other = FOUND | {"task": "gsm8k", "checkpoint": "none: the base before training"}
    (folder / "d-base.summary.json").write_text(json.dumps(other))
    damaged = FOUND | {"task": "gsm8k", "checkpoint": mine, "figures": FOUND["figures"] | {"right": None}}
    for name, text in (("e", "{"), ("f", json.dumps({"checkpoint": mine})), ("g", "[]"), ("h", json.dumps(damaged))):
        (folder / f"{name}.summary.json").write_text(text)
    gsm8k, heldout, file = evaluations(run.folder, run.best, [MAGPIE])
    assert gsm8k.asked[:4] == ("openai/gsm8k", "gsm8k", "main", "test")
    assert (gsm8k.questions, gsm8k.right, gsm8k.interval) == (9, 0.5, (0.2, 0.8))
    assert gsm8k.how == "greedy, at most 64 tokens"
    assert heldout.asked[0] == MAGPIE and file.asked.name == "questions"
    warned = [record.message for record in caplog.records]
    assert [next(name for name in "efgh" if f"/{name}.summary" in line) for line in warned] == [*"efgh"]
    assert all("the model card lacks its figures" in line for line in warned)


@pytest.mark.parametrize(
    ("setting", "system", "words"),
    [
        ("instruction", None, "before the first instruction"),
        ("{{ system }} {{ instruction }}", "Be brief.", "the place of the system prompt of the training"),
        ("{% if system %}{{ system }}{% endif %}{{ instruction }}", None, "takes its own place"),
        ("chat", None, "takes its own place"),
        ("chat", "Be brief.", "the place of the system prompt of the training"),
        (OMITS, None, "before the first instruction"),
    ],
)
def test_a_card_says_where_a_system_message_stands(setting: str, system: str | None, words: str) -> None:
    assert words in system_place(load_template(setting, system, chat_tokenizer("qwen1.5")))
