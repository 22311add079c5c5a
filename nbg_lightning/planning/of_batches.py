"""What batches hold, of which the time of a step is planned: documents, padding, shared prefixes, and trained tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nbg_lightning.core.batch import IGNORE, PackedBatch, attended_length
from nbg_lightning.data.pair_batch import PairBatch


@dataclass
class HeldTokens:
    """Sums over batches.

    Attributes:
        positions: positions of the rows.
        computed: positions that the blocks compute.
        reached: sum of the positions of these in their documents.
        predicted: positions with a label.
    """

    positions: int = 0
    computed: int = 0
    reached: int = 0
    predicted: int = 0

    def add(self, batches: Iterable[PackedBatch], micro_batch_tokens: int, shortest: int | None = None) -> None:
        """Add batches, as a rank computes them.

        Args:
            batches: batches of whole rows.
            micro_batch_tokens: positions of a forward pass of a rank, or of a context group.
            shortest: minimum length of a prefix that the sequences of pairs share in a forward pass; None to share none.
        """
        for micro in (micro for batch in batches for micro in batch.split(micro_batch_tokens)):
            self.positions += micro.tokens.numel()
            self.predicted += int((micro.labels != IGNORE).sum())
            used = micro.with_shared_prefixes(shortest) if isinstance(micro, PairBatch) else micro
            self.computed += used.input.tokens.numel()
            self.reached += int(used.input.positions.sum())

    @property
    def attended(self) -> int:
        """Mean document length, weighted by tokens."""
        return attended_length(self.reached, self.computed)
