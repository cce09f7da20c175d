"""From `data.template` to a Template: the recipe's own, the model's chat template, or a Jinja text of the user's.

A template is rendered once, with a mark where the instruction goes, and taken apart at the mark and at the model's
control tokens. So rendering a row is putting texts together, `<|im_start|>` in a template is that token, and the same
characters typed into an instruction are text.
"""

import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hub
from datamodules.text.segments import Role, Segment, Template
from errors import UserError, did_you_mean

if TYPE_CHECKING:
    from datamodules.tokens.tokenizer import ThinkTokenizer

INSTRUCTION = "### Instruction: {{ instruction }}\n### Response: "
NAMED = {"instruction": INSTRUCTION}  # beside "chat"
MARK = "\ue000\ue001"  # of a private use area: in no template and in no vocabulary
SYSTEM_MARK = "\ue002\ue003"
PROBES = ("Solve x.", "  two lines\n\nand spaces  ", "Say 'a' \"b\" {{ c }} <|d|> & é")


def template_text(setting: str) -> str | None:
    """The Jinja text behind `data.template`; None for chat, whose text the model has.

    Raises UserError for a file that cannot be read, and for what is neither a name nor a file nor Jinja.
    """
    if setting == "chat":
        return None
    if setting in NAMED:
        return NAMED[setting]
    if "{{" in setting:
        return setting
    path = Path(setting).expanduser()
    path = path if path.exists() else hub.CHECKOUT / setting
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError("data.template", setting, f"cannot be read ({error})", "give a UTF-8 text file") from error
    if "{instruction}" in setting:
        fix = "write {{ instruction }}; the response follows the template directly"
        raise UserError("data.template", setting, "is not Jinja", fix)
    near = did_you_mean(setting, [*NAMED, "chat"])
    known = "give instruction, chat, a Jinja file, or a text with {{ instruction }} in it"
    raise UserError("data.template", setting, "does not exist", f"did you mean {near}?" if near else known)


def check_template(setting: str, system: str | None) -> None:
    """What can be said before there is a tokenizer. Raises UserError as `load_template` does."""
    if (text := template_text(setting)) is not None:
        _require_use(setting, _rendered(setting, text, instruction=MARK, system=SYSTEM_MARK), system)


def _require_use(setting: str, text: str, system: str | None) -> None:
    """Raises UserError where the instruction or the system prompt would be left out without a word."""
    if MARK not in text:
        raise UserError("data.template", setting, "leaves the instruction out", "put {{ instruction }} into it")
    if system is not None and SYSTEM_MARK not in text:
        fix = "put {{ system }} into data.template, choose the template chat, or leave data.system out"
        raise UserError("data.system", system, "has no place in the template", fix)


def load_template(setting: str, system: str | None, tokenizer: "ThinkTokenizer") -> Template:
    """The Template of these settings for this model.

    Raises UserError for Jinja that is wrong (with the line), a template without a place for the instruction or for a
    system prompt that is given, one that changes instructions, and a model without a chat template.
    """
    text = template_text(setting)

    def rendered(instruction: str, system: str | None) -> str:
        if text is None:
            return _chat(tokenizer, instruction, system)
        return _rendered(setting, text, instruction=instruction, system=system)

    _require_use(setting, rendered(MARK, SYSTEM_MARK if system is not None else None), system)
    whole = rendered(MARK, system)
    strips = f" {MARK} " not in rendered(f" {MARK} ", system)
    for probe in PROBES:
        if rendered(probe, system) != whole.replace(MARK, probe.strip() if strips else probe):
            fix = "use {{ instruction }} as it is, or {{ instruction | trim }}"
            raise UserError("data.template", setting, "makes something else of an instruction than its text", fix)
    opening = re.search(rf"\s*{re.escape(tokenizer.tags.open)}\s*\Z", whole) if text is None else None
    parts = _parts(whole[: opening.start()] if opening else whole, tokenizer)
    prefix: list[Segment | None] = [
        Segment(Role.PROMPT, tokenizer.decode([i]), control=True) for i in tokenizer.prefix_ids
    ]
    if text is not None and parts[: len(prefix)] != prefix:
        parts = prefix + parts  # what the tokenizer puts before every text; chat templates write it themselves
    return Template(tuple(parts), strips, text is None, system, opening[0] if opening else "")


def _parts(text: str, tokenizer: "ThinkTokenizer") -> list[Segment | None]:
    names = sorted(tokenizer.control_ids, key=len, reverse=True)
    parts: list[Segment | None] = []
    for piece in re.split(f"({'|'.join(map(re.escape, [MARK, *names]))})", text):
        if piece == MARK:
            parts.append(None)
        elif piece:
            parts.append(Segment(Role.PROMPT, piece, control=piece in tokenizer.control_ids))
    return parts


def _chat(tokenizer: "ThinkTokenizer", instruction: str, system: str | None) -> str:
    if not tokenizer.full.chat_template:
        problem = f"needs a model with a chat template, and {tokenizer.full.name_or_path} has none"
        raise UserError("data.template", "chat", problem, "set data.template instruction, or choose a chat model")
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": instruction})
    try:
        text: str = tokenizer.full.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja2's, by what is wrong; a template may refuse a system turn by raising
        problem = f"of {tokenizer.full.name_or_path} fails ({' '.join(str(error).split())[:200]})"
        raise UserError("data.template", "chat", problem, "leave data.system out, or give a template") from error
    return text


def _rendered(setting: str, text: str, **variables: Any) -> str:
    """Jinja as transformers renders chat templates. Raises UserError with the line that is wrong."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    try:
        return environment.from_string(text).render(**variables)
    except Exception as error:  # syntax and undefined names are jinja2's, the rest whatever an expression raises
        line = getattr(error, "lineno", None)
        if line is None:
            frames = traceback.extract_tb(error.__traceback__)
            line = next((frame.lineno for frame in reversed(frames) if frame.filename == "<template>"), None)
        where = f"line {line}, {text.splitlines()[line - 1].strip()!r}: " if line else ""
        problem = f"is wrong in {where}{' '.join(str(error).split())}" if where else f"is wrong: {error}"
        shown = setting if len(setting) < 60 else f"{setting[:60]}…"
        raise UserError(
            "data.template", shown, problem, "instruction and system are the variables there are"
        ) from error
