"""Memory-mapped numbers of a file, whose blocks are verified against digests on first access."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.data.memory_map import map_bytes
from nbg_lightning.digests import FileDigest, digest

BLOCK_BYTES = 1 << 16  # what the kernel reads ahead at a page fault anyway, so verifying reads nothing more


class CheckedArray:
    """A file of numbers, read through a memory map.

    Args:
        file: the file, whose size has been checked.
        dtype: dtype of a number, or of a row of numbers, which then counts as one.
        expected: the file's digest; None for files of older versions, which are not verified.
        advice: what to do about a damaged file; ends the error message.

    Attributes:
        values: all numbers, not verified.
    """

    def __init__(self, file: str | Path, dtype: Any, expected: FileDigest | None, advice: str):
        dtype = np.dtype(dtype)
        self._bytes = map_bytes(file)
        self.values = self._bytes.view(dtype.base).reshape(-1, *dtype.shape)
        self._item_bytes = dtype.itemsize
        self._file, self._expected, self._advice = file, expected, advice
        self._checked = np.zeros(0 if expected is None else len(expected.blocks), bool)

    def __len__(self) -> int:
        return len(self.values)

    def read(self, begin: int, end: int) -> np.ndarray:
        """Numbers ``begin .. end - 1``, verified.

        Raises:
            ValueError: a block of them is damaged.
        """
        self.check(begin, end)
        return self.values[begin:end]

    def check(self, begin: int = 0, end: int | None = None) -> None:
        """Verify the blocks of numbers ``begin .. end - 1`` (default: all).

        Raises:
            ValueError: a block is damaged.
        """
        end = len(self.values) if end is None else end
        if self._expected is None or begin >= end:
            return
        size, item = self._expected.block_bytes, self._item_bytes
        first, last = begin * item // size, (end * item - 1) // size
        for number in first + np.flatnonzero(~self._checked[first : last + 1]):
            if digest(self._bytes[number * size : (number + 1) * size]) != self._expected.blocks[number]:
                raise ValueError(
                    f"{self._file} is damaged in block {number} (bytes {number * size:,} and on): its digest does not match; "
                    f"{self._advice}"
                )
            self._checked[number] = True

    def search(self, begin: int, end: int) -> tuple[int, int]:
        """In ascending numbers, the range of those with values ``begin .. end - 1``.

        The search reads numbers all over the file; only the result is verified, by the numbers on both sides of its borders.

        Raises:
            ValueError: the numbers are damaged.
        """
        low, high = (int(place) for place in np.searchsorted(self.values, np.array([begin, end], self.values.dtype)))
        self.check(max(0, low - 1), min(len(self), high + 1))
        if not (self._parts(low, begin) and self._parts(high, end)):
            self.check()  # raises with the damaged block that misled the search
            raise ValueError(f"{self._file} is invalid: its numbers are not ascending; {self._advice}")
        return low, high

    def _parts(self, place: int, value: int) -> bool:
        """Whether the numbers before a position are smaller than a value, and those from it on are not."""
        before, after = self.values[max(0, place - 1) : place], self.values[place : place + 1]
        return not (before >= value).any() and not (after < value).any()
