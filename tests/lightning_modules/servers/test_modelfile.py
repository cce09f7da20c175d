"""The Modelfile for Ollama, read as Ollama reads it."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datamodules.text.segments import Role, Segment, Template
from datamodules.text.tags import Tags
from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.servers.modelfile import FILE, context_length, license_text, write_modelfile
from tests.conftest import TEMPLATE
from tests.stand_ins.chat_templates import chat_tokenizer

GREEDY = SimpleNamespace(do_sample=False, eos_token_id=[544], max_new_tokens=200)
SAMPLED = SimpleNamespace(
    do_sample=True, temperature=0.7, top_p=0.9, top_k=0, eos_token_id=[544, 545], max_new_tokens=64
)
COMMAND = re.compile(r'^([A-Z]+) (?:(\w+) )?("""(.*?)"""|"([^"\n]*)"|[^"\n]*)$', re.MULTILINE | re.DOTALL)


def written(folder: Path, tokenizer: ThinkTokenizer, template: Template = TEMPLATE, **more: Any) -> str:
    given: dict[str, Any] = {"generation": GREEDY, "context": 1024, "license": {}} | more
    assert write_modelfile(folder, template, tokenizer, **given) == ""
    return (folder / FILE).read_text()


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a Modelfile, without comments."""
    text = re.sub(r"^# .*\n", "", text, flags=re.MULTILINE)
    found = []
    for name, key, value, long, short in COMMAND.findall(text):
        found.append((f"{name} {key}".strip(), long or short or value))
    return found


def test_the_settings_are_those_of_the_generation_config(tmp_path: Path, tiny_tokenizer: ThinkTokenizer) -> None:
    text = written(tmp_path, tiny_tokenizer)
    template = TEMPLATE.go_template()
    assert commands(text) == [
        ("FROM", "."),
        ("PARSER", "laguna"),
        ("TEMPLATE", template),
        ("PARAMETER temperature", "0"),
        ("PARAMETER repeat_penalty", "1"),
        ("PARAMETER num_predict", "200"),
        ("PARAMETER num_ctx", "1024"),
        ("PARAMETER stop", "<|im_end|>"),
    ]


def test_a_sampled_run_names_each_setting_that_ollama_would_set(tmp_path: Path, tiny_tokenizer: ThinkTokenizer) -> None:
    found = commands(written(tmp_path, tiny_tokenizer, generation=SAMPLED, license={"license": "apache-2.0"}))
    assert found[3:] == [
        ("PARAMETER temperature", "0.7"),
        ("PARAMETER top_p", "0.9"),
        ("PARAMETER top_k", "0"),
        ("PARAMETER min_p", "0"),
        ("PARAMETER repeat_penalty", "1"),
        ("PARAMETER num_predict", "64"),
        ("PARAMETER num_ctx", "1024"),
        ("PARAMETER stop", "<|im_end|>"),
        ("PARAMETER stop", tiny_tokenizer.decode([545])),
        ("LICENSE", "apache-2.0"),
    ]


def test_weights_may_be_a_gguf_file(tmp_path: Path, tiny_tokenizer: ThinkTokenizer) -> None:
    assert commands(written(tmp_path, tiny_tokenizer, weights="./model-Q8_0.gguf"))[0] == ("FROM", "./model-Q8_0.gguf")


@pytest.mark.parametrize(
    ("tags", "one_block", "parser", "says"),
    [
        (Tags(), False, True, "takes all of them for\n# thinking"),
        (Tags(), True, False, "writes one think block"),
        (Tags("[s]", "[/s]"), False, False, "takes the first one for thinking"),
    ],
)
def test_the_file_says_which_blocks_ollama_takes_for_thinking(
    tmp_path: Path, tiny_tokenizer: ThinkTokenizer, tags: Tags, one_block: bool, parser: bool, says: str
) -> None:
    """Only for the tags that a parser of Ollama knows several blocks are read."""
    template = Template(TEMPLATE.parts, tags=tags)
    text = written(tmp_path, tiny_tokenizer, template, one_block=one_block)
    assert says in text
    assert (("PARSER", "laguna") in commands(text)) == parser


def test_the_first_token_is_left_to_ollama(tmp_path: Path) -> None:
    """It puts the beginning of a text before each prompt, as the tokenizer does."""
    tokenizer = chat_tokenizer("llama3")
    assert "<|begin_of_text|>" not in written(tmp_path, tokenizer, load_template("chat", None, tokenizer))


def test_a_template_that_cannot_be_written_leaves_no_file(tmp_path: Path, tiny_tokenizer: ThinkTokenizer) -> None:
    template = Template((Segment(Role.PROMPT, "Q: "), None), tags=Tags("{a}", "{/a}"))
    reason = write_modelfile(tmp_path, template, tiny_tokenizer, GREEDY, 1024, {})
    assert reason == "Ollama would not find the tags {a} and {/a}"
    assert not (tmp_path / FILE).exists()


def test_the_context_is_that_of_the_model_and_at_most_what_is_needed() -> None:
    assert context_length(1024, None) == 1024
    assert context_length(32_768, 2_000) == 4096
    assert context_length(32_768, 9_000) == 9_000
    assert context_length(None, None) == 4096


def test_a_license_is_named_with_its_place() -> None:
    assert license_text({"license": "mit"}) == "mit"
    other = {"license": "other", "license_name": "tongyi-qianwen", "license_link": "https://example.org/LICENSE"}
    assert license_text(other) == "tongyi-qianwen: https://example.org/LICENSE"
