"""Exact and near-duplicate detection for corpora of any size.

Near duplicates are found by MinHash signatures of word 5-grams (Broder 1997; signatures by `datasketch`), split into bands:
documents that agree in a whole band are compared by their signatures. Bands are sorted one at a time and signatures are
on disk, so that memory is about 100 bytes per document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nbg_lightning.construction.filtering.hashing import Words, hash_words, ngrams
from nbg_lightning.construction.step import DocumentRow, DocumentStep
from nbg_lightning.data.order import GOLDEN, mix
from nbg_lightning.extra import require

if TYPE_CHECKING:
    import pyarrow

_EMPTY = np.uint32(0xFFFFFFFF)  # minimum of an empty set, for a document without words


@dataclass(frozen=True)
class NearDuplicates:
    """Criterion for near duplicates.

    With b bands of r values, a pair with Jaccard similarity s is compared with probability ``1 - (1 - s^r)^b``: 0.95 at 0.8
    and 0.21 at 0.6 for 16 bands of 8.

    Args:
        threshold: minimum similarity, estimated from the signatures (standard error 0.04 at 0.8 with 128 values).
        bands: number of bands in a signature.
        rows: number of values in a band.
        shingle: number of words in an n-gram; shorter documents are a single n-gram.
        seed: seed of the permutations.

    Raises:
        ValueError: a setting is invalid.
    """

    threshold: float = 0.8
    bands: int = 16
    rows: int = 8
    shingle: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1 or min(self.bands, self.rows, self.shingle) < 1:
            raise ValueError(
                f"near duplicates are invalid: threshold={self.threshold}, bands={self.bands}, rows={self.rows}, "
                f"shingle={self.shingle}; give a threshold above 0 and at most 1, and at least 1 of the others"
            )

    @property
    def size(self) -> int:
        """Number of values in a signature."""
        return self.bands * self.rows

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON."""
        return asdict(self)


class Signature(DocumentStep):
    """Column ``signature``: MinHash values of the document's n-grams, uint32 in little-endian bytes.

    Raises:
        ImportError: datasketch is not installed.
    """

    def __init__(self, settings: NearDuplicates | None = None):
        minhash = require("datasketch", "the search for near duplicates").MinHash
        self.settings = settings or NearDuplicates()
        self._empty = minhash(self.settings.size, seed=self.settings.seed, hashfunc=int)

    def __reduce__(self) -> tuple[Any, ...]:
        return Signature, (self.settings,)

    @property
    def columns(self) -> dict[str, pyarrow.DataType]:
        import pyarrow

        return {"signature": pyarrow.binary(4 * self.settings.size)}

    def identity(self) -> dict[str, Any]:
        return {"step": "Signature", **self.settings.to_dict()}

    def values(self, texts: Sequence[str]) -> list[DocumentRow]:
        words = hash_words([text.encode("utf-8", "replace") for text in texts], marks=False)
        rows: list[DocumentRow] = []
        for begin, end in zip(words.offsets, words.offsets[1:], strict=False):
            own = Words(words.hashes[begin:end], np.array([0, end - begin]), words.lengths[begin:end])
            shingles, _ = ngrams(own, max(1, min(self.settings.shingle, end - begin)))
            if not len(shingles):
                rows.append({"signature": np.full(self.settings.size, _EMPTY).tobytes()})
                continue
            signature = self._empty.copy()
            for first in range(0, len(shingles), 1 << 14):  # bounds the size of the table of shingles x permutations
                signature.update_batch((shingles[first : first + (1 << 14)] >> np.uint64(32)).tolist())
            rows.append({"signature": signature.hashvalues.astype("<u4").tobytes()})
        return rows


class Duplicates(NamedTuple):
    """Documents to drop, and the ones kept instead.

    Attributes:
        kept: bool[N].
        original: int64[N], index of the document kept instead; of the document itself if it is kept.
    """

    kept: np.ndarray
    original: np.ndarray


def exact_duplicates(keys: np.ndarray, rank: np.ndarray) -> Duplicates:
    """Of documents with the same key, keep the one with the lowest rank, then the first.

    Args:
        keys: [N] digests.
        rank: [N], for instance the negative trust of the document's source.

    Example:
        >>> exact_duplicates(np.array([b"a", b"b", b"a"]), np.array([1, 0, 0])).kept.tolist()
        [False, True, True]
    """
    order = np.lexsort((np.arange(len(keys)), rank, keys))
    new = np.ones(len(keys), bool)
    new[1:] = keys[order][1:] != keys[order][:-1]
    original = np.empty(len(keys), np.int64)
    original[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(keys)), 0))] if len(keys) else order
    return Duplicates(original == np.arange(len(keys)), original)


def near_duplicates(
    signatures: np.ndarray, rank: np.ndarray, settings: NearDuplicates, candidates: np.ndarray | None = None
) -> Duplicates:
    """Of each group of documents connected by similar pairs, keep the one with the lowest rank, then the first.

    In each band, a document is compared with the first one of its bucket and with its neighbour in it, so that a bucket of n
    costs 2n comparisons instead of n squared.

    Args:
        signatures: uint32[N, bands * rows]; may be memory-mapped.
        rank: [N].
        settings: when two documents are similar.
        candidates: bool[N], documents to consider; all by default. The others are neither kept nor originals.
    """
    number = len(signatures)
    parent = np.arange(number)
    looked_at = np.arange(number) if candidates is None else np.flatnonzero(candidates)
    for left, right in _similar_pairs(signatures, looked_at, settings):
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            a, b = _root(parent, a), _root(parent, b)
            if a != b:
                parent[max(a, b)] = min(a, b)
    roots = np.array([_root(parent, index) for index in looked_at.tolist()], np.int64)
    groups = exact_duplicates(roots, rank[looked_at])
    kept, original = np.zeros(number, bool), np.arange(number)
    kept[looked_at] = groups.kept
    original[looked_at] = looked_at[groups.original]
    return Duplicates(kept, original)


def _root(parent: np.ndarray, index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return index


def _similar_pairs(
    signatures: np.ndarray, looked_at: np.ndarray, settings: NearDuplicates
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    block = 1 << 15
    for band in range(settings.bands):
        columns = slice(band * settings.rows, (band + 1) * settings.rows)
        keys = np.empty(len(looked_at), np.uint64)
        for begin in range(0, len(looked_at), block):
            rows = np.ascontiguousarray(signatures[looked_at[begin : begin + block], columns])
            keys[begin : begin + block] = _row_hashes(rows)
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        first = order[np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), np.arange(len(order)), 0))]
        later = np.flatnonzero(same) + 1
        pairs = np.concatenate(
            [np.stack([first[later], order[later]], 1), np.stack([order[later - 1], order[later]], 1)]
        )
        pairs = np.unique(pairs, axis=0)
        for begin in range(0, len(pairs), block):
            left, right = looked_at[pairs[begin : begin + block]].T
            agreeing = (signatures[left] == signatures[right]).mean(1)
            similar = agreeing >= settings.threshold
            yield left[similar], right[similar]


def _row_hashes(rows: np.ndarray) -> np.ndarray:
    """uint64[N]: a hash of each uint32 row."""
    found = np.zeros(len(rows), np.uint64)
    for column in range(rows.shape[1]):
        found = mix(found + rows[:, column].astype(np.uint64) + np.uint64(GOLDEN))
    return found


def similarity(first: bytes, second: bytes) -> float:
    """Jaccard similarity estimated from two signatures: the share of equal values."""
    return float((np.frombuffer(first, "<u4") == np.frombuffer(second, "<u4")).mean())
