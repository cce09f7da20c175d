"""From `data.template` to a Template: the recipe's template, the model's chat template, or the user's Jinja text.

A template is rendered once, with a mark in place of the instruction, and split at the mark and at the model's control
tokens. So `<|im_start|>` in a template is that token, the same characters in an instruction are text, and rendering a
row only joins texts.
"""

import json
import re
import traceback
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hub
from datamodules.text.chat_rendering import cut_at_names
from datamodules.text.chat_template import SYSTEM_MARK, HistoryReasoning, jinja_code
from datamodules.text.malformed import MalformedResponse
from datamodules.text.segments import TAG_CLOSE, TAG_OPEN, Role, Segment, Template
from errors import UserError, suggest

if TYPE_CHECKING:
    from datamodules.tokens.tokenizer import ThinkTokenizer

INSTRUCTION = "### Instruction: {{ instruction }}\n### Response: "
NAMES = {"instruction": INSTRUCTION}  # "chat" is the other name
INSTRUCTION_MARK = "\ue000\ue001"  # private-use characters: in no template and in no vocabulary
DATE = re.compile(r"""\bstrftime_now\(\s*(?:'([^'\\]*)'|"([^"\\]*)")\s*\)""")  # transformers' function
PROBES = ("Solve x.", "  two lines\n\nand spaces  ", "Say 'a' \"b\" {{ c }} <|d|> & é")


def template_text(setting: str) -> str | None:
    """Return the Jinja text of `data.template`, or None for chat: the model has that text. The text of a chat template
    uses `messages`, that of another template `instruction`.

    Raises UserError for a file that cannot be read, and for a value that is not a name, a file or a Jinja text.
    """
    if setting == "chat":
        return None
    if setting in NAMES:
        return NAMES[setting]
    if "{{" in setting:
        return setting
    try:
        path = Path(setting).expanduser()
        path = path if path.exists() else hub.CHECKOUT / setting
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:  # RuntimeError: the home of an unknown user
        reason = getattr(error, "strerror", None) or error
        raise UserError("data.template", setting, f"cannot be read ({reason})", "give a UTF-8 text file") from error
    if "{instruction}" in setting:
        fix = "write {{ instruction }}"
        raise UserError("data.template", setting, "is not Jinja", fix)
    known = "give instruction, chat, a Jinja file, or a text with {{ instruction }} in it"
    raise UserError("data.template", setting, hub.what_is_there(setting), suggest(setting, [*NAMES, "chat"], known))


def _uses_messages(text: str) -> bool:
    """Whether a Jinja text is a chat template."""
    return bool(re.search(r"\bmessages\b", jinja_code(text)))


def check_template(setting: str, system: str | None) -> None:
    """Check a template without a tokenizer, as far as possible. Raises UserError as `load_template` does."""
    if (text := template_text(setting)) is not None and not _uses_messages(text):
        _require_use(setting, _rendered(setting, text, instruction=INSTRUCTION_MARK, system=SYSTEM_MARK), system)


def _require_use(setting: str, text: str, system: str | None) -> None:
    """Raise UserError if the template omits the instruction or the system prompt."""
    if INSTRUCTION_MARK not in text:
        raise UserError("data.template", _shown(setting), "omits the instruction", "put {{ instruction }} into it")
    if system is not None and SYSTEM_MARK not in text:
        fix = "put {{ system }} into data.template, set data.template chat, or delete data.system"
        raise UserError("data.system", system, "has no place in the template", fix)


def load_template(
    setting: str,
    system: str | None,
    tokenizer: "ThinkTokenizer",
    started: datetime | None = None,
    history_reasoning: HistoryReasoning = "template",
) -> Template:
    """Return the Template of these settings for this model. `started` is the date that it prints, today by default.

    Raises UserError for invalid Jinja (with the line), a template that omits the instruction or the given system
    prompt, a template that changes the instruction, and a model without a chat template.
    """
    text = template_text(setting)
    chat: str | None = None
    if text is None or _uses_messages(text):
        chat = _with_date(text or _own(tokenizer), started or datetime.now())

    def rendered(instruction: str, system: str | None) -> str:
        if chat is not None:
            return _chat(setting, tokenizer, chat, instruction, system)
        return _rendered(setting, str(text), instruction=instruction, system=system)

    _require_use(setting, rendered(INSTRUCTION_MARK, SYSTEM_MARK if system is not None else None), system)
    whole = rendered(INSTRUCTION_MARK, system)
    strips = f" {INSTRUCTION_MARK} " not in rendered(f" {INSTRUCTION_MARK} ", system)
    for probe in PROBES:
        if rendered(probe, system) != whole.replace(INSTRUCTION_MARK, probe.strip() if strips else probe):
            fix = "use {{ instruction }} unchanged, or {{ instruction | trim }}"
            raise UserError("data.template", _shown(setting), "changes the text of the instruction", fix)
    opening = re.search(rf"\s*{re.escape(tokenizer.tags.open)}\s*\Z", whole) if chat is not None else None
    parts = _parts(whole[: opening.start()] if opening else whole, tokenizer)
    prefix: list[Segment | None] = [
        Segment(Role.PROMPT, tokenizer.decode([i]), control=True) for i in tokenizer.prefix_ids
    ]
    with_system = rendered(INSTRUCTION_MARK, SYSTEM_MARK) if chat is None else ""
    has_place = SYSTEM_MARK in with_system and all(
        rendered(INSTRUCTION_MARK, probe) == with_system.replace(SYSTEM_MARK, probe) for probe in PROBES
    )
    system_parts = _parts(with_system, tokenizer) if has_place else []
    if chat is None and parts[: len(prefix)] != prefix:
        # The tokenizer puts it before every text; a chat template writes it itself
        parts, system_parts = prefix + parts, prefix + system_parts if has_place else []
    template = Template(
        tuple(parts),
        strips,
        chat,
        system,
        opening[0] if opening else "",
        begin=len(prefix) if chat is None else 0,
        system_parts=tuple(system_parts),
        tags=tokenizer.tags,
        history_reasoning=history_reasoning,
        names=tuple(tokenizer.control_ids),
        variables=tokenizer.special_names,
    )
    _require_equal_ids(setting, template, tokenizer)
    return _tried_with_turns(template, tokenizer)


def _tried_with_turns(template: Template, tokenizer: "ThinkTokenizer") -> Template:
    """The template with what it cannot do in a conversation. Only rows that need it are dropped for it."""
    question, thought, answer = "First question.", "First thought.", "First answer."
    (last, system), no_system, no_history, drops = ("Last question.", "Be brief."), "", "", False
    try:
        if system not in "".join(one.text for one in template.conversation([], last, system)):
            no_system = "data.template omits the system prompt of the row"
    except MalformedResponse as error:
        no_system = str(error).replace("its messages", "a system prompt")
    written = [TAG_OPEN, Segment(Role.THOUGHT, thought), TAG_CLOSE, Segment(Role.ANSWER, answer)]
    try:
        prompt = template.conversation([(question, written)], last)
        text = "".join(one.text for one in prompt)
        drops = thought not in text
        if not re.search(f"{question}.*{answer}.*{last}", text, re.DOTALL):
            no_history = "data.template omits earlier messages"
        elif tokenizer.encode_prompts([prompt])[0] != tokenizer.full(text, add_special_tokens=False).input_ids:
            no_history = "data.template gives other ids for earlier messages as one text than in parts"
    except MalformedResponse as error:
        no_history = str(error).replace("its messages", "earlier messages")
    return replace(template, no_system=no_system, no_history=no_history, drops_reasoning=drops)


def _require_equal_ids(setting: str, template: Template, tokenizer: "ThinkTokenizer") -> None:
    """Raise UserError if a client that tokenizes a rendered prompt as one text gets other ids than training."""
    prompt = template.prompt(PROBES[0])
    whole = tokenizer.full("".join(segment.text for segment in prompt), add_special_tokens=False).input_ids
    if whole != tokenizer.encode_prompts([prompt])[0]:
        problem = f"has other ids for {tokenizer.full.name_or_path} as one text than in parts"
        fix = "put no white space beside control tokens, or choose another model"
        raise UserError("data.template", _shown(setting), problem, fix)


def _parts(text: str, tokenizer: "ThinkTokenizer") -> list[Segment | None]:
    """The PROMPT segments of a rendered text, with None in place of the mark."""
    return [
        None if part == INSTRUCTION_MARK else Segment(Role.PROMPT, part, control=named)
        for part, named in cut_at_names(text, (INSTRUCTION_MARK, *tokenizer.control_ids))
    ]


def _own(tokenizer: "ThinkTokenizer") -> str:
    """The text of the model's chat template."""
    try:
        text: str = tokenizer.full.get_chat_template()
    except ValueError as error:
        problem = f"needs a model with a chat template, and {tokenizer.full.name_or_path} has none"
        fix = "set data.template instruction, or choose a chat model"
        raise UserError("data.template", "chat", problem, fix) from error
    return text


def _with_date(text: str, day: datetime) -> str:
    """The chat template with this date in place of the current one, or UserError if it computes the date otherwise."""
    text = DATE.sub(lambda found: json.dumps(day.strftime(found[1] or found[2] or "")), text)
    if re.search(r"\bstrftime_now\s*\(", jinja_code(text)):
        problem = "prints the current date in a form that cannot be kept, so no run with it could be resumed"
        raise UserError("data.template", "chat", problem, "give a Jinja text with a constant date")
    return text


def _chat(setting: str, tokenizer: "ThinkTokenizer", chat: str, instruction: str, system: str | None) -> str:
    """The instruction in a chat template. Raises UserError if the template fails."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": instruction})
    try:
        text: str = tokenizer.full.apply_chat_template(
            messages, chat_template=chat, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # of jinja2, or raised by the template, for example for a system turn
        problem = f"fails for {tokenizer.full.name_or_path} ({' '.join(str(error).split())[:200]})"
        fix = "delete data.system, or give another template"
        raise UserError("data.template", _shown(setting), problem, fix) from error
    return text


def _shown(setting: str) -> str:
    return setting if len(setting) < 60 else f"{setting[:60]}…"


def _rendered(setting: str, text: str, **variables: Any) -> str:
    """The Jinja text rendered as transformers renders chat templates. Raises UserError with the wrong line."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    try:
        return environment.from_string(text).render(**variables)
    except Exception as error:  # jinja2's for syntax and undefined names, any other from an expression
        line = getattr(error, "lineno", None)
        if line is None:
            frames = traceback.extract_tb(error.__traceback__)
            line = next((frame.lineno for frame in reversed(frames) if frame.filename == "<template>"), None)
        at_line = f"line {line}, {text.splitlines()[line - 1].strip()!r}: " if line else ""
        problem = f"is wrong in {at_line}{' '.join(str(error).split())}" if at_line else f"is wrong: {error}"
        raise UserError(
            "data.template", _shown(setting), problem, "use the variables instruction and system"
        ) from error
