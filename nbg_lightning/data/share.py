"""The parts of a source that one of several machines prepares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """Every ``machines``-th part of every source, starting with the ``number``-th.

    Args:
        number: number of this machine, from 1.
        machines: number of machines that share the work.

    Raises:
        ValueError: the number is not one of 1 .. machines.
    """

    number: int
    machines: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.machines:
            raise ValueError(f"part is invalid: {self}; give i/N with i from 1 to N, such as 1/{max(1, self.machines)}")

    def __str__(self) -> str:
        return f"{self.number}/{self.machines}"

    @classmethod
    def parse(cls, text: str) -> Share:
        """Parse a share ``i/N``.

        Raises:
            ValueError: the text is not of this form.

        Example:
            >>> Share.parse("3/8").of(range(20))
            [2, 10, 18]
        """
        match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text, re.ASCII)
        if match is None:
            raise ValueError(f"part is invalid: {text[:50]!r}; give i/N, such as 3/8")
        return cls(int(match[1]), int(match[2]))

    def of(self, items: Sequence[Any]) -> list[Any]:
        """The items of this machine."""
        return list(items[self.number - 1 :: self.machines])
