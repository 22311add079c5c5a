"""Sampled answers as micro-batches: prompt and completion of each a document, packed without padding.

Shape suffixes: L positions, T completion tokens, S answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.documents import Documents
from nbg_lightning.rl.rollouts import Rollout


@dataclass(frozen=True)
class TrainedAnswer:
    """One answer that is trained.

    Attributes:
        prompt: ids of the prompt, at least one.
        completion: ids that were drawn, at least one.
        log_probs: of the engine, one for each of these.
        advantage: see `losses.policy_gradient.group_advantages`.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    log_probs: tuple[float, ...]
    advantage: float

    @property
    def positions(self) -> int:
        """Room that it takes: the last token is only predicted."""
        return len(self.prompt) + len(self.completion) - 1


@dataclass
class RolloutBatch(PackedBatch):
    """A micro-batch of whole answers, one after the other in one row ``[1, L]``.

    Only completion tokens are predicted; hidden states of the other positions never reach the head.

    Attributes:
        predicting: the positions that predict a completion token ``[T]``.
        targets: the tokens they predict ``[T]``.
        sequence: the answer each belongs to ``[T]``.
        lengths: completion tokens of each answer ``[S]``.
        advantages: of each answer ``[S]``.
        engine_log_probs: of each token, as the engine gave them ``[T]``.
        old_log_probs: of each token under the weights that the step began with; None in the first update, which
            knows them itself.
        reference_log_probs: of each token under the reference, where there is one.
    """

    predicting: Tensor = dataclasses.field(kw_only=True)
    targets: Tensor = dataclasses.field(kw_only=True)
    sequence: Tensor = dataclasses.field(kw_only=True)
    lengths: Tensor = dataclasses.field(kw_only=True)
    advantages: Tensor = dataclasses.field(kw_only=True)
    engine_log_probs: Tensor = dataclasses.field(kw_only=True)
    old_log_probs: Tensor | None = dataclasses.field(default=None, kw_only=True)
    reference_log_probs: Tensor | None = dataclasses.field(default=None, kw_only=True)

    @property
    def num_answers(self) -> int:
        """S."""
        return len(self.lengths)

    @property
    def num_positions(self) -> int:
        """L; 0 of no answers, for which one position is computed."""
        return self.num_tokens if self.num_answers else 0

    @property
    def num_trained(self) -> int:
        """T."""
        return len(self.targets)


def trained_answers(rollouts: Sequence[Rollout]) -> list[TrainedAnswer]:
    """Pick the answers that are trained out of rollouts with advantages."""
    return [
        TrainedAnswer(rollout.prompt.ids, answer.completion.ids, answer.completion.log_probs, advantage)
        for rollout in rollouts
        for answer, advantage, trained in zip(rollout.answers, rollout.advantages, rollout.trained, strict=True)
        if trained
    ]


def pack_answers(answers: Sequence[TrainedAnswer]) -> RolloutBatch:
    """A micro-batch of these answers; of none, a row that is computed and trains nothing.

    Ranks with fewer answers need such rows: all must run the same number of forwards.
    """
    rows = [(*answer.prompt, *answer.completion) for answer in answers]
    begins = [0, *accumulate(answer.positions for answer in answers)]
    predicting = [
        begin + torch.arange(len(answer.prompt) - 1, answer.positions)
        for begin, answer in zip(begins, answers, strict=False)
    ]
    tokens = [token for row in rows for token in row[:-1]] or [0]
    positions = [torch.arange(answer.positions) for answer in answers] or [torch.zeros(1, dtype=torch.int64)]
    lengths = torch.tensor([len(answer.completion) for answer in answers], dtype=torch.int64)
    nothing = torch.zeros(1, dtype=torch.int64)
    return RolloutBatch(
        tokens=torch.tensor(tokens)[None],
        labels=nothing[None],  # `targets` has those that there are
        positions=torch.cat(positions)[None],
        source=nothing,
        sample_hash=nothing,
        documents=Documents(torch.tensor(begins if answers else [0, 1], dtype=torch.int32)),
        predicting=torch.cat(predicting) if predicting else nothing[:0],
        targets=torch.tensor([token for answer in answers for token in answer.completion], dtype=torch.int64),
        sequence=torch.arange(len(answers)).repeat_interleave(lengths),
        lengths=lengths,
        advantages=torch.tensor([answer.advantage for answer in answers], dtype=torch.float32),
        engine_log_probs=torch.tensor([x for answer in answers for x in answer.log_probs], dtype=torch.float32),
    )


def pack_micro_batches(
    answers: Sequence[TrainedAnswer], plan: Sequence[Sequence[int]], number: int
) -> list[RolloutBatch]:
    """The micro-batches of a plan, and behind them as many without answers as make up the number."""
    parts = [[answers[index] for index in part] for part in plan] + [[]] * (number - len(plan))
    return [pack_answers(part) for part in parts]


def plan_micro_batches(positions: Sequence[int], micro_batch_tokens: int) -> list[list[int]]:
    """Plan which answers share a forward: at most ``micro_batch_tokens`` positions, or one answer.

    Longest first, so that answers of one length are neighbours: attention computes these together.

    Example:
        >>> plan_micro_batches([3, 9, 4, 5], 8)
        [[1], [3], [2, 0]]
    """
    plan: list[list[int]] = []
    room = 0
    for index in sorted(range(len(positions)), key=lambda index: -positions[index]):
        if positions[index] > room:
            plan.append([])
            room = micro_batch_tokens
        plan[-1].append(index)
        room -= positions[index]
    return plan
