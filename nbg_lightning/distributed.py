"""Exchange of small objects between ranks, over any process group, and their end; a single process is rank 0 of 1."""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import os
import sys
import threading
from typing import Any, NoReturn

from nbg_lightning.last_words import call_within

_FLUSH_SECONDS = 30.0  # for what files still buffer at the end of a rank


def _group() -> Any:
    """`torch.distributed` where a process group is, else None."""
    import torch.distributed as dist

    return dist if dist.is_available() and dist.is_initialized() else None


def get_rank() -> int:
    """Rank of this process, from 0."""
    group = _group()
    return 0 if group is None else int(group.get_rank())


def get_world_size() -> int:
    """Number of ranks."""
    group = _group()
    return 1 if group is None else int(group.get_world_size())


def gather_objects(value: Any, among: Any = None) -> list[Any]:
    """Gather every rank's value on every rank. Collective.

    Args:
        value: picklable value of this rank.
        among: a process group whose ranks take part; all ranks by default.
    """
    group = _group()
    size = 1 if group is None else int(group.get_world_size(among))
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    group.all_gather_object(values, value, group=among)
    return values


def broadcast_object(value: Any) -> Any:
    """Broadcast the first rank's value to every rank. Collective."""
    group = _group()
    if get_world_size() == 1:
        return value
    values = [value]
    group.broadcast_object_list(values, src=0)
    return values[0]


def end_rank(code: int) -> NoReturn:
    """End the process of a rank as Python does, except that the interpreter is not torn down.

    gloo's threads can outlive the last collective: one that frees a tensor while the interpreter is torn down needs the
    interpreter, which ends the thread, and C++ aborts the process for it ("terminate called without an active exception").
    A complete run would end with SIGABRT then, and torchrun would start it again.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # as in a process of multiprocessing: waits for threads
        atexit._run_exitfuncs()
        _flush_open_files()
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:  # of a process that was started with a closed one (>&-)
                    stream.flush()
            except (OSError, ValueError):  # nobody reads it any more
                code = code or 120  # Python's own exit code for this
    finally:
        os._exit(code)


def _flush_open_files() -> None:
    """Write what files that nobody has closed, and C's streams, still buffer, as the end of the interpreter would.

    What a file writes only when it is closed, such as the directory of a zip archive, is not written.
    """
    for kind in (io.TextIOWrapper, (io.BufferedWriter, io.BufferedRandom)):  # text first, which fills the others
        call_within(_FLUSH_SECONDS, [each.flush for each in gc.get_objects() if issubclass(type(each), kind)])
    call_within(_FLUSH_SECONDS, [lambda: ctypes.CDLL(None).fflush(None)])
