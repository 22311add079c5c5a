"""Memory that this process may use: the machine's, or its container's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS, _MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def host_memory(groups: Path = _GROUPS, mounted: Path = _MOUNTED) -> int:
    """Bytes of the machine's memory, or fewer by a limit of a control group, as containers and schedulers set them.

    Args:
        groups: the groups of this process, a line each (cgroups(7)).
        mounted: where they are mounted.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(groups, mounted)])


def _limits(groups: Path, mounted: Path) -> Iterator[int]:
    """Limits of the process's groups and of those around them, which hold for it too."""
    try:
        lines = os.fsdecode(groups.read_bytes()).split("\n")  # names may have any bytes but this one
    except OSError:  # no Linux
        return
    for line in lines:
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, name = mounted, "memory.max"  # version 2
        elif "memory" in controllers.split(","):
            base, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = base / path.lstrip("/")  # in a container, it may be a path of the host: then only the base is there
        for folder in (own, *own.parents):
            limit = _limit(folder / name)
            if limit is not None:
                yield limit
            if folder == base:
                break


def _limit(file: Path) -> int | None:
    try:
        text = file.read_bytes().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is none
