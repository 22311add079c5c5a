"""Weights in memory shared by two processes: one writes a version, the other reads it."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Sizes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class SharedLayout:
    """Layout of the tensors in memory.

    Attributes:
        path: path of the memory, for processes on this machine.
        sizes: name and shape of each tensor, in memory order.
        dtype: torch's name of the dtype of all tensors.
        slots: number of versions that fit.
    """

    path: str
    sizes: Sizes
    dtype: str
    slots: int

    @property
    def numbers(self) -> int:
        """Number of elements of one version."""
        return sum(math.prod(size) for size in self.sizes.values())

    def views(self) -> list[dict[str, Tensor]]:
        """The tensors of each slot, mapped into this process."""
        dtype = getattr(torch, self.dtype)
        whole = torch.from_file(self.path, shared=True, size=self.slots * self.numbers, dtype=dtype)
        slots = []
        for slot in whole.split(self.numbers):
            parts = slot.split([math.prod(size) for size in self.sizes.values()])
            slots.append({name: part.view(size) for part, (name, size) in zip(parts, self.sizes.items(), strict=True)})
        return slots


class SharedWeights:
    """Shared memory for several versions of a model's weights, which ends with this process.

    Memory is allocated when a slot is first written. It is not a named file: a killed process leaves nothing behind, and it is
    not limited by a small ``/dev/shm`` (64 MiB in a container).

    Args:
        sizes: name and shape of each tensor.
        dtype: dtype of the stored weights.
        slots: number of versions.

    Raises:
        OSError: out of memory.
    """

    def __init__(self, sizes: Sizes, dtype: str, slots: int):
        numbers = slots * sum(math.prod(size) for size in sizes.values())
        self._file, path = _anonymous_file()
        os.ftruncate(self._file, numbers * getattr(torch, dtype).itemsize)
        self.layout = SharedLayout(path, dict(sizes), dtype, slots)
        self._slots = self.layout.views()

    def write(self, slot: int, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy weights into a slot.

        Raises:
            ValueError: they do not match the layout.
        """
        room, seen = self._slots[slot], set()
        for name, weight in weights:
            if name not in room or room[name].shape != weight.shape:
                raise ValueError(
                    f"weight {name} {tuple(weight.shape)} has no place among the shared weights; call attach with the "
                    "model that is trained"
                )
            room[name].copy_(weight)
            seen.add(name)
        if missing := room.keys() - seen:
            raise ValueError(
                f"weights are missing for the shared copy: {', '.join(sorted(missing)[:3])}; give all of the model's"
            )

    def read(self, slot: int) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of all weights in a slot."""
        yield from self._slots[slot].items()

    def close(self) -> None:
        """Free the memory, once no other process uses it."""
        if self._file >= 0:
            self._slots = []
            os.close(self._file)
            self._file = -1


def _anonymous_file() -> tuple[int, str]:
    """Create an unnamed file; returns the path by which a process of this user can open it."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("nbg-weights")
        return descriptor, f"/proc/{os.getpid()}/fd/{descriptor}"
    descriptor, path = tempfile.mkstemp(prefix="nbg-weights-")
    atexit.register(_remove, path)
    return descriptor, path


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
