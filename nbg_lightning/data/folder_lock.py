"""One process at a time writes to a folder; another one is refused, and told who it is.

`fcntl` and not filelock, which `durable.locked` uses: the locked file itself names its holder, and filelock's versions before 4
empty a file when they open it; and a file system without locks is a warning here, since training on it is the user's choice.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

LOCK = ".lock"
DYING_SECONDS = 3.0  # for workers of a killed process, which hold its lock until they have ended too

_log = logging.getLogger(__name__)


class FolderInUse(RuntimeError):
    """Another process writes to the folder."""


@contextmanager
def folder_lock(folder: Path, work: str, name: str = LOCK) -> Iterator[None]:
    """Keep a folder, or a part of its files, for this process during the block.

    The lock is the kernel's, on a file in the folder: it goes when the process ends, however that ends. On file systems that
    machines share it counts for all of them, where these support it.

    Args:
        folder: made where it does not exist.
        work: what is done there, as a verb: "trains", "builds".
        name: of the file; one of its own where several processes may write other files of the folder.

    Raises:
        FolderInUse: another process has it; the message names process, machine and folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a+") as stream:
        if _acquire(stream, folder / name, work):
            stream.truncate(0)
            json.dump({"process": os.getpid(), "host": socket.gethostname(), "since": _now(), "work": work}, stream)
            stream.flush()
        yield


def _acquire(stream: IO[str], file: Path, work: str) -> bool:
    """Lock the open file; False where the file system cannot."""
    end = time.monotonic() + DYING_SECONDS
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                raise FolderInUse(_refusal(stream, file, work)) from None
            time.sleep(0.1)
        except OSError as error:  # file systems without locks
            _log.warning(
                f"warning: {file.parent} cannot be locked ({error.strerror}): make sure that no other process {work} there"
            )
            return False


def _refusal(stream: IO[str], file: Path, work: str) -> str:
    folder = file.parent
    stream.seek(0)
    try:
        owner = json.loads(stream.read())
        who = f"process {owner['process']} on {owner['host']} {owner['work']} in {folder} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        who = f"another process {work} in {folder}"
    return f"{who}: wait for it, end it, or give another folder (if it is gone with its machine, remove {file})"


def _now() -> str:
    return datetime.now().isoformat(" ", "seconds")
