"""Confinement of the process that checks an answer, whatever the answer makes its checker do.

There are three independent layers: text that is not an expression of `grammar` is not evaluated (an audit hook, which Python
code cannot remove); the kernel refuses new processes, signals to others, sockets and writing files; limits on memory,
processor time and files. All of this is inside the sandbox.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any

from nbg_lightning.scoring.checkers.grammar import refusal

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2  # linux/prctl.h, linux/seccomp.h
_PR_SET_DUMPABLE = 4
_MADV_COLLAPSE = 25  # linux/mman.h, since Linux 6.1
_LARGE_PAGE = 2 << 20
_INSTRUCTION_BYTES = 8  # struct sock_filter

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

# Audit events without a legitimate use while checking an answer; https://docs.python.org/3/library/audit_events.html
REFUSED_EVENTS = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.startfile",
    "subprocess.", "pty.", "socket.", "ctypes.", "code.__new__", "function.__new__", "pickle.find_class", "sys.settrace",
    "sys.setprofile", "sys._current_frames", "gc.get_", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link",
    "os.symlink", "os.truncate", "os.chmod", "os.chown", "shutil.", "tempfile.", "builtins.input", "builtins.breakpoint",
)  # fmt: skip
# Modules that generate code from their own templates, from names that they check, or from a number (of variables).
_GENERATORS = (
    "/collections/__init__.py", "/dataclasses.py", "/enum.py", "/functools.py", "/typing.py", "/sympy/polys/monomials.py",
)  # fmt: skip


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def hide() -> None:
    """Hide this process's memory and descriptors from others of the same user."""
    if _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_DUMPABLE")


def gather_memory() -> None:
    """Ask the kernel to keep this process's memory in large pages, if it can: a fork then copies one entry per 2 MB, not 512."""
    with open("/proc/self/maps", encoding="ascii") as file:
        lines = [line.split() for line in file]
    for place, permissions, *_, name in ((*line, "") if len(line) < 6 else line for line in lines):
        if permissions == "rw-p" and name in ("", "[heap]"):
            begin, end = (int(number, 16) for number in place.split("-"))
            begin += -begin % _LARGE_PAGE
            if (length := (end - begin) // _LARGE_PAGE * _LARGE_PAGE) > 0:
                _LIBC.madvise(begin, length, _MADV_COLLAPSE)  # only advice: older kernels do not support it


def limit(memory: int, seconds: float) -> None:
    """Limit this process: ``memory`` bytes beyond its current use, processor time, no processes, no files.

    Args:
        memory: bytes of address space in addition to those in use.
        seconds: processor time in addition to that used.
    """
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    times = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(times.ru_utime + times.ru_stime + seconds) + 1
    for kind, value in (
        (resource.RLIMIT_AS, used + memory),
        (resource.RLIMIT_CPU, most),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(kind, (value, value))


def filter_system_calls(instructions: bytes) -> None:
    """Add an irrevocable filter (an array of ``struct sock_filter``) to those of this process."""
    program = _Program(len(instructions) // _INSTRUCTION_BYTES, instructions)
    if _LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")


def close_all_but(*kept: int) -> None:
    """Close all descriptors except the standard ones and these."""
    start = 3
    for descriptor in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(start, descriptor)
        start = descriptor + 1


def forbid_code(trusted: Sequence[str], refused: Callable[[str], Any]) -> None:
    """From here on refuse evaluating text that `grammar` refuses, and all `REFUSED_EVENTS`.

    Args:
        trusted: folders of modules that may still be imported (compiled).
        refused: called once with the reason; must end the process.
    """
    inside = False  # the grammar itself parses, which is an event too

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal inside
        if inside:
            return
        reason = None
        if event == "compile":
            inside = True
            try:
                source, place = arguments[:2]
                reason = _compile_refusal(source, place, trusted)
            finally:
                inside = False
        elif event == "open":
            path, mode, flags = arguments[:3]
            reason = _open_refusal(path, mode, flags)
        elif event.startswith(REFUSED_EVENTS):
            reason = f"it calls {event}"
        if reason is not None:
            inside = True
            refused(reason)

    sys.addaudithook(hook)


def _compile_refusal(source: Any, name: Any, trusted: Sequence[str]) -> str | None:
    place = os.fsdecode(name) if isinstance(name, (str, bytes)) else ""
    if place.startswith(tuple(trusted)):
        return None
    reason = refusal(source)
    if reason is None:
        return None
    # 0 is this function, 1 the hook, 2 the caller that compiles.
    return None if sys._getframe(2).f_code.co_filename.endswith(_GENERATORS) else reason


def _open_refusal(path: Any, mode: Any, flags: Any) -> str | None:
    writes = isinstance(mode, str) and set(mode) & set("wax+")
    changes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    return f"it writes to {str(path)[:60]!r}" if writes or changes else None
