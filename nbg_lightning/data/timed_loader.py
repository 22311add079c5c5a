"""A data loader that measures how long training waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader


class TimedLoader(DataLoader[Any]):
    """A `DataLoader` that counts the seconds its consumer waits for batches.

    Attributes:
        seconds_waited: total over all iterations, including the start of workers.
    """

    seconds_waited = 0.0

    def __iter__(self) -> Any:  # torch declares its own iterator
        return _TimedBatches(self, super().__iter__())


class _TimedBatches:
    """The batches of one iteration."""

    def __init__(self, loader: TimedLoader, batches: Iterator[Any]):
        self._loader, self._batches = loader, batches

    def __iter__(self) -> _TimedBatches:
        return self

    def __next__(self) -> Any:
        begin = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self._loader.seconds_waited += time.perf_counter() - begin
