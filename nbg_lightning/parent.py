"""Processes that end with their parent, and obey it. Imports little, since every import makes forks of the process costlier."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
import threading
from collections.abc import Collection
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK_SECONDS = 1.0  # between looks at the parent, where the kernel does not tell


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


def obey_only(parent: int, numbers: Collection[signal.Signals]) -> None:
    """Give signals of the parent their usual effect, as in `terminate`, ignore those of others, and end when it has gone.

    On macOS all signals have their usual effect. Called in the main thread.
    """
    if not hasattr(signal, "sigtimedwait"):
        return
    if signal.getsignal(signal.SIGCONT) == signal.SIG_DFL:
        signal.signal(signal.SIGCONT, lambda *_: None)  # interrupts a call in which the main thread waits
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    threading.Thread(target=_take_from, args=(parent, numbers), daemon=True).start()


def _take_from(parent: int, numbers: Collection[signal.Signals]) -> None:
    main = threading.main_thread().ident
    assert main is not None
    while True:
        found = signal.sigtimedwait(numbers, _LOOK_SECONDS)
        if os.getppid() != parent:
            os._exit(1)
        if found is not None and found.si_pid == parent:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [found.si_signo])
            os.kill(os.getpid(), found.si_signo)
            signal.pthread_sigmask(signal.SIG_BLOCK, [found.si_signo])
            signal.pthread_kill(main, signal.SIGCONT)
