"""A download that one process of a node makes while the other ranks wait for it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

T = TypeVar("T")

WAIT_SECONDS = 3600.0  # for another rank's download: 70 B in bfloat16 at 40 MB/s
_LAUNCH = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
)


def once_a_node(name: str, get: Callable[[bool], T], folder: Path, wait_seconds: float = WAIT_SECONDS) -> T:
    """Download under a lock, so that of the ranks that share a cache one does, and the others take what it has left there.

    Args:
        name: of what is downloaded.
        get: gives it; called with True where it is in the cache already and the network need not be asked.
        folder: of the cache.
        wait_seconds: for another process.

    Raises:
        TimeoutError: another process holds the lock for longer.
    """
    launch = launch_of(os.environ)
    if launch is None:
        return get(False)
    places = folder / ".nbg-locks"
    try:
        places.mkdir(parents=True, exist_ok=True)
    except OSError:  # a cache that is only read: there is nothing to download into it
        return get(False)
    readable = re.sub(r"[^A-Za-z0-9._-]", "--", name)[:80]
    file = places / f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:12]}.lock"
    done = file.with_suffix(".done")
    try:
        with FileLock(file, timeout=wait_seconds):
            there = done.is_file() and done.read_text("utf-8", errors="replace") == launch
            found = get(there)
            done.write_text(launch, "utf-8")
            return found
    except Timeout:
        raise TimeoutError(
            f"{name} is downloaded by another process for more than {wait_seconds:,.0f} s ({file}); download it before the run, "
            "or look what that process does"
        ) from None


def launch_of(environment: Mapping[str, str]) -> str | None:
    """What the ranks of one launch have in common; None for a process by itself."""
    ranks = environment.get("WORLD_SIZE") or environment.get("SLURM_NTASKS") or "1"
    if ranks.strip() == "1":
        return None
    values = "|".join(environment.get(name, "") for name in _LAUNCH)
    return hashlib.sha256(values.encode()).hexdigest()
