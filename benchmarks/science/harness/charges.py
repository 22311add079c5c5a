"""What a run has computed, so that arms can be compared at equal compute."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbg_lightning import LanguageModelConfig


class Charges:
    """Floating-point operations of a run, by purpose, by the formula of `LanguageModelConfig.flops_per_token`.

    A forward is a third of a step of training. Everything that an arm needs is charged: the teacher's and the reference's
    forwards, answers that are drawn and thrown away. Measuring is not.

    Example:
        >>> from nbg_lightning import LanguageModelConfig
        >>> shape = LanguageModelConfig(280, 32, 64, 1, 2, 1, 16)
        >>> charges = Charges()
        >>> charges.train("student", shape, tokens=100, length=64)
        >>> charges.forward("teacher", shape, tokens=300, length=64)
        >>> charges.by_purpose["student"] == charges.by_purpose["teacher"] == charges.total / 2
        True
    """

    def __init__(self) -> None:
        self.by_purpose: dict[str, float] = defaultdict(float)

    def train(self, purpose: str, shape: LanguageModelConfig, tokens: int, length: int) -> None:
        """Charge a forward and a backward.

        Args:
            purpose: under which it is kept.
            shape: of the model.
            tokens: that go through it.
            length: of a sequence, for attention.
        """
        self.by_purpose[purpose] += shape.flops_per_token(length) * tokens

    def forward(self, purpose: str, shape: LanguageModelConfig, tokens: int, length: int) -> None:
        """Charge a forward: a teacher's, a reference's, or an answer that is drawn."""
        self.by_purpose[purpose] += shape.flops_per_token(length) * tokens / 3

    @property
    def total(self) -> float:
        """All of them."""
        return sum(self.by_purpose.values())
