"""The conversations with which an exported folder is compared have the ids that its chat template gives them."""

import pytest

from commands.probes import SYSTEM, probes
from datamodules.tokens.template import load_template
from tests.datamodules.text.test_exported_template import OMITS, REFUSES
from tests.stand_ins.chat_templates import CHATS, chat_tokenizer

ONE_MESSAGE = "{% set a = messages %}<|im_start|>{{ messages[-1].content }}<|im_end|>\n"


# The last four have no place for a system prompt, and are tried with one tokenizer
CASES = [
    *(("chat", name, system) for name in CHATS for system in (None, "Be kind.")),
    *((setting, "qwen1.5", None) for setting in ("instruction", REFUSES, OMITS, ONE_MESSAGE)),
]


@pytest.mark.parametrize(("setting", "name", "system"), CASES)
def test_each_probe_has_the_ids_of_the_exported_template(setting: str, name: str, system: str | None) -> None:
    tokenizer = chat_tokenizer(name)
    template = load_template(setting, system, tokenizer)
    found = probes(template, tokenizer)
    assert len(found) == (5 if template.no_history else 6)
    assert [one.messages[0]["role"] for one in found].count("system") == 1
    for one in found:
        ids = tokenizer.full.apply_chat_template(
            list(one.messages), chat_template=template.exported, add_generation_prompt=True, return_dict=False
        )
        assert list(ids) == list(one.ids)
        text = tokenizer.decode(one.ids)
        assert (SYSTEM in text) == (one.messages[0]["role"] == "system")
