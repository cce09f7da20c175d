"""Chat templates that behave as the published ones of known models do, without tools, and tokenizers for them."""

from functools import cache
from typing import Any, NamedTuple

from datamodules.tokens.tokenizer import ThinkTokenizer
from tests.stand_ins.base import CHAT_TEMPLATE, TINY

QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n"
    "{%- else %}\n"
    "    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. "
    "You are a helpful assistant.<|im_end|>\\n' }}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    '    {%- if (message.role == "user") or (message.role == "system" and not loop.first)'
    ' or (message.role == "assistant" and not message.tool_calls) %}\n'
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n"
)
# Writes the reasoning of answers after the last message of the user only
QWEN3 = (
    "{%- if messages[0].role == 'system' %}\n"
    "    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\n"
    "{%- endif %}\n"
    "{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}\n"
    "{%- for message in messages[::-1] %}\n"
    '    {%- if ns.searching and message.role == "user" and message.content is string %}\n'
    "        {%- set ns.searching = false %}\n"
    "        {%- set ns.last_query = (messages|length - 1) - loop.index0 %}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- for message in messages %}\n"
    "    {%- set content = message.content if message.content is string else '' %}\n"
    '    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}\n'
    "        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}\n"
    '    {%- elif message.role == "assistant" %}\n'
    "        {%- set reasoning_content = '' %}\n"
    "        {%- if message.reasoning_content is string %}\n"
    "            {%- set reasoning_content = message.reasoning_content %}\n"
    "        {%- elif '</think>' in content %}\n"
    "            {%- set reasoning_content = "
    "content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n"
    "            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n"
    "        {%- endif %}\n"
    "        {%- if loop.index0 > ns.last_query and (loop.last or reasoning_content) %}\n"
    "            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n')"
    " + '\\n</think>\\n\\n' + content.lstrip('\\n') }}\n"
    "        {%- else %}\n"
    "            {{- '<|im_start|>' + message.role + '\\n' + content }}\n"
    "        {%- endif %}\n"
    "        {{- '<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}\n"
    "        {{- '<think>\\n\\n</think>\\n\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endif %}\n"
)
LLAMA3 = (
    "{% for message in messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
R1 = (
    "{% set ns = namespace(system_prompt='') %}{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}"
    "{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}"
    "{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
# Reads reasoning from its field only, as Kimi K2's does, and keeps it
REASONING_FIELD = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}{{ '<think>' + message.reasoning_content + '</think>\n' }}{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Chat(NamedTuple):
    """A chat template with the tokens of its model."""

    template: str
    eos: str = "<|im_end|>"
    bos: str | None = None
    controls: tuple[str, ...] = ()
    has_tags: bool = False  # <think> and </think> are tokens of the model


CHATS = {
    "qwen1.5": Chat(CHAT_TEMPLATE),
    "qwen2.5": Chat(QWEN25),
    "qwen3": Chat(QWEN3, has_tags=True),
    "llama3": Chat(
        LLAMA3, "<|eot_id|>", "<|begin_of_text|>",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "r1": Chat(
        R1, "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>",
        ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"), has_tags=True,
    ),
    "reasoning field": Chat(REASONING_FIELD.replace("'</think>", "'</' + 'think>")),
}  # fmt: skip


@cache
def chat_tokenizer(name: str) -> ThinkTokenizer:
    """The tokenizer of the embedded model with the chat template and the control tokens of another model."""
    from tokenizers import AddedToken
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    chat = CHATS[name]
    full: Any = AutoTokenizer.from_pretrained(TINY)
    full.add_tokens([AddedToken(token, special=True, normalized=False) for token in chat.controls], special_tokens=True)
    if chat.has_tags:
        full.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<think>", "</think>")])
    full.chat_template, full.eos_token = chat.template, chat.eos
    if chat.bos:
        full.bos_token = chat.bos
        begin = full.convert_tokens_to_ids(chat.bos)
        full.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{chat.bos} $A", special_tokens=[(chat.bos, begin)]
        )
    return ThinkTokenizer(full)
