"""Worker processes: they ignore signals, and end with their parent."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from nbg_lightning.parent import die_with
from nbg_lightning.stopping import STOP_SIGNALS

_PARENT_SECONDS = 1.0  # between looks at the parent, where the kernel does not tell


def usable_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def hidden_main_module() -> Iterator[None]:
    """Hide the main module from new processes, so that they do not run the user's script."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


if TYPE_CHECKING:
    _Process = multiprocessing.context.SpawnProcess
else:
    _Process = object


class _Worker(_Process):
    """A process that starts with signals blocked, so that an early one does not kill it."""

    def start(self) -> None:
        self.parent_id = os.getpid()
        self.from_main_thread = threading.current_thread() is threading.main_thread()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            resource_tracker.ensure_running()  # lives as long as this process, too; starting it unblocks signals
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def run(self) -> None:
        if self.from_main_thread:
            die_with(self.parent_id)
        threading.Thread(target=_obey_parent_only, args=(self.parent_id,), daemon=True).start()
        super().run()


def _obey_parent_only(parent: int) -> None:
    """End when the parent requests it or is gone, not when a signal reaches the whole group: the parent may still need this
    worker.
    """
    if not hasattr(signal, "sigtimedwait"):  # macOS: the signals stay blocked, and SIGKILL remains
        return
    while True:
        found = signal.sigtimedwait(STOP_SIGNALS, _PARENT_SECONDS)
        if os.getppid() != parent:
            os._exit(1)
        if found is not None and found.si_signo == signal.SIGTERM and found.si_pid == parent:
            os._exit(0)  # `terminate`


class SpawnedWorker(_Worker, multiprocessing.context.SpawnProcess):
    """A worker in a new interpreter."""


class ForkedWorker(_Worker, multiprocessing.context.ForkProcess):
    """A worker that starts as a copy of its parent."""


class _SpawnContext(multiprocessing.context.SpawnContext):
    def __init__(self) -> None:
        self.started: list[SpawnedWorker] = []

    def Process(self, *arguments: Any, **keywords: Any) -> SpawnedWorker:  # type: ignore[override]  # a class there, a function here
        self.started.append(SpawnedWorker(*arguments, **keywords))
        return self.started[-1]


class _ForkContext(multiprocessing.context.ForkContext):
    Process = ForkedWorker


_CONTEXTS: dict[str, Any] = {"spawn": _SpawnContext, "fork": _ForkContext}


def worker_context(method: str) -> Any:
    """A `multiprocessing` context for such workers, by its start method; others are Python's own."""
    kind = _CONTEXTS.get(method)
    return multiprocessing.get_context(method) if kind is None else kind()
