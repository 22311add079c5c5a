"""Numbers of a file in a memory map, of which a block is compared with its digest when it is first touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.digests import FileDigest, digest

BLOCK_BYTES = 1 << 16  # what the kernel reads ahead at a page fault anyway: checking reads nothing more


class CheckedArray:
    """A file of numbers, read through a memory map.

    Args:
        file: whose size has been compared already.
        dtype: of its numbers, or of a row of them, which counts as one number then.
        expected: its digest; None for files of older versions, which are not checked.
        advice: what to do about a damaged file, the end of the message.

    Attributes:
        values: all numbers, unchecked.
    """

    def __init__(self, file: str | Path, dtype: Any, expected: FileDigest | None, advice: str):
        # As a plain array: slices of np.memmap objects are several times slower.
        self.values = np.memmap(file, dtype, "r").view(np.ndarray)
        self._bytes = self.values.reshape(-1).view(np.uint8)
        self._item_bytes = np.dtype(dtype).itemsize
        self._file, self._expected, self._advice = file, expected, advice
        self._checked = np.zeros(0 if expected is None else len(expected.blocks), bool)

    def __len__(self) -> int:
        return len(self.values)

    def read(self, begin: int, end: int) -> np.ndarray:
        """Numbers ``begin .. end - 1``, checked.

        Raises:
            ValueError: a block of them is not what was written.
        """
        self.check(begin, end)
        return self.values[begin:end]

    def check(self, begin: int = 0, end: int | None = None) -> None:
        """Compare the blocks of numbers ``begin .. end - 1``, by default of all.

        Raises:
            ValueError: a block is not what was written.
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
        """In ascending numbers, where those of ``begin .. end - 1`` begin and end.

        The search itself touches numbers all over the file; only its result is checked, by the numbers on both sides.

        Raises:
            ValueError: the numbers are damaged.
        """
        low, high = (int(place) for place in np.searchsorted(self.values, np.array([begin, end], self.values.dtype)))
        self.check(max(0, low - 1), min(len(self), high + 1))
        if not (self._parts(low, begin) and self._parts(high, end)):
            self.check()  # says which block has led the search astray
            raise ValueError(f"{self._file} is invalid: its numbers are not ascending; {self._advice}")
        return low, high

    def _parts(self, place: int, value: int) -> bool:
        """Tell whether the numbers before a place are smaller than a value, and those from it on are not."""
        before, after = self.values[max(0, place - 1) : place], self.values[place : place + 1]
        return not (before >= value).any() and not (after < value).any()
