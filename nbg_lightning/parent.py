"""Processes that end with the one that started them. Imports little, since every import makes forks of the process costlier."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
from typing import Any

LAUNCHER = "NBG_LAUNCHER"
"""Environment variable of the ranks that another rank has started: its process."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def is_launched() -> bool:
    """Whether another rank of the machine has started this one."""
    return os.environ.get(LAUNCHER) == str(os.getppid())


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel signal this process when its parent ends, for any reason; exit if it has ended already.

    The kernel watches the thread that started this process: it must be the parent's main thread.
    """
    if sys.platform == "linux":
        _prctl()(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


@functools.cache
def _prctl() -> Any:
    """Look up the function once, for all processes forked from this one."""
    return ctypes.CDLL(None).prctl
