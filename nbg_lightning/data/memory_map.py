"""Read-only memory maps without an open file: a process may have 65,530 maps, but often only 1,024 open files."""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_FAILED = ctypes.c_void_p(-1).value


@cache
def _library() -> Any:
    """The C library: `mmap.mmap`, and so `np.memmap`, keep a descriptor of the file for each map."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_ssize_t,
    )
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return library


class _Map:
    """A map, which ends with the last array on it."""

    def __init__(self, address: int, size: int):
        self._address, self._size = address, size
        self._end = _library().munmap  # at the end of the interpreter, globals may be gone before this
        self.__array_interface__ = {"data": (address, True), "shape": (size,), "typestr": "|u1", "version": 3}

    def __del__(self) -> None:
        self._end(self._address, self._size)


def map_bytes(file: str | Path) -> np.ndarray:
    """The bytes of a file, uint8, mapped and read-only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty.
        OSError: it cannot be mapped.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if not size:
            raise ValueError(f"{file} is empty; prepare it again")
        address = _library().mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(file))
    finally:
        os.close(descriptor)
    return np.asarray(_Map(address, size))
