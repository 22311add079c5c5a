"""Batches for preference modules: rows of packed pairs, with targets from a teacher and a reference.

Shape suffixes: B rows, L positions, K ids listed by a teacher.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nbg_lightning.core.batch import IGNORE, PackedBatch, conversation_row
from nbg_lightning.core.context import ContextShard
from nbg_lightning.core.context_size import check_window
from nbg_lightning.core.documents import ModelInput
from nbg_lightning.core.prefixes import pack_sequences
from nbg_lightning.data.aligned_batch import AlignedBatch, WholeSequence
from nbg_lightning.data.pairs import RenderedPair


class SharedRow(NamedTuple):
    """The sequences of a micro-batch in one row without padding, with shared prefixes stored once; or a rank's part of it.

    Attributes:
        input: the model's input ``[1, L']``, or a rank's columns ``[B, l]``.
        places: index in it of each position of the flattened rows ``[B x L]``; 0 for padding and other ranks' positions.
    """

    input: ModelInput
    places: Tensor


@dataclass
class PairBatch(PackedBatch):
    """A `PackedBatch` of pairs: the chosen and the rejected sequence are consecutive documents of a row.

    Attributes:
        sequence: 2 x pair + side ``[B, L]`` (0 chosen, 1 rejected), pairs numbered in the order of the rows; -1 in padding.
        reference_log_probs: the reference's log-probability of each trained label ``[B, L]``, or None.
        teacher_ids: ids listed by the teacher at each trained position ``[B, L, K]`` int32, or None.
        teacher_log_probs: their log-probabilities ``[B, L, K]``.
        teacher_tail: log of the probability of all other ids ``[B, L]``.
        shared: the model's input in place of the rows, if prefixes are shared.
        aligned: chunks of text (`data.aligned_batch.AlignedBatch`) for a teacher with another tokenizer.
    """

    sequence: Tensor | None = None
    reference_log_probs: Tensor | None = None
    teacher_ids: Tensor | None = None
    teacher_log_probs: Tensor | None = None
    teacher_tail: Tensor | None = None
    shared: SharedRow | None = None
    aligned: AlignedBatch | None = None

    @property
    def input(self) -> ModelInput:
        """The model's input: the rows, or the row of shared prefixes."""
        return super().input if self.shared is None else self.shared.input

    def places(self, positions: Tensor) -> Tensor:
        """Indices in the model's input of some positions of the flattened rows."""
        return positions if self.shared is None else self.shared.places[positions]

    def with_shared_prefixes(self, shortest: int | None, multiple: int = 1) -> PairBatch:
        """The micro-batch with each prompt computed once, for both answers and for all pairs with the same beginning.

        Labels, sequences and targets keep their positions in the rows: only the model's input changes.

        Args:
            shortest: minimum length of a shared prefix; with None, or without any shared prefix, the micro-batch is unchanged.
            multiple: pad the row to a multiple of this length.
        """
        if shortest is None or self.sequence is None or not (self.sequence >= 0).any():
            return self
        of = self.sequence.flatten().numpy()
        present = np.flatnonzero(of >= 0)
        begins = np.flatnonzero(np.diff(of[present], prepend=-1))  # the positions of a sequence are consecutive
        packed = pack_sequences(np.split(self.tokens.flatten().numpy()[present], begins[1:]), shortest, multiple)
        assert packed.input.documents is not None
        if packed.input.documents.until is None:
            return self
        places = np.zeros(len(of), np.int64)
        places[present] = np.concatenate(packed.places)
        return replace(self, shared=SharedRow(packed.input, torch.from_numpy(places)))

    def part_of(self, context: ContextShard) -> PairBatch:
        """This rank's part of the micro-batch: its part of the model's input, with the labels of that part only.

        Rows, sequences and targets stay whole. Samples are counted on the first rank of the group.

        Raises:
            ValueError: the length of the model's input is not a multiple of the group's size.
        """
        whole, length = self.input, self.input.tokens.shape[1]
        check_window(context.size, length)
        places, mine = context.find(self.places(torch.arange(self.tokens.numel())), length)
        return replace(
            self,
            labels=torch.where(mine.view_as(self.labels), self.labels, IGNORE),
            sample_hash=self.sample_hash if context.is_first else torch.zeros_like(self.sample_hash),
            shared=SharedRow(context.input(whole), places),
        )

    @property
    def num_pairs(self) -> int:
        """Number of pairs in all rows."""
        assert self.sequence is not None
        return (int(self.sequence.max()) + 1) // 2

    def rows_of_pairs(self) -> Tensor:
        """Index of each pair's row ``[P]``."""
        assert self.sequence is not None
        row, column = (self.sequence >= 0).nonzero(as_tuple=True)
        return row.new_zeros(self.num_pairs).index_put_((self.sequence[row, column] // 2,), row)

    def _rows(self, rows: slice) -> PackedBatch:
        part = super()._rows(rows)
        assert isinstance(part, PairBatch) and part.sequence is not None
        present = part.sequence >= 0
        if present.any():  # numbered from 0 in each micro-batch
            part.sequence = torch.where(present, part.sequence - part.sequence[present].min(), -1)
        return part


class Targets(NamedTuple):
    """A teacher's targets at the trained positions: ids ``[n, K]``, log-probabilities ``[n, K]`` and tail ``[n]``."""

    ids: np.ndarray
    log_probs: np.ndarray
    tail: np.ndarray


class PairRow(NamedTuple):
    """One window of pairs: arrays ``[L]``, with sequences numbered from 0; the teacher's are ``[L, K]`` and ``[L]``."""

    tokens: np.ndarray
    labels: np.ndarray
    positions: np.ndarray
    sequence: np.ndarray
    reference: np.ndarray | None
    teacher: Targets | None


def pair_row(
    pairs: list[RenderedPair],
    length: int,
    references: list[np.ndarray] | None = None,
    targets: list[Targets] | None = None,
    k: int = 0,
) -> PairRow:
    """Pack pairs into one window, back to back.

    Args:
        pairs: the pairs.
        length: number of positions in the window.
        references: the reference's log-probabilities of each sequence's trained ids (chosen, rejected, chosen, ...).
        targets: the teacher's targets at each sequence's trained ids.
        k: number of ids that the teacher lists per position.
    """
    sequences = [side for pair in pairs for side in pair.sides]
    documents = [(ids, mask.astype(np.float32)) for ids, mask in sequences]
    tokens, labels, positions, weights = conversation_row(documents, length)
    sequence = np.full(length, -1, np.int64)
    begin = 0
    for number, (ids, _) in enumerate(sequences):
        sequence[begin : begin + len(ids) - 1] = number
        begin += len(ids) - 1
    trained = weights > 0
    reference = None
    if references is not None:
        reference = np.zeros(length, np.float32)
        reference[trained] = np.concatenate(references) if references else []
    teacher = None
    if targets is not None:
        teacher = Targets(
            np.zeros((length, k), np.int32), np.zeros((length, k), np.float32), np.zeros(length, np.float32)
        )
        for whole, parts in zip(teacher, zip(*targets, strict=True), strict=False):
            whole[trained] = np.concatenate(parts)
    return PairRow(tokens, labels, positions, sequence, reference, teacher)


def stack_pairs(rows: list[PairRow], source: np.ndarray, hashes: np.ndarray) -> PairBatch:
    """Stack rows of the same length into a batch."""
    counts = [int(row.sequence.max(initial=-1)) + 1 for row in rows]
    first = np.cumsum([0, *counts[:-1]])
    sequence = [np.where(row.sequence < 0, -1, row.sequence + begin) for row, begin in zip(rows, first, strict=True)]

    def stacked(arrays: list[np.ndarray | None]) -> Tensor | None:
        present = [array for array in arrays if array is not None]
        return torch.from_numpy(np.stack(present)) if present else None

    def needed(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays))

    return PairBatch(
        tokens=needed([row.tokens for row in rows]),
        labels=needed([row.labels for row in rows]),
        positions=needed([row.positions for row in rows]),
        source=torch.from_numpy(np.asarray(source, dtype=np.int64)),
        sample_hash=torch.from_numpy(np.asarray(hashes, dtype=np.int64)),
        sequence=needed(sequence),
        reference_log_probs=stacked([row.reference for row in rows]),
        teacher_ids=stacked([row.teacher and row.teacher.ids for row in rows]),
        teacher_log_probs=stacked([row.teacher and row.teacher.log_probs for row in rows]),
        teacher_tail=stacked([row.teacher and row.teacher.tail for row in rows]),
    )


def pair_sequences(batch: PairBatch) -> list[WholeSequence]:
    """The sequences of a micro-batch of pairs, on the CPU, in order."""
    assert batch.sequence is not None
    of = batch.sequence.flatten().numpy()
    present = np.flatnonzero(of >= 0)
    if not len(present):
        return []
    tokens, labels = batch.tokens.flatten().numpy(), batch.labels.flatten().numpy()
    width = batch.tokens.shape[1]
    found = []
    for own in np.split(present, np.flatnonzero(np.diff(of[present]) != 0) + 1):
        trained = np.append(False, labels[own] != IGNORE)
        places = batch.places(torch.from_numpy(own)).numpy()
        found.append(WholeSequence(np.append(tokens[own], labels[own[-1]]), trained, places, int(own[0]) // width))
    return found
