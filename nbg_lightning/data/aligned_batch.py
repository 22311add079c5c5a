"""The sequences of a micro-batch aligned with the same text in a teacher's tokens.

Shape suffixes: C chunks; T tokens of the student in these chunks, N of the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from nbg_lightning.core.documents import ModelInput
from nbg_lightning.core.head_alignment import ChunkTokens
from nbg_lightning.core.head_teachers import TopK
from nbg_lightning.core.prefixes import pack_sequences


class Aligned(Protocol):
    """A sequence as the teacher tokenizes it: its ids, and the (begin, end) of each chunk in ours and theirs ``[C, 2]``."""

    @property
    def ids(self) -> np.ndarray: ...

    @property
    def ours(self) -> np.ndarray: ...

    @property
    def theirs(self) -> np.ndarray: ...


class AlignedBatch(NamedTuple):
    """The chunks of a micro-batch, with the teacher's input for them.

    Attributes:
        input: the teacher's input ``[1, L]``.
        positions: positions in it that predict the teacher's tokens of the chunks ``[N]``; without chunks, the first one.
        theirs: these tokens of the teacher.
        places: positions in the student's flattened input that predict its tokens ``[T]``; without chunks, the first one.
        ours: these tokens of the student.
        sequence: index of each chunk's sequence ``[C]``.
        row: index of each chunk's batch row ``[C]``.
        listed: the ids that the teacher lists at each of ``theirs``; None for a teacher that runs here.
    """

    input: ModelInput
    positions: Tensor
    theirs: ChunkTokens
    places: Tensor
    ours: ChunkTokens
    sequence: Tensor
    row: Tensor
    listed: TopK | None = None


class WholeSequence(NamedTuple):
    """A sequence of a micro-batch.

    Attributes:
        ids: all ids; the last one is a label only.
        trained: which ids are trained as labels.
        places: position of each id but the last in the student's input; -1 if it is not needed.
        row: index of the batch row.
    """

    ids: np.ndarray
    trained: np.ndarray
    places: np.ndarray
    row: int


def aligned_batch(sequences: Sequence[WholeSequence], aligned: Sequence[Aligned], shortest: int | None) -> AlignedBatch:
    """Collect the chunks of sequences, and pack the teacher's input for them in one row.

    Args:
        sequences: the student's sequences.
        aligned: the same sequences as the teacher tokenizes them.
        shortest: minimum length of a shared prefix in the teacher's row (`pack_sequences`); None shares nothing.
    """
    packed = pack_sequences([each.ids[: max(1, len(each.ids) - 1)] for each in aligned] or [np.zeros(1)], shortest)
    parts: list[list[np.ndarray]] = [[] for _ in range(8)]
    count = 0
    for number, (sequence, each) in enumerate(zip(sequences, aligned, strict=True)):
        numbers = np.arange(count, count + len(each.ours))
        count += len(numbers)
        for side, (ids, spans, places) in enumerate(
            ((sequence.ids, each.ours, sequence.places), (each.ids, each.theirs, packed.places[number]))
        ):
            tokens = _within(spans)
            parts[3 * side].append(ids[tokens])
            parts[3 * side + 1].append(np.repeat(numbers, spans[:, 1] - spans[:, 0]))
            parts[3 * side + 2].append(places[tokens - 1])
        parts[6].append(np.full(len(numbers), number))
        parts[7].append(np.full(len(numbers), sequence.row))
    ours, chunk, places_T, theirs, their_chunk, positions, of, row = (_joined(part) for part in parts)
    first = torch.zeros(1, dtype=torch.int64)
    return AlignedBatch(
        packed.input,
        positions if count else first,
        ChunkTokens(theirs, their_chunk),
        places_T if count else first,
        ChunkTokens(ours, chunk),
        of,
        row,
    )


def _within(spans: np.ndarray) -> np.ndarray:
    """All positions of the spans, each from its begin to before its end, concatenated."""
    lengths = spans[:, 1] - spans[:, 0]
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(spans[:, 0] - before, lengths)


def _joined(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(0), *arrays]).astype(np.int64))
