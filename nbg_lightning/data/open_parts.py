"""The parts of prepared sources that are kept open, of which the least recently used are closed first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import RLock
from typing import Any
from weakref import finalize


class OpenParts:
    """Parts of one source, or of several that share a limit.

    Args:
        most: number of parts kept open.
    """

    def __init__(self, most: int):
        self.most = most
        self._parts: OrderedDict[tuple[int, str, int], Any] = OrderedDict()
        self._lock = RLock()  # an owner may be deleted while this thread has it

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, owner: Any) -> None:
        """Close an owner's parts when it is deleted."""
        finalize(owner, self._forget, id(owner)).atexit = False

    def get(self, owner: Any, kind: str, part: int, open_part: Callable[[int], Any]) -> Any:
        """A part of an owner, opened if it is not."""
        key = (id(owner), kind, part)
        with self._lock:
            if (found := self._parts.get(key)) is not None:
                self._parts.move_to_end(key)
                return found
        found = open_part(part)
        with self._lock:
            self._parts[key] = found
            while len(self._parts) > self.most:
                self._parts.popitem(last=False)
        return found

    def _forget(self, owner: int) -> None:
        with self._lock:
            for key in list(self._parts):
                if key[0] == owner:
                    self._parts.pop(key, None)
