"""Sampled answers as micro-batches: prompt and completion of each, packed without padding, a group's prompt computed once.

Shape suffixes: L positions, T completion tokens, S answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.context import ContextShard
from nbg_lightning.core.context_size import check_window
from nbg_lightning.core.prefixes import pack_sequences
from nbg_lightning.data.packing import best_fit_decreasing
from nbg_lightning.environments.episode import Episode
from nbg_lightning.rl.rollouts import Rollout


@dataclass(frozen=True)
class TrainedRow:
    """What the model read and wrote without a cut.

    Attributes:
        prompt: ids of the prompt, at least one.
        completion: what follows, at least one id.
        log_probs: of the engine, one for each of these.
        drawn: which of these the model drew; the others are context. None: all.
        advantages: of each of these; None: the answer's.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    log_probs: tuple[float, ...]
    drawn: tuple[bool, ...] | None = None
    advantages: tuple[float, ...] | None = None

    @property
    def positions(self) -> int:
        """Room that it takes: the last token is only predicted."""
        return len(self.prompt) + len(self.completion) - 1

    @property
    def places(self) -> list[int]:
        """Which of the completion's tokens are trained."""
        number = len(self.completion)
        return list(range(number)) if self.drawn is None else [n for n in range(number) if self.drawn[n]]


@dataclass(frozen=True)
class TrainedAnswer:
    """One answer that is trained: a row, or several where a history of several turns was rewritten on the way.

    Attributes:
        prompt: ids of the prompt, at least one.
        completion: ids that were drawn, at least one; of an episode, with the context between its turns.
        log_probs: of the engine, one for each of these.
        advantage: see `losses.policy_gradient.group_advantages`.
        drawn: as in `TrainedRow`.
        token_advantages: as `TrainedRow.advantages`.
        further: rows behind the first. The tokens of all rows are those of one answer.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    log_probs: tuple[float, ...]
    advantage: float
    drawn: tuple[bool, ...] | None = None
    token_advantages: tuple[float, ...] | None = None
    further: tuple[TrainedRow, ...] = ()

    @property
    def rows(self) -> tuple[TrainedRow, ...]:
        """All its rows."""
        first = TrainedRow(self.prompt, self.completion, self.log_probs, self.drawn, self.token_advantages)
        return (first, *self.further)

    @property
    def positions(self) -> int:
        """Room that it takes."""
        return sum(row.positions for row in self.rows)


@dataclass
class RolloutBatch(PackedBatch):
    """A micro-batch of whole answers in one row ``[1, L]``, one after the other or with what they begin with in common.

    Only completion tokens are predicted; hidden states of the other positions never reach the head. Of ranks that share a
    micro-batch (`part_of`) each has the tokens T that its columns predict, of the answers S of all of them.

    Attributes:
        predicting: the positions that predict a completion token ``[T]``.
        targets: the tokens they predict ``[T]``.
        sequence: the answer each belongs to ``[T]``.
        lengths: completion tokens of each answer ``[S]``.
        advantages: of each answer ``[S]``.
        token_advantages: of each token ``[T]``, where turns of an answer have different ones.
        engine_log_probs: of each token, as the engine gave them ``[T]``.
        old_log_probs: of each token under the weights that the step began with; None in the first update, which
            knows them itself.
        reference_log_probs: of each token under the reference, where there is one.
        context: the ranks that have a part of these answers each; None where they are whole.
        own: which of the completion tokens of all these ranks are here ``[T]``; None where all are.
    """

    predicting: Tensor = dataclasses.field(kw_only=True)
    targets: Tensor = dataclasses.field(kw_only=True)
    sequence: Tensor = dataclasses.field(kw_only=True)
    lengths: Tensor = dataclasses.field(kw_only=True)
    advantages: Tensor = dataclasses.field(kw_only=True)
    engine_log_probs: Tensor = dataclasses.field(kw_only=True)
    token_advantages: Tensor | None = dataclasses.field(default=None, kw_only=True)
    old_log_probs: Tensor | None = dataclasses.field(default=None, kw_only=True)
    reference_log_probs: Tensor | None = dataclasses.field(default=None, kw_only=True)
    context: ContextShard | None = dataclasses.field(default=None, kw_only=True)
    own: Tensor | None = dataclasses.field(default=None, kw_only=True)

    @property
    def advantages_T(self) -> Tensor:
        """Of each token."""
        return self.advantages[self.sequence] if self.token_advantages is None else self.token_advantages

    @property
    def num_answers(self) -> int:
        """S."""
        return len(self.lengths)

    @property
    def num_counted(self) -> int:
        """Answers that are counted on this rank: S, or 0 where another rank counts them."""
        return self.num_answers if self.context is None or self.context.is_first else 0

    @property
    def num_positions(self) -> int:
        """L; 0 of no answers, for which one position is computed."""
        return self.num_tokens if self.num_answers else 0

    @property
    def num_trained(self) -> int:
        """T."""
        return len(self.targets)

    def part_of(self, context: ContextShard) -> RolloutBatch:
        """The micro-batch with this rank's columns, and the completion tokens that they predict; answers stay whole.

        Raises:
            ValueError: L is no multiple of the group's size.
        """
        check_window(context.size, self.num_tokens)
        places, mine = context.find(self.predicting, self.num_tokens)
        tokens, positions, documents = context.input(self.input)
        return dataclasses.replace(
            self,
            tokens=tokens,
            positions=positions,
            documents=documents,
            predicting=places[mine],
            targets=self.targets[mine],
            sequence=self.sequence[mine],
            engine_log_probs=self.engine_log_probs[mine],
            token_advantages=None if self.token_advantages is None else self.token_advantages[mine],
            context=context,
            own=mine.nonzero().flatten(),
        )


def trained_answers(rollouts: Sequence[Rollout]) -> list[TrainedAnswer]:
    """Pick the answers that are trained out of rollouts with advantages."""
    return [
        _trained(rollout, index) for rollout in rollouts for index, trained in enumerate(rollout.trained) if trained
    ]


def _trained(rollout: Rollout, index: int) -> TrainedAnswer:
    answer, advantage = rollout.answers[index], rollout.advantages[index]
    if not isinstance(answer, Episode):
        return TrainedAnswer(rollout.prompt.ids, answer.completion.ids, answer.completion.log_probs, advantage)
    turns = rollout.turn_advantages[index] if rollout.turn_advantages else None
    first, *further = (
        TrainedRow(
            each.prompt,
            each.ids,
            each.log_probs,
            each.drawn,
            None if turns is None else tuple(turns[turn] for turn in each.turns),
        )
        for each in answer.segments
    )
    return TrainedAnswer(
        first.prompt, first.completion, first.log_probs, advantage, first.drawn, first.advantages, tuple(further)
    )


def pack_answers(
    answers: Sequence[TrainedAnswer], shortest: int | None = None, context: ContextShard | None = None
) -> RolloutBatch:
    """A micro-batch of these answers; of none, a row that is computed and trains nothing.

    Ranks with fewer answers need such rows: all must run the same number of forwards.

    Args:
        answers: which.
        shortest: length of what answers begin with that is computed once, at least (`core.prefixes`); None computes each by
            itself.
        context: this rank's place among those that share the micro-batch, of which it gets its part; None gives it whole.
    """
    rows = [row for answer in answers for row in answer.rows]
    trained = [row.places for row in rows]
    multiple = 1 if context is None else context.size
    packed = pack_sequences([(*row.prompt, *row.completion)[:-1] for row in rows] or [(0,)], shortest, multiple)
    # A prompt's last token predicts the first of each of its completions: its place is there once for each.
    predicting = [
        places[len(row.prompt) - 1 :][own] for places, row, own in zip(packed.places, rows, trained, strict=False)
    ]
    lengths = torch.tensor([sum(len(row.places) for row in answer.rows) for answer in answers], dtype=torch.int64)
    nothing = torch.zeros(1, dtype=torch.int64)
    batch = RolloutBatch(
        tokens=packed.input.tokens,
        labels=nothing[None],  # `targets` has those that there are
        positions=packed.input.positions,
        source=nothing,
        sample_hash=nothing,
        documents=packed.input.documents,
        predicting=torch.from_numpy(np.concatenate(predicting)) if predicting else nothing[:0],
        targets=torch.tensor(
            [row.completion[n] for row, own in zip(rows, trained, strict=True) for n in own], dtype=torch.int64
        ),
        sequence=torch.arange(len(answers)).repeat_interleave(lengths),
        lengths=lengths,
        advantages=torch.tensor([answer.advantage for answer in answers], dtype=torch.float32),
        engine_log_probs=torch.tensor(
            [row.log_probs[n] for row, own in zip(rows, trained, strict=True) for n in own], dtype=torch.float32
        ),
        token_advantages=_token_advantages(answers),
    )
    return batch if context is None else batch.part_of(context)


def _token_advantages(answers: Sequence[TrainedAnswer]) -> Tensor | None:
    """Advantages of the trained tokens, where some answer's differ from turn to turn."""
    if all(row.advantages is None for answer in answers for row in answer.rows):
        return None
    values = [
        answer.advantage if row.advantages is None else row.advantages[n]
        for answer in answers
        for row in answer.rows
        for n in row.places
    ]
    return torch.tensor(values, dtype=torch.float32)


def plan_groups(answers: Sequence[TrainedAnswer], micro_batch_tokens: int, shortest: int) -> list[list[int]]:
    """Plan which answers share a forward where those of one prompt have it in common.

    A group that does not fit is cut, and each part has the prompt. Parts go where least room is left over.

    Args:
        answers: of all groups.
        micro_batch_tokens: positions of a forward at most, prompts of parts counted once; or one answer.
        shortest: prompts of fewer tokens are not shared.

    Example:
        >>> group = [TrainedAnswer((1, 2, 3), (number, 0), (0.0, 0.0), 1.0) for number in range(4, 8)]
        >>> plan_groups(group, 5, shortest=2)
        [[0, 1], [2, 3]]
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, answer in enumerate(answers):
        groups.setdefault(answer.prompt, []).append(index)
    parts: list[list[int]] = []
    sizes: list[int] = []
    for prompt, group in groups.items():
        room = -1  # no part is open
        for index in sorted(group, key=lambda index: -answers[index].positions):
            own = answers[index].positions - len(prompt)
            if own > room or len(prompt) < shortest:
                parts.append([])
                sizes.append(len(prompt))
                room = micro_batch_tokens - len(prompt)
            parts[-1].append(index)
            sizes[-1] += own
            room -= own
    bins = best_fit_decreasing([min(size, micro_batch_tokens) for size in sizes], micro_batch_tokens) if parts else []
    return [[index for part in own for index in parts[part]] for own in bins]


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
