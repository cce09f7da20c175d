"""Near duplicates between training and held-out instructions, found by MinHash in one pass.

The ratio of equal places of two signatures estimates the Jaccard similarity of two sets of shingles (Broder 1997, "On
the resemblance and containment of documents"). Signatures are cut into bands, and two signatures are compared only if
they share a whole band (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.3 and 3.4).

A shingle is three consecutive words, together with all numbers of the text and the operators before them. Two problems
that differ in one number share no shingle, like "Solve x + 5 = 12" and "Solve x + 6 = 12". Case,
white space, punctuation and "please" are ignored. `sources.HeldOut` already puts instructions that are equal up to
case and white space on one side.
"""

import functools
import re
import unicodedata
import zlib

import numpy as np
import numpy.typing as npt

Signature = npt.NDArray[np.uint16]  # (PLACES,); (0,) for a text without a shingle

PLACES = 128  # one standard deviation of the estimate is 0.035 at a similarity of 0.8
WORDS = 3  # of a shingle
RECALL = 0.9  # ratio of the pairs at the threshold that share a band; pairs above it share one more often
SLOT_BITS = 18  # of a band's table, enough for about 250,000 rows
CHAIN = 32  # latest rows of a band that are compared; further rows share a template only
NUMBER = 1 << 32
REMEMBERED = 40  # characters; the hash of a longer word is not cached
AT_ONCE = 4096  # shingles whose places are computed together, 2 MB
COURTESY = frozenset(("please", "kindly"))
SPACE = re.compile(r"[\s,]")  # inside a number
# A word, or a number with the operator before it. In scripts without spaces each character is a word.
TOKEN = re.compile(
    r"[^\W\d_\u3040-\u30ff\u3400-\u9fff]+|(?:[-+*/^=<>−×÷]\s*)?\d+(?:[.,]\d+)*|[\u3040-\u30ff\u3400-\u9fff]"
)

# Constants, because prepared rows depend on them. Odd factors permute the 32-bit numbers (multiplicative hashing:
# Knuth, "The Art of Computer Programming", 6.4).
_RANDOM = np.random.Generator(np.random.PCG64(1997))
_FACTORS, _TERMS = _RANDOM.integers(0, 1 << 32, (2, PLACES), dtype=np.uint32) | np.uint32(1)
_ORDER = _RANDOM.integers(0, 1 << 63, WORDS + 1, dtype=np.uint64) | np.uint64(1)


def signature(text: str) -> Signature:
    """Return the signature of a text, the same in every process. It is empty for fewer than three words and numbers."""
    tokens = TOKEN.findall(unicodedata.normalize("NFKC", text).lower())
    hashes = np.fromiter((_hash(t) if len(t) <= REMEMBERED else _hash.__wrapped__(t) for t in tokens), np.uint64)
    hashes = hashes[hashes != 0]
    if len(hashes) < WORDS:
        return np.zeros(0, np.uint16)
    numbers = zlib.crc32(hashes[hashes >= NUMBER].tobytes())
    count = len(hashes) - WORDS + 1
    mixed = np.full(count, numbers, np.uint64) * _ORDER[WORDS]
    for k in range(WORDS):
        mixed += hashes[k : k + count] * _ORDER[k]
    shingles = (mixed >> np.uint64(32)).astype(np.uint32)  # the high bits of a product depend on all bits of the words
    # (shingles, PLACES): each place orders the shingles in another way and keeps the first. Sixteen bits distinguish it
    # from others (Li and König 2010, "b-bit minwise hashing").
    least = np.full(PLACES, np.iinfo(np.uint32).max, np.uint32)
    for start in range(0, len(shingles), AT_ONCE):
        part = shingles[start : start + AT_ONCE, None] * _FACTORS + _TERMS
        least = np.minimum(least, part.min(axis=0))
    return least.astype(np.uint16)


@functools.lru_cache(1 << 16)
def _hash(token: str) -> int:
    """A hash below NUMBER for a word, from NUMBER on for a number, 0 for a polite word."""
    if token in COURTESY:
        return 0
    if token[-1].isdigit():
        return NUMBER + zlib.crc32(SPACE.sub("", token).encode())
    return zlib.crc32(token.encode("utf-8", "replace"))


class DedupIndex:
    """An index of training and held-out instructions. It finds near duplicates on the other side.

    The later of two near duplicates is dropped, so equal rows in equal order give an equal result. 250,000 rows take
    about 150 MB.

    Args:
        threshold: Lowest similarity of near duplicates, above 0 and at most 1.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._sides = {held_out: _Side(band_length(threshold)) for held_out in (False, True)}

    def crosses(self, signature: Signature, held_out: bool) -> bool:
        """Whether the other side has a near duplicate of this row. False for an empty signature."""
        return signature.size > 0 and self._sides[not held_out].has_near(signature, self.threshold)

    def add(self, signature: Signature, held_out: bool) -> None:
        """Add a row to its side."""
        if signature.size:
            self._sides[held_out].add(signature)


def band_length(threshold: float) -> int:
    """Return the longest band that a pair at this similarity shares with a probability of RECALL."""
    return next(r for r in (16, 8, 4, 2, 1) if r == 1 or 1 - (1 - threshold**r) ** (PLACES // r) >= RECALL)


class _Side:
    """The signatures of one side. A table for each band has the last row with a hash; `previous` has the row before."""

    def __init__(self, band: int) -> None:
        bands = PLACES // band
        self.bands = np.arange(bands)
        self.band_factors = _FACTORS[:band]
        self.last = np.full((bands, 1 << SLOT_BITS), -1, np.int32)
        self.previous = np.empty((1024, bands), np.int32)
        self.signatures = np.empty((1024, PLACES), np.uint16)
        self.count = 0

    def slots(self, signature: Signature) -> npt.NDArray[np.uint32]:
        """(bands,): the slot of each band in its table."""
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
        """Whether a similar signature is here. The chains of all bands are followed together, the latest rows first."""
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
