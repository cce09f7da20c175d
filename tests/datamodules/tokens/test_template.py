from pathlib import Path
from typing import Any

import pytest

from datamodules.text.segments import Segment
from datamodules.tokens.template import check_template, load_template
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from tests.conftest import TEMPLATE, TINY

TRICKY = "a <think> b </think> c <|im_end|> {{ x }}"


def texts(segments: list[Segment]) -> list[str]:
    return [f"[{segment.text}]" if segment.control else segment.text for segment in segments]


def tokenizer(chat: str | None = None, **special: str) -> ThinkTokenizer:
    from transformers import AutoTokenizer

    full: Any = AutoTokenizer.from_pretrained(TINY)
    full.chat_template = chat or full.chat_template
    for name, token in special.items():
        setattr(full, name, token)
    return ThinkTokenizer(full)


def test_the_template_instruction_is_the_text_of_the_recipe(tiny_tokenizer: ThinkTokenizer) -> None:
    assert load_template("instruction", None, tiny_tokenizer) == TEMPLATE


def test_chat_is_the_models_own_template_with_its_control_tokens() -> None:
    turns = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    ours = tokenizer(turns + "<|im_start|>")
    assert texts(load_template("chat", None, ours).prompt(TRICKY)) == [
        "[<|im_start|>]", f"user\n{TRICKY}", "[<|im_end|>]", "\n", "[<|im_start|>]",
    ]  # fmt: skip
    with_system = load_template("chat", "Be <|im_start|> brief.", ours).prompt("Hi")
    assert texts(with_system)[:4] == ["[<|im_start|>]", "system\nBe ", "[<|im_start|>]", " brief."]


def test_a_control_token_is_text_in_an_instruction_and_an_id_in_a_template(tiny_tokenizer: ThinkTokenizer) -> None:
    template = load_template("<|im_start|>{{ instruction }}<|im_end|>", None, tiny_tokenizer)
    (ids,) = tiny_tokenizer.encode_prompts([template.prompt(TRICKY)])
    controls = [i for i in ids if i in tiny_tokenizer.control_ids.values()]
    assert [tiny_tokenizer.decode([i]) for i in controls] == ["<|im_start|>", "<|im_end|>"]
    assert tiny_tokenizer.decode(ids) == f"<|im_start|>{TRICKY}<|im_end|>"


def test_the_opening_tag_at_the_end_of_a_template_is_removed() -> None:
    template = load_template("chat", None, tokenizer("{{ messages[0].content + '<|im_end|><think>\\n' }}"))
    assert texts(template.prompt("Hi")) == ["Hi", "[<|im_end|>]"]
    assert template.opening == "<think>\n"


def test_a_template_may_strip_the_instruction() -> None:
    chat = tokenizer("A {{ messages[0].content | trim }}:")
    for setting in ("chat", "A {{ instruction|trim }}:"):
        template = load_template(setting, None, chat)
        assert texts(template.prompt("  Hi\n there\n")) == ["A Hi\n there:"]


def test_a_template_may_repeat_the_instruction() -> None:
    assert texts(load_template("{{ instruction }}! {{ instruction }}", None, tokenizer()).prompt("a")) == ["a! a"]


def test_the_beginning_of_text_comes_once(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    ours = tokenizer(bos_token="<|endoftext|>")
    bos = ours.full.convert_tokens_to_ids("<|endoftext|>")
    ours.full.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    ours = ThinkTokenizer(ours.full)
    assert ours.prefix_ids == [bos]
    for setting in ("Ask: {{ instruction }}", "<|endoftext|>Ask: {{ instruction }}"):
        assert texts(load_template(setting, None, ours).prompt("a")) == ["[<|endoftext|>]", "Ask: a"]
    ours.full.chat_template = "{{ bos_token }}{{ messages[0].content }}"
    assert texts(load_template("chat", None, ours).prompt("a")) == ["[<|endoftext|>]", "a"]
    ours.full.chat_template = "{{ messages[0].content }}"  # this template writes no beginning-of-text token
    assert texts(load_template("chat", None, ours).prompt("a")) == ["a"]


def test_a_template_file_is_read_without_its_last_line_end(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{# a comment #}\nQ: {{ instruction }}\nA:\n")
    template = load_template(str(tmp_path / "mine.jinja"), None, tokenizer())
    assert texts(template.prompt("Hi")) == ["Q: Hi\nA:"]


@pytest.mark.parametrize(
    ("setting", "system", "message"),
    [
        ("Q {{ instruction", None, r"line 1, 'Q \{\{ instruction': unexpected end"),
        ("a\n{{ instruction }}\n{{ nothing }}\n", None, r"line 3, '\{\{ nothing \}\}': 'nothing' is undefined"),
        ("a\n{% if x %}{{ instruction }}\n", None, "is wrong in line"),
        ("{{ 'a' }}", None, "omits the instruction"),
        ("instruction", "Be brief.", "data.system: 'Be brief.' has no place in the template"),
        ("### Instruction: {instruction}\n### Response: {response}", None, r"is not Jinja. Write \{\{ instruction"),
        ("instructoin", None, "Did you mean instruction?"),
        ("missing.jinja", None, "does not exist. Give instruction, chat, a Jinja file"),
        ("x" * 400, None, r"^data\.template: .* cannot be read \(File name too long\)"),
        ("~nobody-of-this-name/x", None, r"^data\.template: .* cannot be read"),
    ],
)
def test_impossible_templates_are_refused_without_a_tokenizer(setting: str, system: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_template(setting, system)


@pytest.mark.parametrize(
    ("setting", "chat", "message"),
    [
        ("{{ instruction | upper }}", None, "changes the text of the instruction"),
        ("{{ instruction.split('\n')[0] }}", None, "changes the text of the instruction"),
        ("chat", "{{ messages[0].content[:9] }}", "changes the text of the instruction"),
        ("chat", "{{ raise_exception('no system') }}", "no system"),
    ],
)
def test_templates_that_change_instructions_are_refused(setting: str, chat: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_template(setting, None, tokenizer(chat))


def test_a_control_token_that_takes_the_white_space_beside_it_is_refused_in_such_a_place() -> None:
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    full: Any = AutoTokenizer.from_pretrained(TINY)
    full.add_tokens([AddedToken("<|ask|>", rstrip=True, special=True)], special_tokens=True)
    ours = ThinkTokenizer(full)
    assert texts(load_template("<|ask|>{{ instruction }}", None, ours).prompt("a")) == ["[<|ask|>]", "a"]
    with pytest.raises(UserError, match=r"data\.template: .* has other ids for .* as one text"):
        load_template("<|ask|>\n{{ instruction }}", None, ours)


def test_a_model_without_a_chat_template_is_named() -> None:
    ours = tokenizer()
    ours.full.chat_template = None
    with pytest.raises(UserError, match="needs a model with a chat template"):
        load_template("chat", None, ours)


def test_qwens_chat_template_gives_the_ids_that_transformers_gives(qwen_tokenizer: Path) -> None:
    qwen = ThinkTokenizer.load(str(qwen_tokenizer))
    for system in (None, "Think first."):
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": "Solve x + 5 = 12. "})
        theirs = qwen.full.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        ours = qwen.encode_prompts([load_template("chat", system, qwen).prompt("Solve x + 5 = 12. ")])
        assert ours == [list(theirs)]
