"""Near-duplicate instructions across the border between training and held-out rows, in one pass.

MinHash: the share of places in which two signatures agree estimates the Jaccard similarity of the two sets of shingles
(Broder 1997, "On the resemblance and containment of documents"). Signatures are cut into bands and only those that
share a whole band are compared (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.3 and 3.4).

A shingle is three words in a row. All numbers of a text, with the operators before them, enter each of its shingles:
"Solve x + 5 = 12" and "Solve x + 6 = 12" have none in common, nor have two long problems that differ in one number.
Case, white space, punctuation and "please" enter none. Texts that are equal up to case and white space need no border:
`sources.HeldOut` puts them on one side.
"""

import functools
import re
import unicodedata
import zlib

import numpy as np
import numpy.typing as npt

from errors import UserError

Signature = npt.NDArray[np.uint16]  # (PLACES,), or (0,) for a text without a shingle

PLACES = 128  # the estimate of a similarity of 0.8 is off by 0.035 (one standard deviation)
WORDS = 3
SURE = 0.9  # of the pairs just at the threshold share a band, and of those above it ever more
SLOT_BITS = 18  # of a band's table, for some 250,000 rows
CHAIN = 32  # rows compared of each band, the latest: more that share it are a template's crowd, not near each other
NUMBER = 1 << 32
COURTESY = frozenset(("please", "kindly"))
SPACE = re.compile(r"[\s,]")  # within a number
# A word, or a number with the operator before it; in scripts without spaces each character is a word.
TOKEN = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff]+|[-+*/^=<>−×÷]?\s*\d+(?:[.,]\d+)*|[\u3040-\u30ff\u3400-\u9fff]")

# Constants, for prepared rows depend on them. Odd factors permute the numbers of 32 bits (multiplicative hashing:
# Knuth, "The Art of Computer Programming", 6.4).
_RANDOM = np.random.Generator(np.random.PCG64(1997))
_FACTORS, _TERMS = _RANDOM.integers(0, 1 << 32, (2, PLACES), dtype=np.uint32) | np.uint32(1)
_ORDER = _RANDOM.integers(0, 1 << 63, WORDS + 1, dtype=np.uint64) | np.uint64(1)


def signature(text: str) -> Signature:
    """The text's signature, the same in every process; empty where it has fewer than three words and numbers."""
    tokens = TOKEN.findall(unicodedata.normalize("NFKC", text).lower())
    hashes = np.fromiter(map(_hash, tokens), np.uint64, len(tokens))
    hashes = hashes[hashes != 0]
    if len(hashes) < WORDS:
        return np.zeros(0, np.uint16)
    numbers = zlib.crc32(hashes[hashes >= NUMBER].tobytes())
    count = len(hashes) - WORDS + 1
    mixed = np.full(count, numbers, np.uint64) * _ORDER[WORDS]
    for k in range(WORDS):
        mixed += hashes[k : k + count] * _ORDER[k]
    shingles = (mixed >> np.uint64(32)).astype(np.uint32)  # the high bits of the products know all bits of the words
    # (shingles, PLACES): each place orders the shingles in another way and keeps the first. Sixteen bits of it are
    # enough to tell it from others (Li and König 2010, "b-bit minwise hashing").
    least: npt.NDArray[np.uint32] = (shingles[:, None] * _FACTORS + _TERMS).min(axis=0)
    return least.astype(np.uint16)


@functools.lru_cache(1 << 16)
def _hash(token: str) -> int:
    """Below NUMBER for a word, from there on for a number, 0 for a word that says nothing."""
    if token in COURTESY:
        return 0
    if token[-1].isdigit():
        return NUMBER + zlib.crc32(SPACE.sub("", token).encode())
    return zlib.crc32(token.encode("utf-8", "replace"))


class DedupIndex:
    """The instructions of both sides, to ask of the next one whether the other side already has one like it.

    The later of two is the one to leave out: with the rows in one order the result is always the same. 250,000 rows
    take some 150 MB.

    Args:
        threshold: Similarity of the sets of shingles from which on two instructions are one, above 0 and up to 1.
    """

    def __init__(self, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise UserError("data.near_duplicate_threshold", threshold, "is no similarity", "give a share like 0.8")
        self.threshold = threshold
        self._sides = {held_out: _Side(rows_per_band(threshold)) for held_out in (False, True)}

    def crosses(self, signature: Signature, held_out: bool) -> bool:
        """Whether a row added on the other side is like this one; never for an empty signature."""
        return signature.size > 0 and self._sides[not held_out].has_near(signature, self.threshold)

    def add(self, signature: Signature, held_out: bool) -> None:
        """Takes a row in on its side."""
        if signature.size:
            self._sides[held_out].add(signature)


def rows_per_band(threshold: float) -> int:
    """The longest bands with which two texts of this similarity still share one, SURE to happen."""
    return next(r for r in (16, 8, 4, 2, 1) if r == 1 or 1 - (1 - threshold**r) ** (PLACES // r) >= SURE)


class _Side:
    """Signatures, and for each band a table from its hash to the last row with it, from where `previous` leads on."""

    def __init__(self, band: int) -> None:
        bands = PLACES // band
        self.bands = np.arange(bands)
        self.band_factors = _FACTORS[:band]
        self.last = np.full((bands, 1 << SLOT_BITS), -1, np.int32)
        self.previous = np.empty((1024, bands), np.int32)
        self.signatures = np.empty((1024, PLACES), np.uint16)
        self.count = 0

    def slots(self, signature: Signature) -> npt.NDArray[np.uint32]:
        """(bands,): the place of each band in its table."""
        hashes: npt.NDArray[np.uint32] = signature.reshape(len(self.bands), -1) @ self.band_factors
        return hashes >> np.uint32(32 - SLOT_BITS)

    def add(self, signature: Signature) -> None:
        slots = self.slots(signature)
        if self.count == len(self.signatures):
            self.signatures = np.concatenate([self.signatures, np.empty_like(self.signatures)])
            self.previous = np.concatenate([self.previous, np.empty_like(self.previous)])
        self.signatures[self.count] = signature
        self.previous[self.count] = self.last[self.bands, slots]
        self.last[self.bands, slots] = self.count
        self.count += 1

    def has_near(self, signature: Signature, threshold: float) -> bool:
        """Follows the chains of all bands together, the latest rows first."""
        bands = self.bands
        rows = self.last[bands, self.slots(signature)]
        for _ in range(CHAIN):
            there = np.flatnonzero(rows >= 0)
            if not there.size:
                break
            rows, bands = rows[there], bands[there]
            if (self.signatures[rows] == signature).sum(axis=1).max() >= threshold * PLACES:
                return True
            rows = self.previous[rows, bands]
        return False
