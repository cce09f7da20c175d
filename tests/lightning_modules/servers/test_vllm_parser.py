"""The copy of the parser: for the tags and the prompt of a run."""

import ast
from pathlib import Path

import pytest

from datamodules.text.segments import Role, Segment, Template
from datamodules.text.tags import Tags
from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import ThinkTokenizer
from lightning_modules.servers.vllm_parser import FILE, parser_text, prompt_end, vllm_line, write_vllm_parser
from tests.conftest import TEMPLATE
from tests.stand_ins.chat_templates import CHATS, chat_tokenizer


def test_the_copy_has_the_tags_and_the_end_of_the_prompts(tmp_path: Path, tiny_tokenizer: ThinkTokenizer) -> None:
    write_vllm_parser(tmp_path, TEMPLATE, tiny_tokenizer)
    names = ("OPEN, CLOSE", "PROMPT_END")
    values = {
        ast.unparse(one.targets[0] if isinstance(one, ast.Assign) else one.target): ast.literal_eval(one.value)
        for one in ast.parse((tmp_path / FILE).read_text()).body
        if isinstance(one, ast.Assign | ast.AnnAssign) and one.value and "=" in ast.unparse(one)
        if ast.unparse(one).strip("(").startswith(("OPEN", "PROMPT_END"))
    }
    end = tuple(tiny_tokenizer.encode(["\n### Response: "])[0])
    assert list(values.values()) == [("<think>", "</think>"), end], names


@pytest.mark.parametrize("name", CHATS)
def test_a_prompt_ends_with_the_text_after_the_question(name: str) -> None:
    tokenizer = chat_tokenizer(name)
    template = load_template("chat", None, tokenizer)
    end = prompt_end(template, tokenizer)
    assert end
    assert template.turn_texts.turns.ask.endswith(tokenizer.decode(end))
    for question in ("Why", "x\n\n", "」"):
        (ids,) = tokenizer.encode_prompts([template.prompt(question)])
        assert tuple(ids[-len(end) :]) == end


def test_a_prompt_that_ends_with_the_question_has_no_end_of_its_own(tiny_tokenizer: ThinkTokenizer) -> None:
    assert prompt_end(Template((Segment(Role.PROMPT, "Q: "), None)), tiny_tokenizer) == ()


def test_a_tag_is_a_text_in_the_copy() -> None:
    """Quotes and line breaks end no string of Python."""
    tags = Tags('<"a\'\n">', "</a\\>")
    (line,) = [one for one in ast.parse(parser_text(tags, ())).body if "OPEN, CLOSE" in ast.unparse(one)]
    assert isinstance(line, ast.Assign)
    assert ast.literal_eval(line.value) == (tags.open, tags.close)


def test_the_line_to_type() -> None:
    assert vllm_line(Path("runs/my run")) == (
        'vllm serve "runs/my run" --reasoning-parser-plugin "runs/my run/think_blocks_parser.py"'
        " --reasoning-parser think_blocks"
    )
