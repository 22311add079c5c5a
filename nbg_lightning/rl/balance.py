"""Load balancing of answers over ranks, so that each trains on about the same number of positions, with identical gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nbg_lightning.distributed import gather_objects, get_rank
from nbg_lightning.rl.rollout_batch import TrainedAnswer

_ROUNDS = 8  # maximum moves of answers per rank


class AnswerSize(NamedTuple):
    """Size of an answer in positions.

    Attributes:
        group: index of the answers that share a prompt.
        prompt: positions of the prompt, which a rank computes once for all of its answers in the group; 0 if nothing is
            shared.
        own: positions of this answer alone.
    """

    group: int
    prompt: int
    own: int


def answer_sizes(answers: Sequence[TrainedAnswer], shortest: int | None) -> list[AnswerSize]:
    """Sizes of a rank's answers.

    Args:
        answers: the answers.
        shortest: minimum length of prompts that are computed once per group; None computes each prompt for each answer.
    """
    groups: dict[tuple[int, ...], int] = {}
    sizes = []
    for answer in answers:
        shared = len(answer.prompt) if shortest is not None and len(answer.prompt) >= shortest else 0
        group = groups.setdefault(answer.prompt, len(groups))
        sizes.append(AnswerSize(group, shared, answer.positions - shared))
    return sizes


def num_positions(sizes: Sequence[AnswerSize]) -> int:
    """Positions that a rank computes for these answers.

    Example:
        >>> num_positions([AnswerSize(0, 10, 3), AnswerSize(0, 10, 4), AnswerSize(1, 0, 5)])
        22
    """
    return sum({size.group: size.prompt for size in sizes}.values()) + sum(size.own for size in sizes)


def rank_positions(answers: Sequence[TrainedAnswer], shortest: int | None) -> int:
    """Positions of a rank's answers; see `answer_sizes`."""
    return num_positions(answer_sizes(answers, shortest))


def balanced_answers(answers: Sequence[TrainedAnswer], shortest: int | None) -> list[TrainedAnswer]:
    """The answers that this rank trains on, out of those of all ranks. Collective.

    Args:
        answers: this rank's own.
        shortest: see `answer_sizes`.
    """
    sizes = gather_objects(answer_sizes(answers, shortest))
    target, rank = plan_ranks(sizes), get_rank()
    leaving = [(index, answer) for index, answer in enumerate(answers) if target[rank][index] != rank]
    others = [dict(each) for each in gather_objects(leaving)]
    others[rank] = dict(enumerate(answers))
    return [
        others[origin][index]
        for origin, targets in enumerate(target)
        for index, goes_to in enumerate(targets)
        if goes_to == rank
    ]


def plan_ranks(sizes: Sequence[Sequence[AnswerSize]]) -> list[list[int]]:
    """Assign answers to ranks by moving parts of groups from the most loaded rank to the least loaded one.

    Args:
        sizes: sizes of each rank's answers, in order.

    Returns:
        The rank of each of them.

    Example:
        >>> plan_ranks([[AnswerSize(0, 0, 8), AnswerSize(1, 0, 7), AnswerSize(2, 0, 2)], [AnswerSize(0, 0, 1)]])
        [[1, 0, 0], [1]]
    """
    ranks = [_Rank(sizes) for _ in sizes]
    for origin, own in enumerate(sizes):
        for index, size in enumerate(own):
            ranks[origin].take((origin, size.group), [(origin, index)])
    for _ in range(_ROUNDS * len(ranks)):
        if not _move(ranks):
            break
    found = [[0] * len(own) for own in sizes]
    for place, rank in enumerate(ranks):
        for answers in rank.groups.values():
            for origin, index in answers:
                found[origin][index] = place
    return found


class _Rank:
    """The workload of one rank."""

    def __init__(self, sizes: Sequence[Sequence[AnswerSize]]):
        self.sizes, self.load = sizes, 0
        self.groups: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def cost(self, key: tuple[int, int], answers: Sequence[tuple[int, int]]) -> int:
        """Positions added by answers of a group."""
        origin, index = answers[0]
        prompt = 0 if key in self.groups else self.sizes[origin][index].prompt
        return prompt + sum(self.sizes[origin][index].own for origin, index in answers)

    def take(self, key: tuple[int, int], answers: Sequence[tuple[int, int]]) -> None:
        self.load += self.cost(key, answers)
        self.groups.setdefault(key, []).extend(answers)

    def gain(self, key: tuple[int, int], answers: Sequence[tuple[int, int]]) -> int:
        """Positions saved by removing answers of a group."""
        origin, index = answers[0]
        prompt = self.sizes[origin][index].prompt if len(answers) == len(self.groups[key]) else 0
        return prompt + sum(self.sizes[origin][index].own for origin, index in answers)

    def leave(self, key: tuple[int, int], answers: Sequence[tuple[int, int]]) -> None:
        self.load -= self.gain(key, answers)
        self.groups[key] = [each for each in self.groups[key] if each not in answers]
        if not self.groups[key]:
            del self.groups[key]


def _move(ranks: Sequence[_Rank]) -> bool:
    """Move answers of a group from the most loaded rank to the least loaded one, if that lowers the maximum of the two."""
    most, least = max(ranks, key=lambda rank: rank.load), min(ranks, key=lambda rank: rank.load)
    best, found = most.load, None
    for key, answers in most.groups.items():
        longest_first = sorted(answers, key=lambda place: (-most.sizes[place[0]][place[1]].own, place))
        for order in (longest_first, longest_first[::-1]):
            for number in range(1, len(order) + 1):
                part = order[:number]
                larger = max(most.load - most.gain(key, part), least.load + least.cost(key, part))
                if larger < best:
                    best, found = larger, (key, part)
    if found is None:
        return False
    most.leave(*found)
    least.take(*found)
    return True
