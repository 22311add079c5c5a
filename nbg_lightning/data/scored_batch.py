"""Batches for a reward model: whole answers, and the positions at which their scores are read.

Shape suffixes: S sequences, of which 2i and 2i + 1 are the chosen and the rejected answer of pair i; P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from nbg_lightning.core.batch import IGNORE, PackedBatch
from nbg_lightning.core.context import ContextShard
from nbg_lightning.core.prefixes import pack_sequences
from nbg_lightning.data.pair_batch import PairBatch, pair_sequences


@dataclass
class ScoredBatch(PackedBatch):
    """Whole sequences in one row, without padding; a score is read at the last token of each, which ends the answer.

    Attributes:
        ends: positions of the last tokens in the row ``[S]``; if ranks share the row, only those in this rank's columns.
        domain: index of the domain of each pair ``[P]``.
        context: the ranks that share the row; None if it is whole.
        own: which sequences end on this rank; None if all do.
    """

    ends: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64), kw_only=True)
    domain: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64), kw_only=True)
    context: ContextShard | None = field(default=None, kw_only=True)
    own: Tensor | None = field(default=None, kw_only=True)

    @property
    def num_pairs(self) -> int:
        """Number of pairs P."""
        return len(self.domain)

    @property
    def num_counted(self) -> int:
        """Pairs that count on this rank: P, or 0 if another rank counts them."""
        return self.num_pairs if self.context is None or self.context.is_first else 0

    def part_of(self, context: ContextShard) -> ScoredBatch:
        """This rank's columns of the micro-batch, with the sequences that end in them; pairs stay whole.

        Raises:
            ValueError: the row's length is not a multiple of the group's size.
        """
        places, mine = context.find(self.ends, self.tokens.shape[1])
        whole = replace(self, ends=places[mine], own=mine.nonzero().flatten(), context=context)
        part = context.shard(whole)
        assert isinstance(part, ScoredBatch)
        return part

    def scores(self, own_scores: Tensor) -> Tensor:
        """The scores of all sequences ``[S]``, gathered from the ranks of the group, differentiable."""
        if self.context is None or self.own is None or not self.num_pairs:
            return own_scores
        return self.context.sum(own_scores.new_zeros(2 * self.num_pairs).index_add(0, self.own, own_scores))

    @classmethod
    def of(cls, batch: PairBatch, shortest: int | None, context: ContextShard | None = None) -> ScoredBatch:
        """The pairs of a micro-batch, each sequence including its last id, which is a label only there.

        Args:
            batch: the micro-batch, on the CPU.
            shortest: minimum length of a shared prefix (`pack_sequences`); None shares nothing.
            context: this rank's place among those that share the row, to return its part; None returns the whole row.
        """
        multiple = 1 if context is None else context.size
        sequences = pair_sequences(batch)
        packed = pack_sequences([sequence.ids for sequence in sequences] or [np.zeros(1, np.int64)], shortest, multiple)
        ends = [places[-1] for places in packed.places[: len(sequences)]]
        rows = [sequence.row for sequence in sequences]
        tokens, positions, documents = packed.input
        scored = cls(
            tokens=tokens,
            labels=torch.full_like(tokens, IGNORE),
            positions=positions,
            source=batch.source,
            sample_hash=batch.sample_hash,
            documents=documents,
            ends=torch.tensor(ends, dtype=torch.int64),
            domain=batch.source[torch.tensor(rows[::2], dtype=torch.int64)],
        )
        return scored if context is None else scored.part_of(context)


def read_scores(hidden_BLD: Tensor, weight_1D: Tensor, places: Tensor) -> Tensor:
    """The scores of a one-row head at some positions of the flattened row ``[S]``, in float32 (float64 for float64 weights).

    Without positions the result is empty and still part of the graph: other ranks may have pairs in this micro-batch.
    """
    dtype = torch.promote_types(weight_1D.dtype, torch.float32)
    chosen = places if len(places) else places.new_zeros(1)
    scores = hidden_BLD.flatten(0, 1).index_select(0, chosen).to(dtype) @ weight_1D[0].to(dtype)
    return scores[: len(places)] + (0.0 if len(places) else 0.0 * scores.sum())
