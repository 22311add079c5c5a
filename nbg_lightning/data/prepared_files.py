"""The files of a prepared split at any location; here on a disk, read through memory maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nbg_lightning.data.checked_array import CheckedArray
from nbg_lightning.digests import FileDigest

OPEN_MAPS = 1024  # parts, of two maps each; far below the kernel's usual limit of 65,530 maps


class Numbers(Protocol):
    """A file of numbers, verified on access."""

    def __len__(self) -> int: ...

    def read(self, begin: int, end: int) -> np.ndarray:
        """Numbers ``begin .. end - 1``."""
        ...

    def search(self, begin: int, end: int) -> tuple[int, int]:
        """In ascending numbers, the range of those with values ``begin .. end - 1``."""
        ...

    def check(self, begin: int = 0, end: int | None = None) -> None:
        """Verify numbers against their digests (default: all)."""
        ...


class PreparedFiles(Protocol):
    """The files of a split.

    Attributes:
        work_folder: a local folder for files derived from them.
        advice: what to do about damage, for messages.
        open_parts: number of parts kept open.
        is_remote: whether reading goes over a network.
    """

    @property
    def work_folder(self) -> Path: ...

    @property
    def open_parts(self) -> int: ...

    @property
    def is_remote(self) -> bool: ...

    @property
    def advice(self) -> str: ...

    def named(self, name: str) -> str:
        """Name of a file for messages."""
        ...

    def bytes_of(self, name: str, expected: str | None = None) -> bytes:
        """Content of a small file; its digest, if known, is its key in a cache.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...

    def check_size(self, name: str, expected: int) -> None:
        """Check the size of a file, if that is cheap.

        Raises:
            FileNotFoundError, ValueError: it is missing, or has another size.
        """
        ...

    def numbers(self, name: str, dtype: Any, expected: FileDigest | None) -> Numbers:
        """Open a file of numbers."""
        ...


class LocalFiles:
    """Files of a local folder, read through memory maps."""

    open_parts = OPEN_MAPS
    is_remote = False

    def __init__(self, folder: str | Path):
        self.work_folder = Path(folder)

    @property
    def advice(self) -> str:
        return f"delete {self.work_folder.parent} and run again"

    def named(self, name: str) -> str:
        return str(self.work_folder / name)

    def bytes_of(self, name: str, expected: str | None = None) -> bytes:
        return (self.work_folder / name).read_bytes()

    def check_size(self, name: str, expected: int) -> None:
        try:
            size = os.stat(self.work_folder / name).st_size
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.named(name)} is missing; {self.advice}") from None
        if size != expected:
            raise ValueError(
                f"{self.named(name)} has {size:,} bytes instead of {expected:,} (truncated or changed); {self.advice}"
            )

    def numbers(self, name: str, dtype: Any, expected: FileDigest | None) -> CheckedArray:
        return CheckedArray(self.work_folder / name, dtype, expected, self.advice)
