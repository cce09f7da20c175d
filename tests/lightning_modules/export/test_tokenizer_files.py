"""The tokenizer of an exported folder."""

from pathlib import Path

import pytest

from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import ThinkTokenizer
from tests.conftest import TINY

R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}<|im_start|>{{ m['content'] | trim }}"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_end|><think>\\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    "setting", ["instruction", "chat", "r1", "<|im_start|>Ask: {{ instruction }}<|im_end|>\nSay: "]
)
@pytest.mark.parametrize("system", [None, 'Be brief. Don\'t say "no".'])
def test_the_exported_tokenizer_gives_the_ids_of_training(setting: str, system: str | None, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    full = AutoTokenizer.from_pretrained(TINY)
    if setting == "r1":  # a template that opens the block itself, trims and needs a beginning-of-text token
        full.chat_template, full.bos_token, setting = R1, "<|endoftext|>", "chat"
    if system and setting != "chat":
        setting = "{{ system }}\n" + setting.replace("instruction", "{{ instruction }}", setting == "instruction")
    tokenizer = ThinkTokenizer(full)
    template = load_template(setting, system, tokenizer)
    full.chat_template = template.exported
    full.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for instruction in ("Solve x + 5 = 12", "  two lines\n\nhere, é and 好。 "):
        ours = tokenizer.encode_prompts([template.prompt(instruction)])[0]
        theirs = again.apply_chat_template(
            [{"role": "user", "content": instruction}], add_generation_prompt=True, return_dict=False
        )
        assert list(theirs) == ours, again.decode(theirs)
        assert tokenizer.open_id not in ours
