"""Choice of pairs among the answers to a question."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PairRule:
    """The rule by which answers to a question become pairs.

    Attributes:
        margin: minimum difference between the scores of the chosen and the rejected answer.
        min_chosen_score: minimum score of the chosen answer.
        pairs_per_question: maximum number of pairs; those with the largest margins, using every answer once.
    """

    margin: float = 0.5
    min_chosen_score: float = 1.0
    pairs_per_question: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin) and self.margin > 0):
            raise ValueError(f"margin is invalid: {self.margin}; give more than 0")
        if math.isnan(self.min_chosen_score):
            raise ValueError("min_chosen_score is invalid: nan; give a number")
        if self.pairs_per_question < 1:
            raise ValueError(f"pairs_per_question is invalid: {self.pairs_per_question}; give at least 1")


def choose_pairs(
    chosen: Sequence[tuple[str, float]], rejected: Sequence[tuple[str, float]], rule: PairRule, seed: str = ""
) -> list[tuple[int, int]]:
    """Choose the pairs of one question, largest margin first; every answer is in at most one of them.

    Args:
        chosen: text and score of the answers that may be chosen.
        rejected: text and score of the answers that may be rejected.
        rule: the rule.
        seed: breaks ties between pairs with equal margins.

    Returns:
        Indices in the two lists.

    Example:
        >>> choose_pairs([("4", 1.0), ("four", 1.0)], [("5", 0.0), ("4", 1.0)], PairRule(pairs_per_question=2))
        [(1, 0)]
    """

    def order(pair: tuple[int, int]) -> tuple[float, bytes]:
        drawn = hashlib.blake2b(f"{seed} {pair[0]} {pair[1]}".encode(), digest_size=8).digest()
        return rejected[pair[1]][1] - chosen[pair[0]][1], drawn

    possible = [
        (first, second)
        for first, (good, high) in enumerate(chosen)
        for second, (bad, low) in enumerate(rejected)
        if high >= rule.min_chosen_score and high - low >= rule.margin and good != bad
    ]
    found: list[tuple[int, int]] = []
    used: tuple[set[int], set[int]] = set(), set()
    for first, second in sorted(possible, key=order):
        if first not in used[0] and second not in used[1] and len(found) < rule.pairs_per_question:
            found.append((first, second))
            used[0].add(first)
            used[1].add(second)
    return found
