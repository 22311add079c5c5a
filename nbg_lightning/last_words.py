"""Calls and lines at the end of a process, when threads may hold any lock and disks may not answer."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence


def call_within(seconds: float, calls: Sequence[Callable[[], object]]) -> None:
    """Call functions in parallel at the end of a process, and abandon those that take longer: they wait for a disk that does not
    answer, or for the lock of a thread that does.

    Args:
        seconds: for all of them; without a limit where Python can start no thread.
        calls: whose exceptions are dropped.
    """

    def quiet(call: Callable[[], object]) -> None:
        with contextlib.suppress(Exception):  # of any class; the interpreter ignores what destructors raise, too
            call()

    threads = [threading.Thread(target=quiet, args=(call,), daemon=True) for call in calls]
    end = time.monotonic() + seconds
    for thread, call in zip(threads, calls, strict=True):
        try:
            thread.start()
        except RuntimeError:  # Python 3.12 starts none in the functions of atexit
            quiet(call)
    for thread in filter(threading.Thread.is_alive, threads):
        thread.join(max(0.0, end - time.monotonic()))


def say(line: str) -> None:
    """Write a line to standard error, from the first rank only, where printing is not safe."""
    if speaks():
        with contextlib.suppress(OSError):
            os.write(2, f"{line}\n".encode(errors="replace"))


def speaks() -> bool:
    """Whether this process is the first rank, or the only one."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
