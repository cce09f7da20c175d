"""The model's tokenizer with the think tags, and Segments -> token ids and roles.

Two tokenizers come from one file. `full` knows the tags and the control tokens: it decodes, exports and gives the ids.
The encoder's tokenizer knows neither, so no text of a row can become a tag or `<|im_end|>`. Both know the tokens of
`data.new_tokens`, which are words and may occur in any text.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from datamodules.text.segments import Role, Segment
from datamodules.text.tags import Tags
from errors import UserError
from hub import model_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

# A tokenizer that adds a space to a text, deletes one, or lacks a character does not give these texts back. The first
# ones have no space at their edges. All are in Unicode's form NFC, into which many tokenizers bring a text.
PROBES = (
    "Wait, 12.5% of 1,000 isn't 120:", "x", "y", "-", "word", "▁low", "Ġx", "好。", "été🙂", "\u200b", "\x01",
    "\n\n\t- x² = \\frac{1}{2}…  ", " ", "\n", "  two", "a  b ", "\u00a0x", "¿Qué? ",
)  # fmt: skip
# Follows each text of a row. The texts of a row are tokenized as one list of words. That is faster than one by one,
# and no text merges with another. It is a special token of one character, the last of the private-use area.
SEPARATOR = "\U0010fffd"
TEXT = -1  # stands for the ids of a text segment; other segments have one id each


@dataclass(frozen=True)
class Encoder:
    """Segments -> token ids and roles. It needs no transformers, so worker processes start quickly."""

    text_tokenizer: "Tokenizer"  # reads everything as text, except for SEPARATOR and the tokens of data.new_tokens
    fixed: dict[Role, int]  # the ids of the roles that are one token
    control_ids: dict[str, int]  # the ids of the tokens that a template may name
    renumbered: dict[int, int]  # ids of data.new_tokens in `text_tokenizer` -> ids of the model
    # The names of the model's other tokens, which stay text in a row -> whether it is a control token
    typed_tokens: dict[str, bool] = field(default_factory=dict)

    @cached_property
    def typed_pattern(self) -> re.Pattern[str]:
        """The pattern of a name in `typed_tokens`."""
        names = sorted(self.typed_tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names)) or "(?!)")

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text. Tags and control tokens in a text are read as text."""
        encoded = self._encode(texts)
        return [[self.renumbered.get(i, i) for i in ids] for ids in encoded] if self.renumbered else encoded

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        self.text_tokenizer.encode_special_tokens = True  # as text; set at each use because pickle loses it
        return [encoding.ids for encoding in self.text_tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_rows(self, rows: Sequence[Sequence[Segment]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (ids (T,) int32, roles (T,) int8) of each row. All rows are tokenized in one batch."""
        controls = self.control_ids
        fixed = [self.fixed.get(role, TEXT) for role in Role]  # a list, because a dict lookup of an Enum is slow
        known = [[controls[text] if control else fixed[role] for role, text, control in row] for row in rows]
        texts = [
            [segment[1] for segment, one in zip(row, ids, strict=True) if one == TEXT]
            for row, ids in zip(rows, known, strict=True)
        ]
        separator_id: int = self.text_tokenizer.token_to_id(SEPARATOR)  # type: ignore[assignment]
        if any(SEPARATOR in text for row_texts in texts for text in row_texts):  # a row contains that character
            encoded: list[list[int]] = [
                [i for ids in self._encode(row_texts) for i in (*ids, separator_id)] for row_texts in texts
            ]
        else:
            self.text_tokenizer.encode_special_tokens = False
            words = [[word for text in row_texts for word in (text, SEPARATOR)] for row_texts in texts]
            batch = self.text_tokenizer.encode_batch_fast(words, is_pretokenized=True, add_special_tokens=False)
            encoded = [encoding.ids for encoding in batch]
        return [_join(*row, separator_id, self.renumbered) for row in zip(rows, known, encoded, strict=True)]


def _join(
    row: Sequence[Segment], known: list[int], encoded: list[int], separator_id: int, renumbered: dict[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The ids and roles of a row, from `known` (one id or TEXT for each segment) and `encoded` (the ids of all texts,
    with a separator after each)."""
    text_ids, segment_ids = np.array(encoded, np.int32), np.array(known, np.int32)
    counts = np.ones(len(known), np.int64)
    counts[segment_ids == TEXT] = np.diff(np.flatnonzero(text_ids == separator_id), prepend=-1) - 1
    ids = np.repeat(segment_ids, counts)
    text_ids = text_ids[text_ids != separator_id]
    if renumbered:
        text_ids = np.array([renumbered.get(i, i) for i in text_ids.tolist()], np.int32)
    ids[ids == TEXT] = text_ids
    return ids, np.repeat(np.frombuffer(bytes([segment[0] for segment in row]), np.int8), counts)


class ThinkTokenizer:
    """The tokenizer of transformers (`full`) with the tags and the new tokens, and the `encoder` of rows.

    `new_ids` are the ids of the added tags and tokens, empty if the model already has all of them (Qwen3, R1 distils).
    `subtoken_ids` are the ids that spelled each of them before. They are added as ordinary tokens: special tokens would
    vanish from decoded text and replace `<|im_start|>` among the special tokens.
    """

    def __init__(
        self,
        full: "PreTrainedTokenizerFast",
        tags: Tags = Tags(),  # noqa: B008 (frozen)
        new_tokens: Sequence[str] = (),
    ) -> None:
        if full.eos_token_id is None:
            raise UserError(
                "model.name",
                full.name_or_path,
                "has a tokenizer without an end-of-sequence token",
                "choose another model",
            )
        from tokenizers import AddedToken

        _check_tags(full, tags)
        _check_new_tokens(full, tags, new_tokens)
        self.base_size = len(full)
        text_tokenizer = _text_tokenizer(full)
        names = [tags.open, tags.close, *new_tokens]
        before = [encoding.ids for encoding in text_tokenizer.encode_batch_fast(names, add_special_tokens=False)]
        full.add_tokens([AddedToken(name, normalized=False) for name in names])
        text_tokenizer.add_tokens([AddedToken(name, normalized=False) for name in new_tokens])
        self.full, self.tags = full, tags
        ids: list[int] = full.convert_tokens_to_ids(names)
        self.open_id, self.close_id, *own_ids = ids
        self.end_id: int = full.eos_token_id
        new = {i: subtokens for i, subtokens in zip(ids, before, strict=True) if i >= self.base_size}
        self.new_ids, self.subtoken_ids = list(new), list(new.values())
        self.control_ids: dict[str, int] = {
            token.content: i for i, token in full.added_tokens_decoder.items() if not token.content.isspace()
        }
        fixed = {Role.TAG_OPEN: self.open_id, Role.TAG_CLOSE: self.close_id, Role.END: self.end_id}
        renumbered = {
            int(text_tokenizer.token_to_id(name) or 0): i for name, i in zip(new_tokens, own_ids, strict=True)
        }
        special = {*full.all_special_tokens, *(t.content for t in full.added_tokens_decoder.values() if t.special)}
        typed = {name: name in special for name in self.control_ids if name not in names}
        self.encoder = Encoder(text_tokenizer, fixed, self.control_ids, renumbered, typed)
        # What a chat template may name, like eos_token
        self.special_names: dict[str, str | list[str]] = {
            name: str(token) if not isinstance(token, list) else [str(one) for one in token]
            for name, token in full.special_tokens_map.items()
        }
        # The tokenizer puts these before every text: none for Qwen, <|begin_of_text|> for Llama
        self.prefix_ids: list[int] = full("").input_ids
        if self.new_ids != sorted(self.new_ids) or not self._encodes_parts():
            raise UserError(
                "model.name",
                full.name_or_path,
                "has a tokenizer that cannot tokenize a text in parts",
                "choose a byte-level BPE model (Qwen, Llama 3, SmolLM)",
            )

    @classmethod
    @cache
    def load(
        cls,
        name: str,
        revision: str | None = None,
        tags: Tags = Tags(),  # noqa: B008
        new_tokens: tuple[str, ...] = (),
    ) -> "ThinkTokenizer":
        """Load from a model's folder or hub id. Raises UserError as `hub.model_folder`, and for a broken tokenizer."""
        from transformers import AutoTokenizer

        folder = model_folder(name, revision)
        try:
            return cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), tags, new_tokens)
        except UserError:
            raise
        except Exception as error:  # OSError, ValueError, KeyError or one of the hub's
            raise UserError(
                "model.name", name, f"has no readable tokenizer ({error})"[:300], "give a folder with tokenizer.json"
            ) from error

    def __len__(self) -> int:
        """Return the number of tokens. The embedding matrix of the model may be larger."""
        return len(self.full)

    @cached_property
    def fingerprint(self) -> str:
        """A hash that is equal for tokenizers that give equal ids."""
        state = self.full.backend_tokenizer.to_str()
        # Truncation and padding come first, and a use of the tokenizer may set them. The post-processor and the decoder
        # stand before the model; `prefix_ids` are all that the former adds.
        tokens_and_cuts = state[state.index('"added_tokens":') : state.index('"post_processor":')]
        model = state[state.index('"model":', state.index('"post_processor":')) :]
        # Another release of tokenizers may cut otherwise: the ids of a few texts show it
        known = [tokens_and_cuts, model, str([self.prefix_ids, [*self.encoder.fixed.values()], self.encode(PROBES)])]
        return hashlib.sha256("\0".join(known).encode()).hexdigest()[:16]

    def _encodes_parts(self) -> bool:
        """Whether texts that are tokenized apart give the ids and the text of the whole, as the ids of a row must."""
        ids = self.encode(PROBES)
        apart = [i for part in ids for i in part]
        (in_a_row, _), *_ = self.encoder.encode_rows([[Segment(Role.ANSWER, text) for text in PROBES]])
        alone = all(self.decode(part) == text for part, text in zip(ids, PROBES, strict=True))
        if not alone or in_a_row.tolist() != apart or self.decode(apart) != "".join(PROBES):
            return False
        # A client tokenizes a prompt as one text, with its control tokens in it
        end = str(self.full.eos_token)
        whole = self.full(f"{PROBES[0]}{end}{PROBES[4]}", add_special_tokens=False).input_ids
        return bool(whole == [*ids[0], self.end_id, *ids[4]])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, by the encoder."""
        return self.encoder.encode(texts)

    def encode_prompts(self, prompts: Sequence[Sequence[Segment]]) -> list[list[int]]:
        """Return the ids of each prompt, equal to the ids of the prompt in a training row."""
        return [ids.tolist() for ids, _ in self.encoder.encode_rows(prompts)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of these ids, special tokens included."""
        text: str = self.full.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text


def _check_tags(full: "PreTrainedTokenizerFast", tags: Tags) -> None:
    """Raise UserError for a tag that a text could become, or that has another meaning for the model."""
    known, added = full.get_vocab(), {token.content: token.special for token in full.added_tokens_decoder.values()}
    controls = {*full.all_special_tokens, *(name for name, special in added.items() if special)}
    for key, name in (("open", tags.open), ("close", tags.close)):
        if name in controls:
            problem = "is a control token of the model"
        elif clash := next((token for token in controls if token in name), None):
            problem = f"contains {clash}, a control token of the model"
        elif (name in known and name not in added) or SEPARATOR in name:
            problem = "is an ordinary token of the model, so a text could become a tag"
        else:
            continue
        raise UserError(f"data.tags.{key}", name, problem, "give tags like <think> and </think>")


def _check_new_tokens(full: "PreTrainedTokenizerFast", tags: Tags, new_tokens: Sequence[str]) -> None:
    """Raise UserError for a token that is ambiguous beside the others, or that the model already has."""
    known, added = full.get_vocab(), {token.content for token in full.added_tokens_decoder.values()}
    for k, name in enumerate(new_tokens):
        others = [tags.open, tags.close, *new_tokens[:k]]
        if not name.strip() or SEPARATOR in name:
            problem, fix = "is not a token", "give texts like <step>"
        elif name in full.all_special_tokens:
            problem, fix = "is a control token of the model", "delete it: a template may name it"
        elif name in known and name not in added:
            problem, fix = "is already a token of the model", "delete it"
        elif clash := next((other for other in others if name in other or other in name), None):
            problem, fix = f"is part of {clash}, or contains it", "give tokens that are not part of each other"
        else:
            continue
        raise UserError("data.new_tokens", name, problem, fix)


def _text_tokenizer(full: "PreTrainedTokenizerFast") -> "Tokenizer":
    """The same tokenizer with SEPARATOR and without its added tokens, except runs of white space, which some models add
    for efficiency."""
    from tokenizers import AddedToken, Tokenizer

    backend = full.backend_tokenizer
    if any(token.content.isspace() for token in backend.get_added_tokens_decoder().values()):
        state = json.loads(backend.to_str())
        for token in state["added_tokens"]:
            if not token["content"].isspace():  # no text contains the new content, and later tokens keep their ids
                token |= {"content": f"{SEPARATOR}{token['content']}", "special": True, "normalized": False}
        state["added_tokens"] = [
            token for token in state["added_tokens"] if token["content"][1:] not in state["model"]["vocab"]
        ]
        state["post_processor"] = state["truncation"] = state["padding"] = None
        tokenizer = Tokenizer.from_str(json.dumps(state))
    else:
        tokenizer = Tokenizer(backend.model)  # shared: a copy would take a second
        for part in ("normalizer", "pre_tokenizer"):
            if getattr(backend, part) is not None:
                setattr(tokenizer, part, getattr(backend, part))
    tokenizer.add_special_tokens([AddedToken(SEPARATOR, normalized=False)])
    return tokenizer
