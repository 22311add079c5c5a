"""Sums with two correct derivations: the first step of ``3-4+8=?`` may start from either of its terms.

The task is that of `stages.py`; only the last number decides whether an answer is right. A teacher's distribution therefore
carries more information on a question than one of its answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from nbg_lightning.testing.sums import WorkedSum


def derivations(made: WorkedSum) -> list[WorkedSum]:
    """Both derivations, the question's own first; one if they are the same.

    Each is a separate sum, so that ``steps`` writes it down; only its steps are used.

    Example:
        >>> [each.steps.split() for each in derivations(WorkedSum(3, (("-", 4), ("+", 8))))]
        [['03-4=-1', '-1+8=07'], ['-4+3=-1', '-1+8=07']]
    """
    (sign, second), *rest = made.then
    other = WorkedSum(second if sign == "+" else -second, (("+", made.first), *rest))
    return [made] if other == made else [made, other]


def worked(made: Sequence[WorkedSum], draw: random.Random, each: int = 1) -> list[dict[str, Any]]:
    """Conversations for SFT, ``each`` per sum, with newly sampled derivations."""
    rows = []
    for one in made:
        for _ in range(each):
            question, answer = one.conversation
            rows.append({"messages": [question, {**answer, "reasoning_content": draw.choice(derivations(one)).steps}]})
    return rows
