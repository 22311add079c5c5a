"""Hashing of the words of many documents to 64 bits in NumPy, for tags, deduplication, decontamination and retrieval.

A word is a run of letters, digits and underscores (bytes from 0x80 on count as letters), a Chinese, Japanese or Korean
character, or a run of other marks. Case is ignored. Hashes depend on the bytes only, and are the same on every
machine and Python version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from nbg_lightning.data.order import GOLDEN, mix

CHUNK_BYTES = 1 << 18  # the arrays of a chunk fit in a core's cache
_FACTOR = GOLDEN  # odd, so that it has an inverse modulo 2^64
_SPACE, _WORD, _MARK = 0, 1, 2
_IDEOGRAPHS = (0xE3, 0xED)  # first bytes of three-byte characters from U+3000 to U+DFFF


class Words(NamedTuple):
    """Words of several documents.

    Attributes:
        hashes: uint64[W], document by document.
        offsets: int64[N + 1]: the words of document i are ``hashes[offsets[i]:offsets[i + 1]]``.
        lengths: int32[W], length of each word in bytes.
    """

    hashes: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray

    @property
    def documents(self) -> np.ndarray:
        """int64[W]: index of each word's document."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def _kinds() -> np.ndarray:
    kinds = np.full(256, _MARK, np.uint8)
    kinds[: ord(" ") + 1] = _SPACE
    kinds[0x7F] = _SPACE
    for byte in range(256):
        if byte >= 0x80 or chr(byte).isalnum() or byte == ord("_"):
            kinds[byte] = _WORD
    return kinds


def _values() -> np.ndarray:
    lower = np.array([byte + 32 if 65 <= byte <= 90 else byte for byte in range(256)], np.uint64)
    return mix((lower + np.uint64(1)) * np.uint64(_FACTOR))


_KIND, _VALUE = _kinds(), _values()


@lru_cache(maxsize=2)
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """uint64[size]: powers of the factor and of its inverse, modulo 2^64."""
    inverse = pow(_FACTOR, -1, 1 << 64)
    both = []
    for base in (_FACTOR, inverse):
        powers = np.full(size, base, np.uint64)
        powers[0] = 1
        both.append(np.cumprod(powers, dtype=np.uint64))
    return both[0], both[1]


def hash_words(documents: Sequence[bytes], marks: bool = True) -> Words:
    """Hash the words of documents.

    Args:
        documents: UTF-8 bytes.
        marks: count runs of punctuation as words.

    Example:
        >>> words = hash_words([b"The cat, the CAT", b"cat"], marks=False)
        >>> words.offsets.tolist(), len(set(words.hashes.tolist()))
        ([0, 4, 5], 2)
    """
    hashes: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    counts = np.zeros(len(documents), np.int64)
    for indices, pieces in _chunks(documents):
        found, size, numbers = _hash_chunk(pieces, marks)
        hashes.append(found)
        lengths.append(size)
        np.add.at(counts, indices, numbers)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    if not hashes:
        return Words(np.zeros(0, np.uint64), offsets, np.zeros(0, np.int32))
    return Words(np.concatenate(hashes), offsets, np.concatenate(lengths))


def _chunks(documents: Sequence[bytes]) -> Iterator[tuple[list[int], list[bytes]]]:
    """Group documents into chunks; long documents are split at spaces, if there are any."""
    indices: list[int] = []
    pieces: list[bytes] = []
    size = 0
    for index, document in enumerate(documents):
        begin = 0
        while begin < len(document):
            end = begin + CHUNK_BYTES
            if end < len(document):
                space = document.rfind(b" ", begin + 1, end)
                end = space if space > 0 else end
            piece = document[begin:end]
            if pieces and size + len(piece) > CHUNK_BYTES:
                yield indices, pieces
                indices, pieces, size = [], [], 0
            indices.append(index)
            pieces.append(piece)
            size += len(piece) + 1
            begin = end
    if pieces:
        yield indices, pieces


def _hash_chunk(pieces: list[bytes], marks: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes and lengths of the words, and the number of words in each piece.

    The hash of a word of bytes b_0 b_1 ... is the polynomial sum of value(b_i) factor^i; all words are hashed by one running
    sum, divided by the power at the start of each word.
    """
    data = np.frombuffer(b"\n".join(pieces) + b"\n", np.uint8)
    kind = _KIND[data]
    edge = np.empty(len(data), bool)
    edge[0] = True
    np.not_equal(kind[1:], kind[:-1], out=edge[1:])
    if data.max() >= _IDEOGRAPHS[0]:
        first = np.flatnonzero((data >= _IDEOGRAPHS[0]) & (data <= _IDEOGRAPHS[1]))
        edge[first] = True
        edge[np.minimum(first + 3, len(data) - 1)] = True
    starts = np.flatnonzero(edge)
    ends = np.append(starts[1:], len(data))
    kept = kind[starts] != _SPACE if marks else kind[starts] == _WORD
    starts, ends = starts[kept], ends[kept]
    powers, inverses = _powers(max(2 * CHUNK_BYTES, len(data)))
    running = np.empty(len(data) + 1, np.uint64)
    running[0] = 0
    np.cumsum(_VALUE[data] * powers[: len(data)], out=running[1:])
    hashes = mix((running[ends] - running[starts]) * inverses[starts])
    borders = np.cumsum([len(piece) + 1 for piece in pieces])
    numbers = np.diff(np.searchsorted(starts, np.concatenate([[0], borders])))
    return hashes, (ends - starts).astype(np.int32), numbers


def ngrams(words: Words, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all runs of `size` words within a document, and the index of the first word of each.

    Example:
        >>> hashes, first = ngrams(hash_words([b"a b a b", b"b a"]), 2)
        >>> first.tolist(), len(set(hashes.tolist()))
        ([0, 1, 2, 4], 2)
    """
    count = max(0, len(words.hashes) - size + 1)
    hashes = np.zeros(count, np.uint64)
    for place in range(size):
        hashes = hashes * np.uint64(_FACTOR) + words.hashes[place : place + count]
    whole = np.repeat(words.offsets[1:], np.diff(words.offsets))[:count] - np.arange(count) >= size
    first = np.flatnonzero(whole)
    return mix(hashes[first]), first
