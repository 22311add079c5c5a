"""How many processes are worth starting."""

from __future__ import annotations

import os
import sys


def available_processors() -> int:
    """Processors that this process may use, shared with the other processes of its run on this machine (``LOCAL_WORLD_SIZE``)."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
