"""Distillation on a student's own answers: micro-batches with a teacher's targets, and one pass of the head for both models.

Shape suffixes: T completion tokens, V vocabulary, D hidden size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nbg_lightning.core.head_distillation import linear_preference
from nbg_lightning.core.head_teachers import LiveTargets, TopK
from nbg_lightning.data.aligned_batch import AlignedBatch
from nbg_lightning.losses.distillation import Divergence
from nbg_lightning.rl.metrics import RolloutSummary
from nbg_lightning.rl.policy_loss import completion_statistics
from nbg_lightning.rl.rollout_batch import RolloutBatch, TrainedAnswer
from nbg_lightning.rl.rollouts import Rollout
from nbg_lightning.rl.step import PackedStep


@dataclass
class DistillationBatch(RolloutBatch):
    """A micro-batch of answers for one teacher.

    Attributes:
        teacher: index of the teacher among the run's teachers.
        listed: its top-k lists for the completion tokens (with ``aligned``, for its own tokens of the chunks), if it was
            queried beforehand; None for a teacher that runs beside the student.
        aligned: chunks of text, for a teacher with another tokenizer.
    """

    teacher: int = dataclasses.field(default=0, kw_only=True)
    listed: TopK | None = dataclasses.field(default=None, kw_only=True)
    aligned: AlignedBatch | None = dataclasses.field(default=None, kw_only=True)

    @property
    def num_compared(self) -> int:
        """Number of tokens, or chunks, at which the student is compared with the teacher."""
        return self.num_trained if self.aligned is None else len(self.aligned.sequence)

    @classmethod
    def of(cls, batch: RolloutBatch, teacher: int, listed: TopK | None = None) -> DistillationBatch:
        """Attach a teacher to a micro-batch."""
        return cls(**{**vars(batch), "teacher": teacher, "listed": listed})


class TeacherStep(NamedTuple):
    """The packed answers to one teacher's questions."""

    teacher: int
    packed: PackedStep


def with_all_finished(rollouts: Iterable[Rollout]) -> list[Rollout]:
    """Mark every answer that the engine finished as trained, truncated or not.

    A teacher's targets for a token need neither a score nor the end of the answer. Answers that the policy term would
    exclude have an advantage of 0.
    """
    found = []
    for rollout in rollouts:
        finished = tuple(a.completion.finish_reason in ("stop", "length") for a in rollout.answers)
        advantages = tuple(a if t else 0.0 for a, t in zip(rollout.advantages, rollout.trained, strict=True))
        of_turns = tuple(
            own if t else (0.0,) * len(own) for own, t in zip(rollout.turn_advantages, rollout.trained, strict=False)
        )
        compared = dataclasses.replace(rollout, advantages=advantages, turn_advantages=of_turns)
        found.append(dataclasses.replace(compared, trained=finished))
    return found


def joined_summary(parts: Sequence[TeacherStep]) -> RolloutSummary:
    """The summary over all teachers' answers."""
    return RolloutSummary.joined([part.packed.summary for part in parts])


def with_answers(parts: Sequence[TeacherStep]) -> list[TeacherStep]:
    """The parts in which any rank has a trained answer; the first part if there are none. The same on all ranks."""
    kept = [part for part in parts if part.packed.summary.sums.get("rollout/trained", (0.0, 0.0))[0]]
    return kept or list(parts[:1])


def completion_mask(answer: TrainedAnswer) -> list[bool]:
    """Mask of the completion's ids in prompt and completion."""
    return [False] * len(answer.prompt) + [True] * len(answer.completion)


class DistillationResult(NamedTuple):
    """Result of `distillation_head`.

    Attributes:
        loss: weighted sum of the divergences, differentiable.
        divergences: divergence at each completion token, detached ``[T]``.
        log_probs: log-prob of each completion token at the sampling temperature ``[T]``, differentiable; empty if not
            requested.
        entropies: entropies of these distributions ``[T]``, detached.
    """

    loss: Tensor
    divergences: Tensor
    log_probs: Tensor
    entropies: Tensor


def distillation_head(
    hidden_BLD: Tensor,
    weight_VD: Tensor,
    batch: RolloutBatch,
    teacher: TopK | LiveTargets,
    weight: float,
    measure: Divergence,
    temperature: float | None,
) -> DistillationResult:
    """Divergences from a teacher at completion tokens, and log-probs for a policy loss if requested.

    Args:
        hidden_BLD: final hidden states.
        weight_VD: weight of the head.
        batch: the micro-batch; without tokens, one position is computed with a weight of 0, since other ranks may have
            some.
        teacher: the teacher's targets at `teacher_positions`.
        weight: weight of each token's divergence.
        measure: kind of divergence.
        temperature: sampling temperature; None skips log-probs and entropies.
    """
    positions, targets = teacher_positions(batch), batch.targets
    if not batch.num_trained:
        targets, weight = positions.new_zeros(1), 0.0
    hidden_TD = hidden_BLD.flatten(0, 1).index_select(0, positions)
    weights = torch.full_like(targets, weight, dtype=torch.float32)
    one = torch.zeros_like(targets)  # all in one sequence: results here do not depend on sequences
    found = linear_preference(hidden_TD, weight_VD, targets, one, 2, None, teacher, weights, measure)
    assert found.divergences is not None
    nothing = found.divergences.new_zeros(0)
    if temperature is None:
        return DistillationResult(found.loss, found.divergences, nothing, nothing)
    statistics = completion_statistics(hidden_BLD, weight_VD, batch.predicting, batch.targets, temperature)
    return DistillationResult(found.loss, found.divergences, *statistics)


def teacher_positions(batch: RolloutBatch) -> Tensor:
    """Positions at which a teacher is compared: those that predict completion tokens, or the first position if there are
    none.
    """
    return batch.predicting if batch.num_trained else batch.predicting.new_zeros(1)
