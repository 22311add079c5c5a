"""Packing of sequences into one row in which a shared prefix is stored, and computed, only once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from nbg_lightning.core.documents import ModelInput, nested_documents

SharePrefixes = Literal["auto"] | bool
"""Whether shared prefixes are computed only once: ``auto`` if that saves work, ``true`` however short the prefix is."""

SHORTEST_SHARED = 16  # tokens: attention to a prefix costs one call per layer, which shorter ones do not pay off


class PackedSequences(NamedTuple):
    """Sequences packed in one row.

    Attributes:
        input: the model's input, ``[1, L]``.
        places: for each sequence, in the order given, the positions of its tokens in the row; sequences may share some.
    """

    input: ModelInput
    places: list[np.ndarray]

    @property
    def num_tokens(self) -> int:
        """Length L of the row."""
        return self.input.tokens.numel()


def shortest_shared(share_prefixes: SharePrefixes) -> int | None:
    """Minimum length of a shared prefix in tokens; None to share none.

    Raises:
        ValueError: not one of the settings.
    """
    if share_prefixes == "auto":
        return SHORTEST_SHARED
    if not isinstance(share_prefixes, bool):
        raise ValueError(f"share_prefixes is invalid: {share_prefixes!r}; choose auto, true or false")
    return 1 if share_prefixes else None


def pack_sequences(sequences: Sequence[ArrayLike], shortest: int | None, multiple: int = 1) -> PackedSequences:
    """Pack sequences in one row, either consecutively or as a tree of their shared prefixes.

    A document of the tree is a prefix shared by several sequences, a shared continuation, or the rest of one sequence. Documents
    of the same length are neighbours, so that attention computes them together. A position of a shared document may have
    a different next token in each of its sequences: `PackedSequences.places` gives each sequence's positions.

    Args:
        sequences: ids of each sequence, at least one.
        shortest: minimum length of a shared prefix; None shares nothing and keeps the order.
        multiple: pad the row to a multiple of this length, with a document at its end.

    Example:
        >>> packed = pack_sequences([[1, 2, 3, 7], [1, 2, 3, 8, 9]], shortest=2)
        >>> packed.input.tokens.tolist(), packed.input.positions.tolist()
        ([[1, 2, 3, 8, 9, 7]], [[0, 1, 2, 3, 4, 3]])
        >>> [places.tolist() for places in packed.places]
        [[0, 1, 2, 5], [0, 1, 2, 3, 4]]
    """
    arrays = [np.asarray(ids, np.int64) for ids in sequences]
    if any(array.ndim != 1 or not len(array) for array in arrays) or not arrays:
        raise ValueError("sequences are invalid: one is empty; give each one id at least")
    row = _TreeRow()
    places = _in_line(arrays, row) if shortest is None else _as_tree(arrays, shortest, row)
    if padding := -row.length % multiple:
        row.append(np.zeros(padding, np.int64), _NOTHING, -1)
    return PackedSequences(row.input(), places)


def in_order(sequences: Sequence[np.ndarray]) -> tuple[list[int], list[int]]:
    """Indices of the sequences in lexicographic order, and the length of each one's common prefix with the previous one.

    Example:
        >>> in_order([np.array([2, 1]), np.array([1, 5, 6]), np.array([1, 5])])
        ([2, 1, 0], [0, 2, 0])
    """
    keys = [array.astype(">i8").tobytes() for array in sequences]
    order = sorted(range(len(sequences)), key=keys.__getitem__)
    common = [0] * len(order)
    for index in range(1, len(order)):
        common[index] = num_common(sequences[order[index - 1]], sequences[order[index]])
    return order, common


def rows_that_fit(sequences: Sequence[np.ndarray], most: int, shortest: int | None) -> list[list[int]]:
    """Group sequences into rows of at most ``most`` tokens (a longer one has its own row), with common prefixes together.

    Without common prefixes, or with ``shortest`` None, the longest come first, so that running out of memory shows early.

    Args:
        sequences: ids of each sequence.
        most: maximum tokens of a row, as `pack_sequences` packs it.
        shortest: as in `pack_sequences`.

    Returns:
        The indices of each row's sequences.

    Example:
        >>> alike = [np.array([1, 2, 3, 4]), np.array([9]), np.array([1, 2, 3, 5])]
        >>> rows_that_fit(alike, 6, shortest=2), rows_that_fit(alike, 6, None)
        ([[0, 2], [1]], [[0], [2, 1]])
    """
    sizes = [len(ids) for ids in sequences]
    order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
    if shortest is not None and sizes:
        by_beginning, common = in_order(sequences)
        if max(common) >= shortest:
            order = by_beginning
            for index, shared in zip(order, common, strict=True):  # all but `shortest` - 1 of them stand once
                sizes[index] -= max(0, shared - shortest + 1)
    rows: list[list[int]] = []
    total = 0
    for index in order:
        if not rows or total + sizes[index] > most:
            rows.append([])
            total = len(sequences[index]) - sizes[index]  # its shared prefix is not in this row yet
        rows[-1].append(index)
        total += sizes[index]
    return rows


def num_common(first: np.ndarray, second: np.ndarray) -> int:
    """Length of the common prefix."""
    length = min(len(first), len(second))
    different = first[:length] != second[:length]
    return int(different.argmax()) if different.any() else length


_NOTHING = np.empty(0, np.int64)


class _TreeRow:
    """A row to which documents are appended."""

    def __init__(self) -> None:
        self.tokens: list[np.ndarray] = []
        self.positions: list[np.ndarray] = []
        self.parents: list[int] = []
        self.length = 0

    def append(self, tokens: np.ndarray, prefix: np.ndarray, parent: int) -> np.ndarray:
        """Append a document that continues the prefix at these positions; returns the positions of both."""
        places = np.concatenate((prefix, np.arange(self.length, self.length + len(tokens))))
        self.tokens.append(tokens)
        self.positions.append(np.arange(len(prefix), len(places)))
        self.parents.append(parent)
        self.length += len(tokens)
        return places

    def input(self) -> ModelInput:
        tokens, positions = (torch.from_numpy(np.concatenate(x))[None] for x in (self.tokens, self.positions))
        return ModelInput(tokens, positions, nested_documents([len(part) for part in self.tokens], self.parents))


def _in_line(arrays: list[np.ndarray], row: _TreeRow) -> list[np.ndarray]:
    """Append each sequence as a document; returns their positions."""
    return [row.append(array, _NOTHING, -1) for array in arrays]


class _Branch(NamedTuple):
    """A range of sequences in lexicographic order, ``begin`` to ``end``, whose shared tokens are already in the row."""

    begin: int
    end: int
    places: np.ndarray
    parent: int


def _as_tree(arrays: list[np.ndarray], shortest: int, row: _TreeRow) -> list[np.ndarray]:
    """Append the documents of the tree, depth first; returns the positions of each sequence."""
    order, common = in_order(arrays)
    ordered, neighbours = [arrays[index] for index in order], np.array(common)
    found = [_NOTHING] * len(arrays)
    open_branches = [_Branch(0, len(order), _NOTHING, -1)]
    while open_branches:
        begin, end, places, parent = open_branches.pop()
        first, depth = ordered[begin], len(places)
        shared = len(first) if end - begin == 1 else int(neighbours[begin + 1 : end].min())
        if shared - depth >= (1 if end - begin == 1 else shortest):
            places = row.append(first[depth:shared], places, parent)
            parent = len(row.parents) - 1
        if end - begin == 1:
            found[order[begin]] = places
            continue
        cuts = [begin, *(begin + 1 + np.flatnonzero(neighbours[begin + 1 : end] == shared)).tolist(), end]
        parts = [_Branch(*bounds, places, parent) for bounds in pairwise(cuts)]
        # Popped from the end: several sequences first, then single ones, the longest first.
        open_branches += sorted(parts, key=lambda part: (part.end - part.begin == 1, -len(ordered[part.begin])))[::-1]
    return found
