"""The sequences of a micro-batch beside the same text in a teacher's tokens.

Shape suffixes: C chunks; T tokens of the student in them, N of the teacher.
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
    """A sequence as the teacher reads it: its ids, and where chunks are in ours and theirs ``[C, 2]``."""

    @property
    def ids(self) -> np.ndarray: ...

    @property
    def ours(self) -> np.ndarray: ...

    @property
    def theirs(self) -> np.ndarray: ...


class AlignedBatch(NamedTuple):
    """Chunks of a micro-batch, and what the teacher reads for them.

    Attributes:
        input: what goes through the teacher ``[1, L]``.
        positions: where its tokens of the chunks are predicted in that ``[N]``; of no chunk, the first.
        theirs: these tokens.
        places: where the student's are predicted in its own flattened input ``[T]``; of no chunk, the first.
        ours: these.
        sequence: the sequence of each chunk ``[C]``.
        row: the row of the batch of each chunk ``[C]``.
        listed: what the teacher lists at each of ``theirs``; None of one that runs here.
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
        ids: all of them, the last of which goes through no model.
        trained: which have a loss as labels.
        places: of each id but the last, where it is in what goes through the student; -1 where that is not asked for.
        row: of the batch.
    """

    ids: np.ndarray
    trained: np.ndarray
    places: np.ndarray
    row: int


def aligned_batch(sequences: Sequence[WholeSequence], aligned: Sequence[Aligned], shortest: int | None) -> AlignedBatch:
    """The chunks of sequences, and one row of them for the teacher.

    Args:
        sequences: of the student.
        aligned: each as the teacher reads it.
        shortest: length of what sequences share in the teacher's row, at least (`pack_sequences`); None shares nothing.
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
    """The places from each span's begin to before its end, one span after the other."""
    lengths = spans[:, 1] - spans[:, 0]
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(spans[:, 0] - before, lengths)


def _joined(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(0), *arrays]).astype(np.int64))
