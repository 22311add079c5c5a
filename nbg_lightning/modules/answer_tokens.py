"""The trained tokens of answer pairs, and the model head's outputs for them.

Shape suffixes: T trained tokens, S sequences (2 x pair + side), D hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from nbg_lightning.core.batch import IGNORE
from nbg_lightning.core.context import ContextShard
from nbg_lightning.core.head_distillation import PreferenceResult, linear_log_probs, linear_preference
from nbg_lightning.core.head_teachers import LiveTargets, TopK
from nbg_lightning.data.pair_batch import PairBatch
from nbg_lightning.losses.distillation import Divergence


class AnswerTokens(NamedTuple):
    """The T trained tokens of a micro-batch.

    Attributes:
        positions: their positions in the flattened rows ``[T]``.
        places: their positions in the model's input ``[T]``: the same, unless prefixes are shared.
        labels: their target ids ``[T]``.
        sequence: 2 x pair + side ``[T]``, ascending.
        num_pairs: pairs of the micro-batch.
        lengths: trained tokens of each sequence ``[2 x pairs]``.
        context: the ranks that hold other tokens of these sequences; None if all of them are on this rank.
    """

    positions: Tensor
    places: Tensor
    labels: Tensor
    sequence: Tensor
    num_pairs: int
    lengths: Tensor
    context: ContextShard | None = None

    @classmethod
    def of(cls, batch: PairBatch, context: ContextShard | None = None) -> AnswerTokens:
        """Find the trained tokens of a micro-batch; with ``context``, those on this rank of sequences spread over its ranks."""
        assert batch.sequence is not None
        labels = batch.labels.flatten()
        positions = (labels != IGNORE).nonzero().flatten()
        sequence = batch.sequence.flatten()[positions]
        pairs = batch.num_pairs
        lengths = torch.bincount(sequence, minlength=2 * pairs)
        if context is not None:
            context.add_up(lengths)
        return cls(positions, batch.places(positions), labels[positions], sequence, pairs, lengths, context)

    def sums(self, values_T: Tensor) -> Tensor:
        """Sum of each sequence's values, in float64."""
        zeros = torch.zeros(2 * self.num_pairs, dtype=torch.float64, device=values_T.device)
        own = zeros.index_add_(0, self.sequence, values_T.double())
        return own if self.context is None else self.context.add_up(own)

    def side(self, index: int) -> Tensor:
        """Mask of the tokens that belong to chosen (0) or rejected (1) answers ``[T]``."""
        return self.sequence % 2 == index


def preference_head(
    hidden_BLD: Tensor,
    weight_VD: Tensor,
    answers: AnswerTokens,
    sequence_loss: Any,
    teacher: TopK | LiveTargets | None,
    weights: Tensor | None,
    measure: Divergence,
) -> PreferenceResult:
    """Log-probabilities of the answers and divergences from the teacher in one pass: see `linear_preference`."""
    hidden_TD = hidden_BLD.flatten(0, 1).index_select(0, answers.places)
    sequences = (answers.labels, answers.sequence, 2 * answers.num_pairs)
    add_up = None if answers.context is None else answers.context.add_up
    return linear_preference(hidden_TD, weight_VD, *sequences, sequence_loss, teacher, weights, measure, add_up=add_up)


def label_log_probs(hidden_BLD: Tensor, weight_VD: Tensor, answers: AnswerTokens) -> Tensor:
    """Log-probabilities of the trained tokens ``[T]``."""
    hidden_TD = hidden_BLD.flatten(0, 1).index_select(0, answers.places)
    return linear_log_probs(hidden_TD, weight_VD, answers.labels)
