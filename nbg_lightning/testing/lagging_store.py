"""A local folder behind a URL, with configurable latency and failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry


class LaggingStore(LocalFileSystem):  # type: ignore[misc] # fsspec has no types
    """``lagging:///path``: local files with delayed requests; see `lagging_store`."""

    protocol = "lagging"
    seconds: ClassVar[float] = 0.0
    failures: ClassVar[int] = 0
    requests: ClassVar[list[tuple[str, int | None, int | None]]] = []
    _lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return str(super()._strip_protocol(str(path).replace("lagging://", "file://")))

    def unstrip_protocol(self, name: str) -> str:
        return f"lagging://{self._strip_protocol(name)}"

    def _answer(self, path: str, start: int | None = None, end: int | None = None) -> None:
        cls = type(self)
        with cls._lock:
            cls.requests.append((path, start, end))
            fails = cls.failures > 0
            cls.failures -= fails
        time.sleep(cls.seconds)
        if fails:
            raise ConnectionResetError("the connection was reset")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **keywords: Any) -> bytes:
        self._answer(path, start, end)
        found: bytes = super().cat_file(path, start=start, end=end, **keywords)
        return found

    def put_file(self, lpath: str, rpath: str, *arguments: Any, **keywords: Any) -> None:
        self._answer(rpath)
        Path(self._strip_protocol(rpath)).parent.mkdir(parents=True, exist_ok=True)
        super().put_file(lpath, self._strip_protocol(rpath), *arguments, **keywords)


@contextmanager
def lagging_store(seconds: float = 0.0) -> Iterator[type[LaggingStore]]:
    """Register ``lagging://`` URLs during the block.

    Args:
        seconds: delay of a request.
    """
    fsspec.register_implementation("lagging", LaggingStore, clobber=True)
    LaggingStore.seconds, LaggingStore.failures = seconds, 0
    LaggingStore.requests.clear()
    try:
        yield LaggingStore
    finally:
        LaggingStore.clear_instance_cache()
        del _registry["lagging"]
