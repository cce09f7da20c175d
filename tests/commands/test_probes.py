"""The conversations with which an exported folder is compared have the ids that its chat template gives them."""

import pytest

from commands.probes import SYSTEM, probes
from datamodules.tokens.template import load_template
from tests.datamodules.text.test_exported_template import OMITS, REFUSES
from tests.stand_ins.chat_templates import CHATS, chat_tokenizer

ONE_MESSAGE = "{% set a = messages %}<|im_start|>{{ messages[-1].content }}<|im_end|>\n"


@pytest.mark.parametrize("system", [None, "Be kind."])
@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("setting", ["instruction", "chat", "refuses", "omits", "one message"])
def test_each_probe_has_the_ids_of_the_exported_template(setting: str, name: str, system: str | None) -> None:
    setting = {"refuses": REFUSES, "omits": OMITS, "one message": ONE_MESSAGE}.get(setting, setting)
    if setting != "chat" and (system or name != "qwen1.5"):
        pytest.skip("these templates have no place for a system prompt, and are tried with one tokenizer")
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
