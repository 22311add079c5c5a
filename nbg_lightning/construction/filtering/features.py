"""Documents as sparse vectors: hashed words and word pairs, and some dense measures of form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nbg_lightning.construction.filtering.hashing import CHUNK_BYTES, hash_words, ngrams

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FORM = (  # the dense measures, all scaled similarly
    "log_bytes",
    "log_words",
    "mean_word_length",
    "log_line_length",
    "blank_lines",
    "indented_lines",
    "spaces",
    "digits",
    "capitals",
    "marks",
    "not_ascii",
    "distinct_words",
)
_SPACE, _DIGIT, _CAPITAL, _MARK, _OTHER = 1, 2, 3, 4, 5


def _classes() -> np.ndarray:
    classes = np.zeros(256, np.uint8)
    for byte in range(256):
        character = chr(byte)
        if byte >= 0x80:
            classes[byte] = _OTHER
        elif character.isspace():
            classes[byte] = _SPACE
        elif character.isdigit():
            classes[byte] = _DIGIT
        elif character.isupper():
            classes[byte] = _CAPITAL
        elif not character.isalpha():
            classes[byte] = _MARK
    return classes


_CLASS = _classes()


@dataclass(frozen=True)
class HashedFeatures:
    """Feature hashing of texts to a sparse matrix, without a vocabulary: the lowest bits of a feature's hash are its column.

    A word's value is ``1 + log(count)``; words and pairs are then normalized to length 1 per document, and followed by
    the measures of `FORM`.

    Args:
        bits: 2^bits columns for words and pairs.
        pairs: use pairs of neighbouring words as features too.
        max_bytes: longer documents are judged by their beginning.

    Raises:
        ValueError: a size is invalid.
    """

    bits: int = 18
    pairs: bool = True
    max_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        if not 8 <= self.bits <= 26 or self.max_bytes < 1:
            raise ValueError(
                f"features are invalid: bits={self.bits}, max_bytes={self.max_bytes}; give 8 to 26 bits, and at least 1 byte"
            )

    @property
    def width(self) -> int:
        """Number of columns of the matrix."""
        return (1 << self.bits) + len(FORM)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON."""
        return asdict(self)

    def matrix(self, texts: Sequence[str]) -> csr_matrix:
        """float32[len(texts), width].

        Example:
            >>> HashedFeatures(bits=8).matrix(["a b", "b a", ""]).shape
            (3, 268)
        """
        from scipy.sparse import csr_matrix, vstack

        documents = [text.encode("utf-8", "replace")[: self.max_bytes] for text in texts]
        groups: list[list[bytes]] = [[]]
        size = 0
        for document in documents:  # few at a time, so that temporary arrays stay in the cache
            if groups[-1] and size + len(document) > CHUNK_BYTES:
                groups.append([])
                size = 0
            groups[-1].append(document)
            size += len(document)
        parts = [self._group(group) for group in groups if group]
        return vstack(parts, "csr") if parts else csr_matrix((0, self.width), dtype=np.float32)

    def _group(self, documents: list[bytes]) -> csr_matrix:
        from scipy.sparse import csr_matrix

        words = hash_words(documents)
        owner = words.documents
        hashes, owners = [words.hashes], [owner]
        if self.pairs:
            pairs, first = ngrams(words, 2)
            hashes.append(pairs)
            owners.append(owner[first])
        mask = np.uint64((1 << self.bits) - 1)
        keys = np.concatenate(owners).astype(np.uint64) << np.uint64(self.bits) | (np.concatenate(hashes) & mask)
        keys, counts = np.unique(keys, return_counts=True)
        rows = (keys >> np.uint64(self.bits)).astype(np.int64)
        values = 1.0 + np.log(counts)
        norms = np.sqrt(np.bincount(rows, values**2, len(documents)))
        values = values / norms[rows]
        form = self._form(documents, words.offsets, np.bincount(rows, minlength=len(documents)))
        # Rows are in order, so the form columns are appended to each.
        ends = np.searchsorted(rows, np.arange(1, len(documents) + 1))
        indices = np.insert((keys & mask).astype(np.int32), np.repeat(ends, len(FORM)), self._form_columns(documents))
        data = np.insert(values.astype(np.float32), np.repeat(ends, len(FORM)), form.ravel())
        pointers = np.concatenate([[0], ends + len(FORM) * np.arange(1, len(documents) + 1)])
        return csr_matrix((data, indices, pointers), shape=(len(documents), self.width), dtype=np.float32)

    def _form_columns(self, documents: Sequence[bytes]) -> np.ndarray:
        return np.tile(np.arange(len(FORM), dtype=np.int32) + (1 << self.bits), len(documents))

    @staticmethod
    def _form(documents: list[bytes], offsets: np.ndarray, distinct: np.ndarray) -> np.ndarray:
        """float32[documents, FORM]."""
        data = np.frombuffer(b"\n".join(documents) + b"\n", np.uint8)
        sizes = np.array([len(document) for document in documents])
        starts = np.cumsum(sizes + 1) - sizes - 1
        classes = _CLASS[data]
        counts = np.stack([np.add.reduceat(classes == kind, starts, dtype=np.int64) for kind in range(1, 6)], 1)
        newline = data == ord("\n")
        lines = np.maximum(1, np.add.reduceat(newline, starts, dtype=np.int64))
        after = np.zeros(len(data), bool)  # the first byte of each line
        after[1:] = newline[:-1]
        after[starts] = True
        blank = np.add.reduceat(after & newline, starts, dtype=np.int64)
        indented = np.add.reduceat(after & (data == ord(" ")), starts, dtype=np.int64)
        size, number = np.maximum(1, sizes), np.maximum(1, np.diff(offsets))
        columns = [
            np.log(size) / 10,
            np.log(number) / 10,
            (size - counts[:, 0]) / number / 10,
            np.log(size / lines + 1) / 5,
            blank / lines,
            indented / lines,
            *(counts[:, kind] / size for kind in range(5)),
            distinct / (2 * number),
        ]
        return np.stack(columns, 1).astype(np.float32)
