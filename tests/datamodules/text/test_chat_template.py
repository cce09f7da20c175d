"""The Jinja text of a Template, which renders conversations in training and in an exported folder."""

from typing import Any

import pytest

from datamodules.tokens.template import load_template
from datamodules.tokens.tokenizer import ThinkTokenizer


@pytest.mark.parametrize("setting", ["instruction", 'Q: "{{ instruction | trim }}" \\n\n\nA:', "{{ instruction }}"])
def test_the_chat_template_renders_prompts_and_turns(setting: str, tiny_tokenizer: ThinkTokenizer) -> None:
    template = load_template(setting, None, tiny_tokenizer)
    full = tiny_tokenizer.full
    text, end = template.chat_template, str(full.eos_token)

    def rendered(*messages: dict[str, Any], ask: bool = True) -> str:
        shown: str = full.apply_chat_template(
            list(messages), chat_template=text, tokenize=False, add_generation_prompt=ask
        )
        return shown

    tricky = ' Say "{{ hi }}"\n\\n <think> '
    prompt = "".join(segment.text for segment in template.prompt(tricky))
    user, seven = {"role": "user", "content": tricky}, {"role": "assistant", "content": "7"}
    assert rendered(user) == prompt
    assert prompt.startswith(rendered(user, ask=False))
    assert (rendered(user, ask=False) == prompt) == (setting == "{{ instruction }}")
    assert rendered(user, seven) == rendered(user, seven, ask=False) == f"{prompt}7{end}"
    assert rendered(user, seven, user) == f"{prompt}7{end}\n{prompt}"
    parts = {"role": "user", "content": [{"type": "text", "text": tricky[:4]}, {"type": "text", "text": tricky[4:]}]}
    assert rendered(parts) == prompt
    brief = "".join(segment.text for segment in template.prompt(f"Be brief.\n\n{tricky}"))
    assert rendered({"role": "system", "content": "Be brief."}, user) == brief
    system = {"role": "developer", "content": "Be brief."}
    assert rendered(system, seven, user) == f"7{end}\n{brief}"
    assert rendered(user, {"role": "assistant", "content": None}) == f"{prompt}{end}"
    with pytest.raises(Exception, match="There is no place for a message of tool"):
        rendered(user, {"role": "tool", "content": "7"})
    with pytest.raises(Exception, match="Only text can be read, not image"):
        rendered({"role": "user", "content": [{"type": "image", "url": "x"}]})
