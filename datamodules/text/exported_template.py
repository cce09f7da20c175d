"""The chat template of an exported folder: that of training, for clients that send more than training did.

It marks what the assistant wrote with `{% generation %}`, so that `return_assistant_tokens_mask` of transformers finds
it. A model's own template is a program that cannot be cut at the answers. So it is rendered three times: as it is; with
a mark at the end of each answer; and with a mark in place of each answer, which shows where the answers begin. If the
three texts do not fit each other, the conversation stands there without marks.

A system message that the model's own template refuses or omits stands before the first instruction. The role
`developer`, as newer clients call it, means the same.
"""

from typing import TYPE_CHECKING

from datamodules.text.chat_template import literal

if TYPE_CHECKING:
    from datamodules.text.segments import Template

ANSWER_MARK = "\ue006\ue007"  # private-use characters, in no template and in no vocabulary

TEXT = (
    "{%- macro text_of(message) -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] or [] -%}"
    "{%- if part['type'] != 'text' -%}"
    "{{ raise_exception('Only text can be read, not ' + part['type'] + '.') }}{%- endif -%}"
    "{{- part['text'] -}}{%- endfor -%}{%- endif -%}{%- endmacro -%}"
)
SYSTEM_FIRST = (
    "{%- if messages | length > 1 and messages[0]['role'] in ['system', 'developer']"
    " and messages[1]['role'] == 'user' -%}"
    "{%- set first = text_of(messages[0]) + '\n\n' + text_of(messages[1]) -%}"
    "{%- set messages = [{'role': 'user', 'content': first}] + messages[2:] -%}{%- endif -%}"
)
DEVELOPER = (
    "{%- if messages[0]['role'] == 'developer' -%}"
    "{%- set messages = [{'role': 'system', 'content': messages[0]['content']}] + messages[1:] -%}{%- endif -%}"
)


def exported_template(template: "Template") -> str:
    """Return the Jinja text. Its ids for the messages of a training row equal those of training."""
    if template.chat is None:
        return template.chat_template  # it writes the turns itself, marks them and has a place for a system message
    whole = template.chat_template.removesuffix("\n")  # as Jinja ends a template, but not a macro
    system = SYSTEM_FIRST if template.no_system else "" if "developer" in template.chat else DEVELOPER
    return f"{TEXT}{{%- macro whole(messages) -%}}{whole}{{{{ '' }}}}{{% endmacro %}}{system}" + _marked(template)


def _marked(template: "Template") -> str:
    """The conversation with its marks. `heads` are the texts before each answer, and the text after the last one."""
    mark, opening = literal(ANSWER_MARK), literal(template.tags.open)
    empty = literal(template.tags.open + template.tags.close)
    return (
        "{%- set ns = namespace(ended=[], asked=[], ends=[], heads=[], answers=[], rest='', fits=true) -%}"
        "{%- for message in messages -%}"
        "{%- if message['role'] != 'assistant' -%}"
        "{%- set ns.ended = ns.ended + [message] -%}{%- set ns.asked = ns.asked + [message] -%}"
        "{%- else -%}{%- set text = text_of(message) -%}"
        "{%- if not text.strip() or message['tool_calls'] -%}{%- set ns.fits = false -%}{%- endif -%}"
        "{%- set end = text[text.rstrip() | length:] -%}{%- set ns.ends = ns.ends + [end] -%}"
        f"{{%- set text = text.rstrip() + {mark} + end -%}}"
        "{%- if message['reasoning_content'] is string -%}{%- set ns.ended = ns.ended + [{'role': 'assistant',"
        " 'content': text, 'reasoning_content': message['reasoning_content']}] -%}"
        "{%- else -%}{%- set ns.ended = ns.ended + [{'role': 'assistant', 'content': text}] -%}{%- endif -%}"
        f"{{%- set ns.asked = ns.asked + [{{'role': 'assistant', 'content': {mark}}}] -%}}"
        "{%- endif -%}{%- endfor -%}"
        "{%- set text = whole(messages) -%}"
        "{%- if not ns.ends -%}{%- set ns.fits = false -%}{%- endif -%}"
        "{%- if ns.fits -%}"
        "{%- set ns.rest = whole(ns.ended) -%}"
        f"{{%- for head in whole(ns.asked).split({mark}) -%}}"
        # Some templates write an empty thought before an answer that has none
        f"{{%- set before = head.split({opening})[:-1] | join({opening}) -%}}"
        f"{{%- set ns.heads = ns.heads + [before if head[before | length:].replace('\n', '') == {empty}"
        " else head] -%}{%- endfor -%}"
        f"{{%- set ns.fits = ns.rest.replace({mark}, '') == text and ns.heads | length == ns.ends | length + 1 -%}}"
        "{%- endif -%}"
        "{%- for end in ns.ends -%}"
        f"{{%- if ns.fits and ns.rest.startswith(ns.heads[loop.index0]) and {mark} in ns.rest -%}}"
        "{%- set rest = ns.rest[ns.heads[loop.index0] | length:] -%}"
        f"{{%- set answer = rest.split({mark})[0] -%}}"
        f"{{%- set rest = rest[(answer + {mark}) | length:] -%}}"
        # Some templates strip an answer
        "{%- set kept = end if rest.startswith(end + ns.heads[loop.index]) else '' -%}"
        "{%- set ns.answers = ns.answers + [answer + kept] -%}{%- set ns.rest = rest[kept | length:] -%}"
        "{%- else -%}{%- set ns.fits = false -%}{%- endif -%}{%- endfor -%}"
        "{%- if ns.fits and ns.rest == ns.heads[-1] -%}"
        "{{- ns.heads[0] -}}"
        "{%- for answer in ns.answers -%}"
        "{%- set after = ns.heads[loop.index] -%}{%- set end = eos_token if after.startswith(eos_token) else '' -%}"
        "{% generation %}{{- answer + end -}}{% endgeneration %}{{- after[end | length:] -}}"
        "{%- endfor -%}"
        "{%- else -%}{{- text -}}{%- endif -%}"
    )
