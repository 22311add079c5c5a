"""Sampled answers as micro-batches: prompts and completions packed without padding, a group's prompt computed once.

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
    """One contiguous sequence that the model read and wrote.

    Attributes:
        prompt: ids of the prompt, at least one.
        completion: ids that follow, at least one.
        log_probs: the engine's log-probs, one per completion id.
        drawn: which of these the model sampled; the others are context. None: all.
        advantages: advantage of each of these; None: the answer's.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    log_probs: tuple[float, ...]
    drawn: tuple[bool, ...] | None = None
    advantages: tuple[float, ...] | None = None

    @property
    def positions(self) -> int:
        """Number of positions: the last token is only predicted."""
        return len(self.prompt) + len(self.completion) - 1

    @property
    def places(self) -> list[int]:
        """Indices of the trained tokens in the completion."""
        number = len(self.completion)
        return list(range(number)) if self.drawn is None else [n for n in range(number) if self.drawn[n]]


@dataclass(frozen=True)
class TrainedAnswer:
    """One trained answer: a row, or several if a multi-turn history was rewritten on the way.

    Attributes:
        prompt: ids of the prompt, at least one.
        completion: sampled ids, at least one; for an episode, including the context between its turns.
        log_probs: the engine's log-probs, one per completion id.
        advantage: see `losses.policy_gradient.group_advantages`.
        drawn: see `TrainedRow`.
        token_advantages: see `TrainedRow.advantages`.
        further: rows after the first. The tokens of all rows belong to one answer.
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
        """Number of positions of all rows."""
        return sum(row.positions for row in self.rows)


@dataclass
class RolloutBatch(PackedBatch):
    """A micro-batch of whole answers in one row ``[1, L]``, concatenated, or with common prefixes shared.

    Only completion tokens are predicted; hidden states of other positions never reach the head. If ranks share a
    micro-batch (`part_of`), each has the tokens T that its columns predict, of the answers S of all of them.

    Attributes:
        predicting: positions that predict a completion token ``[T]``.
        targets: tokens that they predict ``[T]``.
        sequence: index of each token's answer ``[T]``.
        lengths: completion tokens of each answer ``[S]``.
        advantages: advantage of each answer ``[S]``.
        token_advantages: advantage of each token ``[T]``, if turns of an answer have different ones.
        engine_log_probs: log-prob of each token as given by the engine ``[T]``.
        old_log_probs: log-prob of each token under the weights at the start of the step ``[T]``; None in the first update,
            which computes them itself.
        reference_log_probs: log-prob of each token under the reference, if there is one.
        context: the ranks that share these answers; None if they are whole.
        own: which of the completion tokens of all these ranks are on this rank ``[T]``; None if all are.
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
        """Advantage of each token."""
        return self.advantages[self.sequence] if self.token_advantages is None else self.token_advantages

    @property
    def num_answers(self) -> int:
        """Number of answers (S)."""
        return len(self.lengths)

    @property
    def num_counted(self) -> int:
        """Number of answers counted on this rank: S, or 0 if another rank counts them."""
        return self.num_answers if self.context is None or self.context.is_first else 0

    @property
    def num_positions(self) -> int:
        """Number of positions (L); 0 without answers, for which one position is computed."""
        return self.num_tokens if self.num_answers else 0

    @property
    def num_trained(self) -> int:
        """Number of completion tokens (T)."""
        return len(self.targets)

    def part_of(self, context: ContextShard) -> RolloutBatch:
        """This rank's columns of the micro-batch, and the completion tokens that they predict; answers stay whole.

        Raises:
            ValueError: L is not a multiple of the group's size.
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
    """Select the trained answers from rollouts with advantages."""
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
    """Pack answers into a micro-batch; without answers, a row that is computed and trains nothing.

    Ranks with fewer answers need such rows, since all must run the same number of forward passes.

    Args:
        answers: the answers.
        shortest: minimum length of common prefixes that are computed once (`core.prefixes`); None computes each answer
            separately.
        context: this rank's position among those that share the micro-batch, whose part is returned; None returns it whole.
    """
    rows = [row for answer in answers for row in answer.rows]
    trained = [row.places for row in rows]
    multiple = 1 if context is None else context.size
    packed = pack_sequences([(*row.prompt, *row.completion)[:-1] for row in rows] or [(0,)], shortest, multiple)
    # A prompt's last token predicts the first token of each of its completions, so its position occurs once per completion.
    predicting = [
        places[len(row.prompt) - 1 :][own] for places, row, own in zip(packed.places, rows, trained, strict=False)
    ]
    lengths = torch.tensor([sum(len(row.places) for row in answer.rows) for answer in answers], dtype=torch.int64)
    nothing = torch.zeros(1, dtype=torch.int64)
    batch = RolloutBatch(
        tokens=packed.input.tokens,
        labels=nothing[None],  # `targets` has the actual ones
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
    """Advantages of the trained tokens, if those of some answer differ between turns."""
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
    """Assign answers to forward passes if answers to one prompt share it.

    A group that does not fit is split, and each part includes the prompt. Parts are placed by best fit.

    Args:
        answers: answers of all groups.
        micro_batch_tokens: maximum positions per forward pass, counting prompts of parts once; at least one answer.
        shortest: shorter prompts are not shared.

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
    """Assign answers to forward passes of at most ``micro_batch_tokens`` positions, or one answer.

    Longest first, so that answers of equal length are adjacent: attention computes these together.

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
