"""A Template as the Jinja text of a chat template. It renders whole conversations, here and in an exported folder.

Earlier reasoning, in the answers before the last message, is treated by `history_reasoning`: as the template itself
does it, kept as the model wrote it, or dropped up to the last closing tag with the line ends after it, as in Qwen3's.
A template of one instruction (`data.template: instruction`) has no way of its own and keeps it.
"""

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datamodules.text.segments import Segment, Template

HistoryReasoning = Literal["template", "keep", "drop"]
SYSTEM_MARK = "\ue002\ue003"  # stands for a system prompt: private-use characters, in no template and in no vocabulary
# Stand for the tags while a template that would drop them renders kept reasoning
HIDDEN_OPEN, HIDDEN_CLOSE = "\ue004\ue005", "\ue005\ue004"

# Content may be a text or a list of parts, as many clients send it. Only parts of text can be read.
ONE_TEXT = (
    "{%- set ns = namespace(turns=[], system='') -%}{%- for message in messages -%}"
    "{%- set one = namespace(text='', reasoning='') -%}"
    "{%- if message['content'] is string -%}{%- set one.text = message['content'] -%}"
    "{%- else -%}{%- for part in message['content'] or [] -%}"
    "{%- if part['type'] != 'text' -%}"
    "{{ raise_exception('Only text can be read, not ' + part['type'] + '.') }}{%- endif -%}"
    "{%- set one.text = one.text + part['text'] -%}{%- endfor -%}{%- endif -%}"
)
ANSWER, EARLIER_ANSWER = "message['role'] == 'assistant'", "message['role'] == 'assistant' and not loop.last"


def jinja_code(text: str) -> str:
    """The expressions and statements of a Jinja text, without the text between them."""
    after_openings = re.split(r"\{[{%]", text)[1:]
    return "\n".join(re.split(r"[}%]\}", part, maxsplit=1)[0] for part in after_openings)


def chat_template(template: "Template") -> str:
    """Return a Jinja chat template that renders messages as in training.

    For `data.template: chat` it is the model's own template with few changes: a conversation without a system prompt
    gets that of the training, earlier reasoning is treated as in training, and the opening tag at the end is removed,
    because the model has learned to write it. Other templates know no system turn: a system message is put before the
    first instruction.
    """
    return _with_turns(template) if template.chat is None else _of_model(template, template.chat)


def _of_model(template: "Template", chat: str) -> str:
    reads_reasoning = re.search(r"\breasoning_content\b", jinja_code(chat)) is not None
    hides = template.history_reasoning == "keep" and (reads_reasoning or template.tags.close in chat)
    text = ONE_TEXT + _reasoning(template, reads_reasoning and template.history_reasoning == "template", hides)
    if template.history_reasoning == "template" and reads_reasoning and template.tags.close not in chat:
        text += _in_its_field(template)
    untouched = "message['content'] is string and one.text == message['content']"
    if template.history_reasoning == "drop":
        untouched += " and (loop.last or not message['reasoning_content'])"
    text += (
        f"{{%- if {untouched} -%}}{{%- set ns.turns = ns.turns + [message] -%}}"
        "{%- elif one.reasoning -%}{%- set ns.turns = ns.turns + [{'role': message['role'], 'content': one.text,"
        " 'reasoning_content': one.reasoning}] -%}"
        "{%- else -%}{%- set ns.turns = ns.turns + [{'role': message['role'], 'content': one.text}] -%}{%- endif -%}"
        "{%- endfor -%}{%- set messages = ns.turns -%}"
    )
    if template.system is not None:
        turn = f"[{{'role': 'system', 'content': {literal(template.system)}}}]"
        text += f"{{%- if messages[0]['role'] != 'system' -%}}{{%- set messages = {turn} + messages -%}}{{%- endif -%}}"
    text += chat
    changes = f".removesuffix({literal(template.opening)})" if template.opening else ""
    if hides:
        changes += f".replace({literal(HIDDEN_OPEN)}, {literal(template.tags.open)})"
        changes += f".replace({literal(HIDDEN_CLOSE)}, {literal(template.tags.close)})"
    # With trim_blocks, which transformers sets, a set block drops the line break after its tag
    return f"{{% set rendered %}}{text}{{% endset %}}{{{{- rendered{changes} -}}}}" if changes else text


def _with_turns(template: "Template") -> str:
    """The turns of a template of one instruction: each answer is followed by the end token and a line end.

    A system message takes the template's own place for it, if it has one. Else it stands before the first instruction.
    """
    trim = " | trim" if template.strips else ""
    if template.system_parts:
        text = f"(text{trim})"
        with_system, without = (_around(template, some, text) for some in (template.system_parts, template.parts))
        before, after = (f"({one} if ns.system else {two})" for one, two in zip(with_system, without, strict=True))
        joined, used = "ns.system + ('\n\n' if ns.system else '') + one.text", ""
    else:
        before, after = _around(template, template.parts, f"((ns.system + text){trim})")
        joined, used = "ns.system + one.text + '\n\n'", "{%- set ns.system = '' -%}"
    begin = " + ".join(literal(part.text) for part in template.parts[: template.begin] if part) or "''"
    return (
        ONE_TEXT
        + _reasoning(template, in_its_field=False, hides=False)
        + f"{{%- if message['role'] in ['system', 'developer'] -%}}{{%- set ns.system = {joined} -%}}"
        + "{%- else -%}{%- set ns.turns = ns.turns + [[message['role'], one.text]] -%}{%- endif -%}{%- endfor -%}"
        + f"{{{{- {begin} -}}}}"
        + "{%- for role, text in ns.turns -%}"
        + f"{{%- if role == 'user' -%}}{{{{- {before} -}}}}{used}"
        + f"{{%- if add_generation_prompt or not loop.last -%}}{{{{- {after} -}}}}{{%- endif -%}}"
        + "{%- elif role != 'assistant' -%}{{ raise_exception('There is no place for a message of ' + role + '.') }}"
        + "{%- else -%}{% generation %}{{- text + eos_token -}}{% endgeneration %}"
        + "{%- if not loop.last -%}{{- '\n' -}}{%- endif -%}{%- endif -%}{%- endfor -%}"
    )


def _around(template: "Template", parts: Sequence["Segment | None"], content: str) -> tuple[str, str]:
    """The expressions of the texts up to the instruction, and after it: these open the response."""
    last = len(parts) - parts[::-1].index(None)

    def text(part: "Segment | None") -> str:
        if part is None:
            return content
        return " + ns.system + ".join(map(literal, part.text.split(SYSTEM_MARK)))

    before, after = (" + ".join(map(text, some)) or "''" for some in (parts[template.begin : last], parts[last:]))
    return before, after


def _reasoning(template: "Template", in_its_field: bool, hides: bool) -> str:
    """What happens to the reasoning of an answer. A client may send it in a field of its own (`reasoning_content`),
    which is read as a block before the text, unless the template has its own way for the field."""
    opening, closing = literal(template.tags.open), literal(template.tags.close)
    if template.history_reasoning == "drop":
        answer = f"one.text.split({closing})[-1].lstrip('\\n')"
        return (
            f"{{%- if {EARLIER_ANSWER} and {closing} in one.text -%}}{{%- set one.text = {answer} -%}}{{%- endif -%}}"
        )
    text = ""
    if not in_its_field:
        field = "message['reasoning_content']"
        joined = f"{opening} + {field} + {closing} + one.text"
        text = (
            f"{{%- if {ANSWER} and {field} is string and {field} -%}}{{%- set one.text = {joined} -%}}{{%- endif -%}}"
        )
    if hides:
        hidden = f"one.text.replace({opening}, {literal(HIDDEN_OPEN)}).replace({closing}, {literal(HIDDEN_CLOSE)})"
        text += f"{{%- if {EARLIER_ANSWER} -%}}{{%- set one.text = {hidden} -%}}{{%- endif -%}}"
    return text


def _in_its_field(template: "Template") -> str:
    """The blocks of an answer moved into `reasoning_content`, for a template that reads reasoning only there."""
    opening, closing = literal(template.tags.open), literal(template.tags.close)
    before = f"(one.text.split({closing})[:-1] | join({closing})).replace({opening}, '', 1).strip('\\n')"
    return (
        f"{{%- if {ANSWER} and {closing} in one.text -%}}{{%- set one.reasoning = {before} -%}}"
        f"{{%- set one.text = one.text.split({closing})[-1].lstrip('\\n') -%}}{{%- endif -%}}"
    )


def literal(text: str) -> str:
    """Return the text as a string literal of Jinja."""
    return json.dumps(text, ensure_ascii=False)
