"""The tokenizer in a GGUF file: tokens with their types, merges, and the ids with a meaning."""

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datamodules.text.segments import Template
from datamodules.tokens.tokenizer import ThinkTokenizer
from errors import UserError
from lightning_modules.gguf.pre_tokenizer import find_pre_tokenizer

if TYPE_CHECKING:
    from gguf import GGUFWriter

log = logging.getLogger("thinkwright")
# A list of ids that are never written. llama.cpp reads it since 2026, other programs and the gguf package do not
SUPPRESSED = "tokenizer.ggml.suppress_tokens"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a file, one for each row of the embedding."""

    tokens: list[str]
    types: list[int]  # of gguf.TokenType
    merges: list[str]


def vocabulary(tokenizer: ThinkTokenizer, rows: int, ends: tuple[int, ...]) -> Vocabulary:
    """Return the tokens of an embedding with this many rows.

    Control tokens and the ends of a response are CONTROL: llama.cpp does not show them. Tags and new tokens are
    USER_DEFINED: they are shown, and a client can tell thoughts from the answer. Ids beyond the tokenizer are UNUSED.
    """
    from gguf import TokenType

    full = tokenizer.full
    names = {i: token for token, i in full.get_vocab().items()}
    added = full.added_tokens_decoder
    tokens, types = [], []
    for i in range(rows):
        if i not in names:
            tokens.append(_free_name(i, names))
            types.append(int(TokenType.UNUSED))
            continue
        control = i in ends or (i in added and added[i].special)
        kind = TokenType.CONTROL if control else TokenType.USER_DEFINED if i in added else TokenType.NORMAL
        tokens.append(added[i].content if i in added else names[i])
        types.append(int(kind))
    merges = json.loads(full.backend_tokenizer.to_str())["model"]["merges"]
    return Vocabulary(tokens, types, [one if isinstance(one, str) else " ".join(one) for one in merges])


def _free_name(i: int, names: dict[int, str]) -> str:
    """Return a name for an id without a token. No two tokens of a file may have one name."""
    name = f"[PAD{i}]"
    while name in names.values():
        name += "_"
    return name


def write_vocabulary(
    writer: "GGUFWriter", tokenizer: ThinkTokenizer, template: Template, rows: int, generation: Any
) -> None:
    """Write the tokenizer with the chat template. `generation` is the generation config of the export.

    Raises UserError for a tokenizer that llama.cpp does not compute alike.
    """
    ends = tuple(generation.eos_token_id)
    found = vocabulary(tokenizer, rows, ends)
    writer.add_tokenizer_model("gpt2")  # llama.cpp's name for byte-level BPE
    writer.add_tokenizer_pre(find_pre_tokenizer(tokenizer.full))
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.types)
    writer.add_token_merges(found.merges)
    begin = tokenizer.full.bos_token_id
    if tokenizer.prefix_ids not in ([], [begin]):
        problem = "the tokenizer of the base puts more than a beginning-of-text token before a text"
        raise UserError("--gguf", None, problem, "export without --gguf, for transformers or vLLM")
    if begin is not None:
        writer.add_bos_token_id(begin)
    writer.add_add_bos_token(bool(tokenizer.prefix_ids))
    writer.add_add_eos_token(False)
    writer.add_eos_token_id(tokenizer.end_id)
    others = [i for i in ends if i != tokenizer.end_id]
    writer.add_eot_token_id(others[0] if others else tokenizer.end_id)
    if len(others) > 1:
        writer.add_eom_token_id(others[1])
    if len(others) > 2:  # llama.cpp knows the usual ones by their names
        log.warning(f"a GGUF file has places for 3 ids that end a response; not in it: {others[2:]}")
    writer.add_pad_token_id(generation.pad_token_id)
    if generation.suppress_tokens:
        writer.add_array(SUPPRESSED, generation.suppress_tokens)
    writer.add_chat_template(template.exported)
