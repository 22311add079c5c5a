"""Hub downloads made by one process per node while the other ranks wait."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

T = TypeVar("T")

WAIT_SECONDS = 3600.0  # wait for another rank's download: 70 B parameters in bfloat16 at 40 MB/s
_LAUNCH = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
)


def once_a_node(name: str, get: Callable[[bool], T], folder: Path, wait_seconds: float = WAIT_SECONDS) -> T:
    """Download under a lock: of the ranks that share a cache one downloads, and the others use the cached files.

    Args:
        name: name of the model or file.
        get: downloads it; called with True if it is already cached and the network is not needed.
        folder: the cache folder.
        wait_seconds: how long to wait for another process.

    Raises:
        TimeoutError: another process holds the lock for longer.
    """
    launch = launch_of(os.environ)
    if launch is None:
        return get(False)
    places = folder / ".nbg-locks"
    try:
        places.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only cache: nothing can be downloaded into it
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
    """An id shared by the ranks of one launch; None for a single process."""
    ranks = environment.get("WORLD_SIZE") or environment.get("SLURM_NTASKS") or "1"
    if ranks.strip() == "1":
        return None
    values = "|".join(environment.get(name, "") for name in _LAUNCH)
    return hashlib.sha256(values.encode()).hexdigest()
