"""The files of a prepared split at any location; here on a disk, read through memory maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nbg_lightning.data.checked_array import CheckedArray
from nbg_lightning.data.open_parts import OpenParts
from nbg_lightning.digests import FileDigest

OPEN_MAPS = 8192  # parts, of up to three maps each, in a process; far below the kernel's usual limit of 65,530 maps


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
        is_remote: whether reading goes over a network.
    """

    @property
    def work_folder(self) -> Path: ...

    @property
    def is_remote(self) -> bool: ...

    @property
    def advice(self) -> str: ...

    def kept_parts(self) -> OpenParts:
        """Where open parts of a split are kept."""
        ...

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
    """Files of a local folder, read through memory maps.

    Attributes:
        open_parts: the parts that the process keeps open, of all folders.
    """

    open_parts = OpenParts(OPEN_MAPS)
    is_remote = False

    def __init__(self, folder: str | Path):
        self.work_folder = Path(folder)
        self.advice = f"delete {self.work_folder.parent} and run again"
        self._prefix = os.path.join(self.work_folder, "")  # joining paths would take longer than opening a file

    def kept_parts(self) -> OpenParts:
        return self.open_parts

    def named(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def bytes_of(self, name: str, expected: str | None = None) -> bytes:
        with open(self.named(name), "rb") as file:
            return file.read()

    def check_size(self, name: str, expected: int) -> None:
        try:
            size = os.stat(self.named(name)).st_size
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.named(name)} is missing; {self.advice}") from None
        if size != expected:
            raise ValueError(
                f"{self.named(name)} has {size:,} bytes instead of {expected:,} (truncated or changed); {self.advice}"
            )

    def numbers(self, name: str, dtype: Any, expected: FileDigest | None) -> CheckedArray:
        return CheckedArray(self.named(name), dtype, expected, self.advice)
