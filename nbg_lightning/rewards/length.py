"""Length penalties: the overlong penalty as a reward."""

from __future__ import annotations

from collections.abc import Sequence

from nbg_lightning.engines.chat import Answer
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult


def answer_length(answer: Answer) -> int:
    """Length of an answer in tokens, including its end; in words, if a server returned no ids."""
    return len(answer.completion.ids) or len((answer.completion.text or "").split())


def overlong_penalty(length: int, max_tokens: int, buffer: int) -> float:
    """``clip(((max_tokens - buffer) - length) / buffer, -1, 0)`` (DAPO, arXiv 2503.14476, equation 13).

    Example:
        >>> [overlong_penalty(length, 100, 20) for length in (80, 90, 100, 200)]
        [0.0, -0.5, -1.0, -1.0]
    """
    return min(0.0, max(-1.0, (max_tokens - buffer - length) / buffer))


class OverlongPenalty(Reward):
    """0 for an answer that stays below the buffer, decreasing to -1 for one that fills it: a part for `CombinedReward`.

    ``max_tokens`` is the module's ``max_new_tokens``. With ``loss.mask_truncated``, truncated answers are not trained on,
    so only answers that end within the buffer are affected.

    Args:
        max_tokens: maximum length of an answer.
        buffer: number of tokens before the maximum over which the penalty grows.
        name: name in metrics.

    Raises:
        ValueError: a buffer outside the length.
    """

    def __init__(self, max_tokens: int, buffer: int, name: str = "overlong"):
        if not 0 < buffer <= max_tokens:
            raise ValueError(f"buffer is invalid: {buffer}; give 1 to max_tokens={max_tokens}")
        self.max_tokens, self.buffer, self.name = max_tokens, buffer, name

    def score(self, groups: Sequence[Group]) -> list[list[RewardResult]]:
        return [[self._result(answer) for answer in group.answers] for group in groups]

    def _result(self, answer: Answer) -> RewardResult:
        length = answer_length(answer)
        return RewardResult(
            overlong_penalty(length, self.max_tokens, self.buffer), detail=f"{length} of {self.max_tokens} tokens"
        )
