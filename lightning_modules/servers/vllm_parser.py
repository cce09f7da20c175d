"""The parser for vLLM that lies beside exported weights, and the line that starts vLLM with it.

The copy has the tags of the run, and the ids at the end of its prompts. vLLM asks a parser whether a thought has ended
before the answer begins, and gives it the ids of the prompt. Those of earlier answers, and of a tag that a user typed,
must not count.
"""

from itertools import takewhile
from pathlib import Path

from datamodules.text.segments import Template
from datamodules.text.tags import Tags
from datamodules.tokens.tokenizer import ThinkTokenizer

NAME = "think_blocks"
FILE = f"{NAME}_parser.py"
SOURCE = Path(__file__).with_name(FILE)
# With different last characters, so that all prompts have only the text after the instruction in common
QUESTIONS = ("Solve x", "7 + 5 =", "Why?", "为什么。", "print(1)\n```")


def write_vllm_parser(folder: Path, template: Template, tokenizer: ThinkTokenizer) -> None:
    """Write the parser for the answers of a run."""
    (folder / FILE).write_text(parser_text(template.tags, prompt_end(template, tokenizer)), encoding="utf-8")


def vllm_line(folder: Path | str) -> str:
    """Return the line that serves an exported folder with its parser."""
    return f'vllm serve "{folder}" --reasoning-parser-plugin "{folder}/{FILE}" --reasoning-parser {NAME}'


def prompt_end(template: Template, tokenizer: ThinkTokenizer) -> tuple[int, ...]:
    """Return the ids that end each prompt; empty if a prompt ends with its instruction."""
    prompts = tokenizer.encode_prompts([template.prompt(question) for question in QUESTIONS])
    same = takewhile(lambda ids: len(set(ids)) == 1, zip(*(ids[::-1] for ids in prompts), strict=False))
    return tuple(ids[0] for ids in same)[::-1]


def parser_text(tags: Tags, end: tuple[int, ...]) -> str:
    """Return the text of the parser."""
    text = SOURCE.read_text(encoding="utf-8")
    for name, plain, value in (
        ("OPEN, CLOSE", '"<think>", "</think>"', f"{tags.open!r}, {tags.close!r}"),
        ("PROMPT_END: tuple[int, ...]", "()", repr(end)),
    ):
        line = f"{name} = {plain}  #"
        assert text.count(line) == 1, f"{SOURCE} has no line that begins with {line}"
        text = text.replace(line, f"{name} = {value}  #")
    return text
