"""A student's own answers against a teacher: micro-batches with what the teacher says, and one pass of the head over both.

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
    """A micro-batch of answers that one teacher is asked about.

    Attributes:
        teacher: its index among the run's teachers.
        listed: what it said of the completion tokens (with ``aligned``, of its own tokens of the chunks), where it was asked
            before; None for one that runs beside the student.
        aligned: chunks of text, for a teacher of another tokenizer.
    """

    teacher: int = dataclasses.field(default=0, kw_only=True)
    listed: TopK | None = dataclasses.field(default=None, kw_only=True)
    aligned: AlignedBatch | None = dataclasses.field(default=None, kw_only=True)

    @property
    def num_compared(self) -> int:
        """Tokens, or chunks, at which the student is compared with the teacher."""
        return self.num_trained if self.aligned is None else len(self.aligned.sequence)

    @classmethod
    def of(cls, batch: RolloutBatch, teacher: int, listed: TopK | None = None) -> DistillationBatch:
        """A micro-batch with its teacher."""
        return cls(**{**vars(batch), "teacher": teacher, "listed": listed})


class TeacherStep(NamedTuple):
    """The answers of one teacher's questions, packed."""

    teacher: int
    packed: PackedStep


def with_all_finished(rollouts: Iterable[Rollout]) -> list[Rollout]:
    """The rollouts with every answer trained that the engine finished, cut or not.

    What a teacher says of a token needs neither a score nor the answer's end. An answer that the policy term would not train
    has an advantage of 0.
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
    """What all teachers' answers are like."""
    return RolloutSummary.joined([part.packed.summary for part in parts])


def with_answers(parts: Sequence[TeacherStep]) -> list[TeacherStep]:
    """The parts of which some rank has a trained answer; the first one where none has. The same on all ranks."""
    kept = [part for part in parts if part.packed.summary.sums.get("rollout/trained", (0.0, 0.0))[0]]
    return kept or list(parts[:1])


def completion_mask(answer: TrainedAnswer) -> list[bool]:
    """Which ids of prompt and completion are the completion's."""
    return [False] * len(answer.prompt) + [True] * len(answer.completion)


class DistillationResult(NamedTuple):
    """Result of `distillation_head`.

    Attributes:
        loss: the sum of the divergences times their weight, differentiable.
        divergences: of each completion token, detached ``[T]``.
        log_probs: of each completion token at the temperature of sampling ``[T]``, differentiable; of none, where it was not
            asked for.
        entropies: of these distributions ``[T]``, detached.
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
    """Divergences from a teacher on completion tokens, and log-probs for a policy loss where it is asked for.

    Args:
        hidden_BLD: final hidden states.
        weight_VD: the head's weight.
        batch: of no tokens, one position is computed with a weight of 0: other ranks have some in this micro-batch.
        teacher: what it says at `teacher_positions`.
        weight: of each token's divergence.
        measure: which divergence.
        temperature: of sampling; None leaves log-probs and entropies out.
    """
    positions, targets = teacher_positions(batch), batch.targets
    if not batch.num_trained:
        targets, weight = positions.new_zeros(1), 0.0
    hidden_TD = hidden_BLD.flatten(0, 1).index_select(0, positions)
    weights = torch.full_like(targets, weight, dtype=torch.float32)
    one = torch.zeros_like(targets)  # all of one sequence: nothing here is a matter of sequences
    found = linear_preference(hidden_TD, weight_VD, targets, one, 2, None, teacher, weights, measure)
    assert found.divergences is not None
    nothing = found.divergences.new_zeros(0)
    if temperature is None:
        return DistillationResult(found.loss, found.divergences, nothing, nothing)
    statistics = completion_statistics(hidden_BLD, weight_VD, batch.predicting, batch.targets, temperature)
    return DistillationResult(found.loss, found.divergences, *statistics)


def teacher_positions(batch: RolloutBatch) -> Tensor:
    """Positions at which a teacher is compared: those that predict completion tokens, or the first where there are none."""
    return batch.predicting if batch.num_trained else batch.predicting.new_zeros(1)
