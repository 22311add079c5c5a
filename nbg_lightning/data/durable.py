"""Files that are whole or not there, and folders on which one process at a time works."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbg_lightning.digests import seal

LOCK_SECONDS = 24 * 3600.0  # how long to wait for another process that prepares the same folder
SAY_SECONDS = (
    0.5  # ranks that look at what is prepared wait for each other, but not so long, and that is not worth a line
)

_log = logging.getLogger(__name__)


def content_key(what: dict[str, Any]) -> str:
    """Hex digest of what decides a folder's content; a part of its name."""
    return hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=8).hexdigest()


def write_whole(file: Path, content: str | bytes) -> None:
    """A file that survives a power cut and is there whole or not at all; half a surrogate pair is written as its escape."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(file.parent)


def write_json(file: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    write_whole(file, json.dumps(value, indent=1))


def write_sealed(file: Path, value: dict[str, Any]) -> None:
    """Write a JSON object that ends with its digest (`nbg_lightning.digests.read_sealed`), whole or not at all."""
    write_whole(file, seal(value))


def close_synced(stream: Any) -> None:
    """Close a file whose content is on the disk then."""
    stream.flush()
    os.fsync(stream.fileno())
    stream.close()


def sync_folder(folder: Path) -> None:
    """Makes renames in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time works on a folder; the kernel frees the lock of a killed one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f".{folder.name}.lock"
    begin = time.monotonic()
    said = False
    with open(file, "a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - begin
                if waited > LOCK_SECONDS:
                    raise RuntimeError(
                        f"another process has held {file} for {LOCK_SECONDS:,.0f} s: end it, or choose another folder"
                    ) from None
                if waited > SAY_SECONDS and not said:
                    _log.warning("waiting for another process that prepares %s", folder)
                    said = True
                time.sleep(0.2)
        yield
