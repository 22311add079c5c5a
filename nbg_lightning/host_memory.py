"""Memory that this process may use: the machine's, or its container's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ESCAPED = re.compile(r"\\([0-7]{3})")  # space, tab, newline and backslash in names of mount points
_FILES = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}


def host_memory(process: Path = Path("/proc/self")) -> int:
    """Bytes of the machine's memory, or fewer by a limit of a control group, as containers and schedulers set them.

    Args:
        process: folder with the groups of this process and its mount points (cgroups(7), proc_pid_mountinfo(5)).
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(process)])


def _limits(process: Path) -> Iterator[int]:
    """Limits of the process's groups and of those around them, which hold for it too."""
    paths = {kind: PurePosixPath(path) for kind, path in _groups(process)}
    for kind, root, point in _mounts(process):
        path = paths.get(kind)
        if path is None:
            continue
        # In a container, the group may be named as on the host, which mounts another part: then the part is the group.
        own = point / path.relative_to(root) if path.is_relative_to(root) else point
        for folder in (own, *own.parents):
            limit = _limit(folder / _FILES[kind])
            if limit is not None:
                yield limit
            if folder == point:
                break


def _groups(process: Path) -> Iterator[tuple[str, str]]:
    """The groups of a process that may limit memory: the file system of their hierarchy, and their path in it."""
    for line in _lines(process / "cgroup"):
        if line.count(":") >= 2:
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield "cgroup2", path
            elif "memory" in controllers.split(","):
                yield "cgroup", path


def _mounts(process: Path) -> Iterator[tuple[str, PurePosixPath, Path]]:
    """Where these hierarchies are mounted: the file system, the group that is mounted, and the mount point."""
    for line in _lines(process / "mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, *options) = before.split(" "), after.split(" ")
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options[-1].split(",")):
            root, point = (_ESCAPED.sub(lambda code: chr(int(code[1], 8)), name) for name in fields[3:5])
            yield kind, PurePosixPath(root), Path(point)


def _lines(file: Path) -> list[str]:
    try:
        return os.fsdecode(file.read_bytes()).split("\n")  # names may have any bytes but this one
    except OSError:  # no Linux
        return []


def _limit(file: Path) -> int | None:
    try:
        text = file.read_bytes().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" is none
