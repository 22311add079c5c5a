"""A cache of fetched file blocks on local disk, of bounded size, shared by all processes of a machine.

A block is a file whose name identifies its content. The least recently used blocks are evicted when space runs out. Writers hold
a lock, so that the bound holds for all processes together. Readers have to verify what the cache returns.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

from nbg_lightning import log

KEPT = 0.9  # share of the size that is kept on eviction: a tenth is freed at once
_LOCK = "bytes"  # the locked file; it holds the total size of the blocks in bytes
_FULL = (errno.ENOSPC, errno.EDQUOT)


class BlockCache:
    """Blocks by name, with a bound on their total size.

    Args:
        folder: created if it does not exist; must contain nothing else.
        max_bytes: maximum total size of the blocks.
    """

    def __init__(self, folder: Path, max_bytes: int):
        self.folder, self.max_bytes = folder, max_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._fetching: dict[str, threading.Lock] = {}
        self._mutex = threading.Lock()

    def get(self, name: str, fetch: Callable[[], bytes], begin: int = 0, end: int | None = None) -> bytes:
        """Bytes ``begin .. end - 1`` of a block (default: all), from the disk, or fetched and then cached.

        If several threads need the same block, it is fetched once.
        """
        found = self.read(name, begin, end)
        if found is not None:
            return found
        with self._mutex:
            lock = self._fetching.setdefault(name, threading.Lock())
        try:
            with lock:
                found = self.read(name, begin, end)
                if found is None:
                    whole = fetch()
                    self.write(name, whole)
                    found = whole[begin:end]
                return found
        finally:
            with self._mutex:
                self._fetching.pop(name, None)

    def read(self, name: str, begin: int = 0, end: int | None = None) -> bytes | None:
        """Read bytes of a cached block, which marks it as used; None if it is not cached."""
        try:
            with self._file(name).open("rb", buffering=0) as file:
                os.utime(file.fileno())
                file.seek(begin)
                return file.read() if end is None else file.read(end - begin)
        except FileNotFoundError:  # not cached, or removed by another process
            return None

    def write(self, name: str, data: bytes) -> None:
        """Cache a block, evicting others if necessary. On a full disk nothing is cached."""
        if len(data) > self.max_bytes:
            return
        file = self._file(name)
        try:
            file.parent.mkdir(exist_ok=True)
            with self._locked() as counter:
                if file.exists():
                    return
                held = _count(counter) + len(data)
                if held > self.max_bytes:
                    held = self._make_room(len(data)) + len(data)
                _set_count(
                    counter, held
                )  # first: a killed process leaves too high a count, which the next eviction corrects
                temporary = file.with_suffix(".tmp")
                temporary.write_bytes(data)
                temporary.replace(file)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            _say_full(self.folder)

    def remove(self, name: str) -> None:
        """Remove a damaged block."""
        with self._locked() as counter:
            file = self._file(name)
            with suppress(FileNotFoundError):
                size = file.stat().st_size
                file.unlink()
                _set_count(counter, max(0, _count(counter) - size))

    def _file(self, name: str) -> Path:
        return self.folder / name[:2] / name

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        with (self.folder / _LOCK).open("a+b") as counter:
            fcntl.flock(counter, fcntl.LOCK_EX)
            yield counter

    def _make_room(self, wanted: int) -> int:
        """Evict the least recently used blocks and leftovers of killed processes; returns the remaining bytes."""
        found = []
        for folder in self.folder.iterdir():
            if not folder.is_dir():
                continue
            for file in folder.iterdir():
                if file.suffix == ".tmp":  # no other process writes at this time
                    file.unlink()
                else:
                    about = file.stat()
                    found.append((about.st_mtime_ns, about.st_size, file))
        held = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if held + wanted <= KEPT * self.max_bytes:
                break
            file.unlink()
            held -= size
        return held


def _count(counter: IO[bytes]) -> int:
    counter.seek(0)
    text = counter.read()
    return int(text) if text.isdigit() else 0


def _set_count(counter: IO[bytes], value: int) -> None:
    counter.truncate(0)
    counter.write(str(value).encode())
    counter.flush()


@lru_cache(maxsize=16)
def _say_full(folder: Path) -> None:
    """Warn once per folder."""
    log.warn(f"the disk of {folder} is full: what is fetched is not kept, and may be fetched again")


def open_cache(folder: Path, max_bytes: int) -> BlockCache:
    """The cache of a folder in this process; a forked process creates its own, free of its parent's thread locks."""
    return _cache_of_process(folder, max_bytes, os.getpid())


@lru_cache(maxsize=16)
def _cache_of_process(folder: Path, max_bytes: int, process: int) -> BlockCache:
    return BlockCache(folder, max_bytes)
