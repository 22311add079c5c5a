"""Number of processes to start."""

from __future__ import annotations

import os

from nbg_lightning.worker_process import usable_cores


def available_processors() -> int:
    """Processors available to this process, divided by the run's processes on this machine (``LOCAL_WORLD_SIZE``)."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
