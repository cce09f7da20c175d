"""The model card: facts of the run, in the form that the hub reads."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import EvalResult, ModelCard

from datamodules.text.tags import Tags
from lightning_modules.checkpoints.content import Parent
from lightning_modules.export.card import card_text
from lightning_modules.export.card_facts import Asked, Card, Evaluation
from lightning_modules.generation.decoding import DecodingSettings
from tests.lightning_modules.export.conftest import CARD

GREEDY = {"grammar": False, "thinking": True, "thinking_budget": None, "max_new_tokens": 512, "temperature": 0.0,
          "top_p": 1.0}  # fmt: skip
FIGURES = {"questions": 1319, "right": 0.431, "interval": [0.4041, 0.4579], "well_formed": 0.98}
GSM8K = Asked("openai/gsm8k", "gsm8k", "main", "test", "740312a")
PROGRAMS = {
    "merged": ("transformers", "Thinkwright", "vLLM", "llama.cpp", "Ollama"),
    "adapter": ("transformers with peft", "Thinkwright", "vLLM, llama.cpp, Ollama"),
}
FULL = replace(
    CARD,
    base="Qwen/Qwen2-0.5B",
    revision="abc",
    figures={**CARD.figures, "answered": 200},
    name="my run",
    license={"license": "other", "license_name": "tongyi-qianwen", "license_link": "https://example.org/license"},
    datasets=("Magpie-Align/Magpie-Reasoning-V2-250K-CoT-Deepseek-R1-Llama-70B",),
    languages=("en", "zh"),
    system="A system message stands before the first instruction.",
    max_length=4_096,
    dtype="bfloat16",
)


def read(card: Card, kind: str = "merged", grown: int | None = None) -> tuple[Any, str]:
    """The metadata as the hub's library reads it, and the text."""
    text = card_text(card, kind, grown)
    return ModelCard(text).data, text


@pytest.mark.parametrize(
    ("kind", "relation", "library"), [("merged", "finetune", "transformers"), ("adapter", "adapter", "peft")]
)
def test_the_hub_reads_base_license_data_language_and_library(kind: str, relation: str, library: str) -> None:
    data, text = read(FULL, kind)
    assert (data.base_model, data.base_model_relation) == ("Qwen/Qwen2-0.5B", relation)
    assert (data.license, data.license_name, data.license_link) == tuple(FULL.license.values())
    assert (data.datasets, data.language) == (list(FULL.datasets), ["en", "zh"])
    assert (data.library_name, data.pipeline_tag) == (library, "text-generation")
    assert {"reasoning", "think"} <= set(data.tags) and ("lora" in data.tags) == (kind == "adapter")
    assert "Qwen/Qwen2-0.5B at abc, trained to think" in text and "names no license" not in text
    assert "4,096 tokens" in text and FULL.system in " ".join(text.split())


def test_a_base_in_a_folder_is_not_named_as_a_model_of_the_hub() -> None:
    data, text = read(CARD)
    assert data.base_model is None and "base_model" not in text and data.license is None and data.datasets is None
    assert "\ntiny-qwen, trained to think" in text and "this card names no model of the hub" in text
    assert "names no license" in text


def test_the_model_index_has_the_figures_of_the_validation() -> None:
    data, text = read(FULL)
    (result,) = data.eval_results
    assert isinstance(result, EvalResult) and data.model_name == "my run"
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("accuracy", 0.9, "validation")
    assert result.dataset_type == FULL.datasets[0]
    assert result.metric_args == {"questions": 200, "interval_95": [0.8506, 0.9343]}
    assert "On held-out rows after training, 200 of them answered (right: 85.1 to 93.4 %)" in text
    assert {"| right answers | 90.0 % |", "| easy | 100.0 % |"} <= set(text.splitlines()) and "`best.ckpt`" in text
    assert read(replace(FULL, figures={}))[0].eval_results is None
    assert "No figure was measured." in read(replace(FULL, figures={}))[1]


def test_the_model_index_has_the_figures_of_evaluate_if_there_are_any() -> None:
    sampled = GREEDY | {"temperature": 0.7, "top_p": 0.95, "thinking_budget": 256}
    both = [Evaluation.of(GSM8K, FIGURES, GREEDY, 1), Evaluation.of(GSM8K, FIGURES, sampled, 4)]
    card = replace(FULL, evaluations=both)
    data, text = read(card)
    greedy, other = data.eval_results
    assert (greedy.dataset_type, greedy.dataset_config, greedy.dataset_split) == ("openai/gsm8k", "main", "test")
    assert (greedy.dataset_revision, greedy.metric_value) == ("740312a", 0.431)
    assert greedy.metric_name == "right answers (greedy, at most 512 tokens)"
    how = "temperature 0.7, top_p 0.95, 4 answers to each question, at most 512 tokens, thinking_budget 256"
    assert other.metric_name == f"right answers ({how})"
    line = "| gsm8k | 1,319 | greedy, at most 512 tokens | 43.1 % (40.4 to 45.8 %) | 98.0 % |"
    assert line in text.splitlines()


@pytest.mark.parametrize("decoding", [vars(DecodingSettings()), GREEDY | {"of the future": 1}, {}])
def test_a_setting_of_decoding_that_is_missing_has_its_default_and_an_unknown_one_is_ignored(decoding: Any) -> None:
    assert Evaluation.of(GSM8K, FIGURES, decoding, 1).how == "greedy, at most 512 tokens"


@pytest.mark.parametrize("change", [{"right": None}, {"right": "many"}, {"interval": [0.1]}, {"questions": []}])
def test_figures_that_are_no_figures_are_an_error(change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Evaluation.of(GSM8K, FIGURES | change, GREEDY, 1)


def test_the_model_card_names_the_weights_that_training_began_with() -> None:
    parents = [
        Parent("/home/me/runs/b/T2/checkpoints/best.ckpt", 9, ""),
        Parent("/home/me/runs/a/T1/adapter", None, ""),
    ]
    text = card_text(replace(CARD, parents=parents), "merged")
    assert "with the weights of `b/T2/best.ckpt`, before that with those of `a/T1/adapter`." in text
    assert "/home/me" not in text and "did not begin" not in card_text(CARD, "merged")


def test_the_code_in_a_card_is_python() -> None:
    for kind, grown in (("merged", None), ("adapter", None), ("adapter", 576)):
        text = card_text(FULL, kind, grown)
        code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert code
        for one in code:
            compile(one, "card", "exec")
        assert ("resize_token_embeddings(576" in text) == (grown is not None)
        revision = 'AutoModelForCausalLM.from_pretrained("Qwen/Qwen2-0.5B", revision="abc", dtype="auto")'
        assert (revision in text) == (kind == "adapter")


@pytest.mark.parametrize(("kind", "programs"), PROGRAMS.items())
def test_a_card_says_how_to_run_it_in_each_program(kind: str, programs: tuple[str, ...]) -> None:
    text = card_text(FULL, kind)
    assert tuple(re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)) == programs
    lines = (
        'vllm serve "THIS FOLDER" --reasoning-parser-plugin "THIS FOLDER/think_blocks_parser.py" '
        "--reasoning-parser think_blocks",
        "python cli.py export --run runs/NAME/TIME --gguf Q8_0",
        "ollama create NAME -f Modelfile",
    )
    assert [line in text.splitlines() for line in lines] == [kind == "merged"] * 3
    assert "python cli.py serve --run runs/NAME/TIME" in text.splitlines() and "hf download" not in text


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_card_on_the_hub_names_its_repository(kind: str) -> None:
    text = card_text(replace(FULL, repository="me/mine"), kind)
    assert 'hf download me/mine --local-dir "THIS FOLDER"' in text.splitlines()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert '"me/mine"' in code and "THIS FOLDER" not in code


@pytest.mark.parametrize(("tags", "parser"), [(Tags(), True), (Tags("<thought>", "</thought>"), False)])
def test_a_card_names_a_parser_of_vllm_only_for_the_tags_that_it_reads(tags: Tags, parser: bool) -> None:
    assert ("--reasoning-parser glm45" in card_text(replace(FULL, tags=tags), "merged")) == parser


def test_lines_of_text_are_short_and_the_checkpoint_is_named() -> None:
    for kind in PROGRAMS:
        text = card_text(FULL, kind).split("---\n", 2)[2]
        assert not [line for line in text.splitlines() if len(line) > 120 and not line.startswith(("vllm", "|"))]
        assert Path(FULL.checkpoint).name in text


def test_names_with_signs_of_yaml_stay_names() -> None:
    card = replace(
        FULL, name="a: b # c", languages=("no",), evaluations=[Evaluation.of(Asked("x", "t: [1]"), FIGURES, GREEDY, 1)]
    )
    data, _ = read(card)
    assert (data.model_name, data.language, data.eval_results[0].dataset_name) == ("a: b # c", ["no"], "t: [1]")
