"""Atomic files and folders, and folders locked for one process at a time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from nbg_lightning.digests import seal

LOCK_SECONDS = 24 * 3600.0  # how long to wait for another process that prepares the same folder
SAY_SECONDS = (
    0.5  # ranks that check prepared data wait for each other, but not that long; such short waits are not logged
)
_POLL_SECONDS = 0.2
_LEFTOVERS = (".*.tmp", ".*.partial")  # of killed processes; the second pattern is that of earlier versions

_log = logging.getLogger(__name__)


def content_key(content: dict[str, Any]) -> str:
    """Hex digest of everything that determines a folder's content; part of its name."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


# -- files -------------------------------------------------------------------------------------------------------------


class AtomicFile:
    """A file that gets its name only when it is complete and flushed to disk; with a ``with`` block use `atomic`.

    Args:
        file: the final path; an existing file there is kept until `commit`.
        open_stream: opens the temporary file beside it for writing bytes.
    """

    def __init__(self, file: Path, open_stream: Callable[[Path], Any] | None = None):
        self.file = file
        self._temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        self.stream: Any = self._temporary.open("wb") if open_stream is None else open_stream(self._temporary)

    def commit(self) -> None:
        """Rename the file to its final name. The rename survives a power cut after `sync_folder`."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()
        os.replace(self._temporary, self.file)

    def discard(self) -> None:
        """Remove what was written, unless it has been committed."""
        try:
            self.stream.close()
        except OSError:  # the disk is full, which has been reported
            pass
        self._temporary.unlink(missing_ok=True)


@contextmanager
def atomic(file: Path) -> Iterator[IO[bytes]]:
    """A binary file to write; when the block ends it is renamed into place and survives a power cut.

    After an error in the block an existing file is unchanged.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic(folder / "report.json") as stream:
    ...     _ = stream.write(b"{}")
    ...     (folder / "report.json").exists()
    False
    >>> [file.name for file in folder.iterdir()]
    ['report.json']
    """
    writer = AtomicFile(file)
    try:
        yield writer.stream
        writer.commit()
    finally:
        writer.discard()
    sync_folder(file.parent)


def write_atomic(file: Path, content: str | bytes) -> None:
    """Write a file with `atomic`; lone surrogates are written as escapes."""
    with atomic(file) as stream:
        stream.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def write_json(file: Path, value: Any) -> None:
    """Write JSON with `atomic`."""
    write_atomic(file, json.dumps(value, indent=1))


def write_sealed(file: Path, value: dict[str, Any]) -> None:
    """Write a JSON object that ends with its digest (`nbg_lightning.digests.read_sealed`), with `atomic`."""
    write_atomic(file, seal(value))


def sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, of: Container[str] | None = None) -> None:
    """Remove temporary files of killed processes; no other process may be writing them.

    Args:
        folder: the folder.
        of: names, up to the first dot, of the files whose temporary files are removed; by default all.
    """
    for pattern in _LEFTOVERS:
        for leftover in folder.glob(pattern):
            if of is None or leftover.name.split(".")[1] in of:
                leftover.unlink(missing_ok=True)


# -- folders -----------------------------------------------------------------------------------------------------------


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill; when the block ends it replaces the one of that name. After an error nothing has changed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        filled = Path(temporary, folder.name)
        filled.mkdir()
        yield filled
        if folder.is_dir():
            shutil.rmtree(folder)
        os.replace(filled, folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for one process at a time; the kernel releases the lock of a killed one.

    Raises:
        RuntimeError: another process has held the lock for a day.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.parent / f".{folder.name}.lock", poll_interval=_POLL_SECONDS)
    try:
        try:
            lock.acquire(timeout=min(SAY_SECONDS, LOCK_SECONDS))
        except Timeout:
            if LOCK_SECONDS > SAY_SECONDS:
                _log.warning("waiting for another process that prepares %s", folder)
            lock.acquire(timeout=max(0.0, LOCK_SECONDS - SAY_SECONDS))
    except Timeout:
        raise RuntimeError(
            f"another process has held {lock.lock_file} for {LOCK_SECONDS:,.0f} s; end it, or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
