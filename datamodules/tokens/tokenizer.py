"""The model's tokenizer with the think tags, and Segments -> token ids and roles.

Two tokenizers from one file: `full` knows the tags and the control tokens, for decoding, export and the ids; the
encoder's knows neither, so no text, whoever typed it, can ever turn into a tag or into `<|im_end|>`. Further tokens
that the user lists are words, not marks: both know them, wherever they stand.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from datamodules.text.response import Tags
from datamodules.text.segments import Role, Segment
from errors import UserError
from hub import model_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

# Cut differently by other pre-tokenizers
PROBE = "Wait, 12.5% of 1,000 isn't 120:\n\n\t- x² = \\frac{1}{2}…  ¿Qué? 好。"


# Ends each text of a row, which goes through the tokenizer as a list of words does: that costs less than one by one,
# and no text touches another. A special token, which nothing else turns into; the last private-use character.
SEPARATOR = "\U0010fffd"
TEXT = -1  # for a segment that is text, where the others have their id


@dataclass(frozen=True)
class Encoder:
    """Segments -> token ids and roles. Small and without transformers, so that other processes start with it quickly.

    `plain` takes all text for text, SEPARATOR and the user's further tokens aside, and calls those by ids of its own, which
    `renumbered` turns into the model's; `fixed` has the ids of the roles that are one token; `control_ids` those of the
    tokens that a template may name.
    """

    plain: "Tokenizer"
    fixed: dict[Role, int]
    control_ids: dict[str, int]
    renumbered: dict[int, int]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, tags and control tokens in it taken as plain text."""
        encoded = self._encode(texts)
        return [[self.renumbered.get(i, i) for i in ids] for ids in encoded] if self.renumbered else encoded

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        self.plain.encode_special_tokens = True  # as text; said at each use, as pickle forgets it
        return [encoding.ids for encoding in self.plain.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_rows(self, rows: Sequence[Sequence[Segment]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(ids int32 (T,), roles int8 (T,)) of each row. All go through the tokenizer in one batch."""
        controls = self.control_ids
        fixed = [self.fixed.get(role, TEXT) for role in Role]  # by role: looking up an Enum in a dict is slow
        ones = [[controls[text] if control else fixed[role] for role, text, control in row] for row in rows]
        texts = [
            [segment[1] for segment, one in zip(row, known, strict=True) if one == TEXT]
            for row, known in zip(rows, ones, strict=True)
        ]
        seam_id: int = self.plain.token_to_id(SEPARATOR)  # type: ignore[assignment]
        if any(SEPARATOR in text for pieces in texts for text in pieces):  # somebody wrote that very character
            encoded: list[list[int]] = [
                [i for ids in self._encode(pieces) for i in (*ids, seam_id)] for pieces in texts
            ]
        else:
            self.plain.encode_special_tokens = False
            words = [[word for text in pieces for word in (text, SEPARATOR)] for pieces in texts]
            batch = self.plain.encode_batch_fast(words, is_pretokenized=True, add_special_tokens=False)
            encoded = [encoding.ids for encoding in batch]
        return [_put_together(*row, seam_id, self.renumbered) for row in zip(rows, ones, encoded, strict=True)]


def _put_together(
    row: Sequence[Segment], ones: list[int], encoded: list[int], seam_id: int, renumbered: dict[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and roles from `ones`, the id of each segment or TEXT, and the ids of all texts, a seam after each."""
    found, known = np.array(encoded, np.int32), np.array(ones, np.int32)
    counts = np.ones(len(ones), np.int64)
    counts[known == TEXT] = np.diff(np.flatnonzero(found == seam_id), prepend=-1) - 1
    ids = np.repeat(known, counts)
    written = found[found != seam_id]
    if renumbered:
        written = np.array([renumbered.get(i, i) for i in written.tolist()], np.int32)
    ids[ids == TEXT] = written
    return ids, np.repeat(np.frombuffer(bytes([segment[0] for segment in row]), np.int8), counts)


class ThinkTokenizer:
    """Attributes: `full` (transformers), `encoder`, `tags`, `open_id`, `close_id`, `end_id`, `control_ids`, `new_ids`,
    `pieces`.

    `new_ids` are the ids that tags and further tokens were given here; empty where the model already had them all
    (Qwen3, R1 distils). `pieces` are the ids that each of their texts had before. They are added as ordinary tokens:
    special ones would vanish from decoded text and push out `<|im_start|>`.
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

        _check_new_tokens(full, tags, new_tokens)
        self.base_size = len(full)
        plain = _plain(full)
        names = [tags.open, tags.close, *new_tokens]
        before = [encoding.ids for encoding in plain.encode_batch_fast(names, add_special_tokens=False)]
        full.add_tokens([tags.open, tags.close, *(AddedToken(name, normalized=False) for name in new_tokens)])
        plain.add_tokens([AddedToken(name, normalized=False) for name in new_tokens])
        self.full, self.tags = full, tags
        ids: list[int] = full.convert_tokens_to_ids(names)
        self.open_id, self.close_id, *own_ids = ids
        self.end_id: int = full.eos_token_id
        new = {i: pieces for i, pieces in zip(ids, before, strict=True) if i >= self.base_size}
        self.new_ids, self.pieces = list(new), list(new.values())
        self.control_ids: dict[str, int] = {
            token.content: i for i, token in full.added_tokens_decoder.items() if not token.content.isspace()
        }
        fixed = {Role.TAG_OPEN: self.open_id, Role.TAG_CLOSE: self.close_id, Role.END: self.end_id}
        renumbered = {int(plain.token_to_id(name) or 0): i for name, i in zip(new_tokens, own_ids, strict=True)}
        self.encoder = Encoder(plain, fixed, self.control_ids, renumbered)
        # What the tokenizer itself puts before every text: nothing for Qwen, <|begin_of_text|> for Llama
        self.prefix_ids: list[int] = full("").input_ids
        if self.new_ids != sorted(self.new_ids) or self.decode(self.encode([PROBE])[0]) != PROBE:
            raise UserError(
                "model.name",
                full.name_or_path,
                "has a tokenizer that cannot take text in pieces",
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
        """From a model's folder or hub id. Raises UserError as `hub.model_folder` does, and for a broken tokenizer."""
        from transformers import AutoTokenizer

        folder = model_folder(name, revision)
        try:
            return cls(AutoTokenizer.from_pretrained(folder), tags, new_tokens)
        except UserError:
            raise
        except Exception as error:  # OSError, ValueError, KeyError or one of the hub's own: by what is broken
            raise UserError(
                "model.name", name, f"has no readable tokenizer ({error})"[:300], "give a folder with tokenizer.json"
            ) from error

    def __len__(self) -> int:
        """Number of ids that mean something; the model's matrix may have more rows."""
        return len(self.full)

    @cached_property
    def fingerprint(self) -> str:
        """Equal for tokenizers that give equal ids."""
        vocabulary = self.full.get_vocab()
        by_id = sorted(vocabulary, key=vocabulary.__getitem__)
        known = [*by_id, *map(str, [*self.encode([PROBE])[0], *self.prefix_ids, *self.encoder.fixed.values()])]
        return hashlib.sha256("\0".join(known).encode()).hexdigest()[:16]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """As the encoder does."""
        return self.encoder.encode(texts)

    def encode_prompts(self, prompts: Sequence[Sequence[Segment]]) -> list[list[int]]:
        """Ids of what the model is given, as they are in a row."""
        return [ids.tolist() for ids, _ in self.encoder.encode_rows(prompts)]

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.full.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text


def _check_new_tokens(full: "PreTrainedTokenizerFast", tags: Tags, new_tokens: Sequence[str]) -> None:
    """Raises UserError for a token that could not be told from others, or that the model reads already."""
    known, added = full.get_vocab(), {token.content for token in full.added_tokens_decoder.values()}
    for k, name in enumerate(new_tokens):
        others = [tags.open, tags.close, *new_tokens[:k]]
        if not name.strip() or SEPARATOR in name:
            problem, fix = "is no token", "give texts like <step>"
        elif name in full.all_special_tokens:
            problem, fix = "is a control token of the model", "leave it out: templates name those"
        elif name in known and name not in added:
            problem, fix = "is a token of the model already", "leave it out"
        elif clash := next((other for other in others if name in other or other in name), None):
            problem, fix = f"is part of {clash} or the other way round", "give tokens that can be told apart"
        else:
            continue
        raise UserError("data.new_tokens", name, problem, fix)


def _plain(full: "PreTrainedTokenizerFast") -> "Tokenizer":
    """The same tokenizer with SEPARATOR and without its added tokens, runs of white space aside (some models add those for
    efficiency)."""
    from tokenizers import AddedToken, Tokenizer

    backend = full.backend_tokenizer
    if any(token.content.isspace() for token in backend.get_added_tokens_decoder().values()):
        state = json.loads(backend.to_str())
        for token in state["added_tokens"]:
            if not token["content"].isspace():  # no text has this one, and the ids of those after it stay what they are
                token |= {"content": f"{SEPARATOR}{token['content']}", "special": True, "normalized": False}
        state["added_tokens"] = [
            token for token in state["added_tokens"] if token["content"][1:] not in state["model"]["vocab"]
        ]
        state["post_processor"] = state["truncation"] = state["padding"] = None
        plain = Tokenizer.from_str(json.dumps(state))
    else:
        plain = Tokenizer(backend.model)  # shared, which spares a second of copying
        for part in ("normalizer", "pre_tokenizer"):
            if getattr(backend, part) is not None:
                setattr(plain, part, getattr(backend, part))
    plain.add_special_tokens([AddedToken(SEPARATOR, normalized=False)])
    return plain
