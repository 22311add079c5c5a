"""Checkpoint retention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Keep:
    """Retention rules: a checkpoint is kept as long as one of these holds; the newest is always kept.

    Attributes:
        last: it is among this many most recent ones.
        every: its step is a multiple of this; such checkpoints are never removed.
        hours: it is younger than this.

    Raises:
        ValueError: a number that is not positive.
    """

    last: int = 2
    every: int | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("last", self.last), ("every", self.every), ("hours", self.hours)):
            if value is not None and not value > 0:
                least = "a number above 0" if name == "hours" else "at least 1"
                raise ValueError(f"keep.{name} is invalid: {value}; give {least}")

    def leaving(self, steps: Sequence[int], ages: Sequence[float]) -> list[int]:
        """The steps whose checkpoints are to be removed.

        Args:
            steps: steps of all checkpoints, ascending.
            ages: age of each in hours.

        Example:
            >>> Keep(last=2, every=1000).leaving([500, 1000, 1500, 2000, 2500], [5, 4, 3, 2, 1])
            [500, 1500]
            >>> Keep(last=1, hours=3.5).leaving([500, 1000, 1500, 2000, 2500], [5, 4, 3, 2, 1])
            [500, 1000]
        """
        older = zip(steps[: -self.last], ages, strict=False)
        return [step for step, age in older if not self._stays(step, age)]

    def _stays(self, step: int, age: float) -> bool:
        return (self.every is not None and step % self.every == 0) or (self.hours is not None and age < self.hours)
