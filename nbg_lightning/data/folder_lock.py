"""A lock on a folder for one writing process; another process is refused, with a message that names the holder.

`fcntl` instead of filelock, which `durable.locked` uses, because the locked file itself names its holder, and filelock before
version 4 truncates a file when opening it. A file system without locks only causes a warning here: that is up to the user.
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
DYING_SECONDS = 3.0  # for workers of a killed process, which hold its lock until they exit too

_log = logging.getLogger(__name__)


class FolderInUse(RuntimeError):
    """Another process writes to the folder."""


@contextmanager
def folder_lock(folder: Path, work: str, name: str = LOCK) -> Iterator[None]:
    """Lock a folder, or a part of its files, for this process during the block.

    It is a kernel lock on a file in the folder, released whenever the process ends. On shared file systems that support it, the
    lock holds across machines.

    Args:
        folder: created if it does not exist.
        work: what is done there, as a verb: "trains", "builds".
        name: name of the lock file; a separate one if several processes may write different files of the folder.

    Raises:
        FolderInUse: another process holds it; the message names process, machine and folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a+") as stream:
        if _acquire(stream, folder / name, work):
            stream.truncate(0)
            json.dump({"process": os.getpid(), "host": socket.gethostname(), "since": _now(), "work": work}, stream)
            stream.flush()
        yield


def _acquire(stream: IO[str], file: Path, work: str) -> bool:
    """Lock the open file; False if the file system has no locks."""
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
