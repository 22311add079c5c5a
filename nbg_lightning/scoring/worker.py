"""A process for user functions, which are trusted, but may hang or crash and are then killed."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from nbg_lightning.parent import die_with
from nbg_lightning.scoring.frames import read_frame, write_frame

START_SECONDS = 60.0  # for imports, in addition to the first call's deadline
_ORPHAN_SECONDS = 60  # processor time that a child without a parent may still use, in addition to the deadline


class FunctionWorker:
    """Runs functions, given by import path, in another process with this one's modules and without GPUs."""

    def __init__(self) -> None:
        modules = os.pathsep.join(place or os.getcwd() for place in sys.path)
        self._ready: set[str] = set()  # functions whose imports are done
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from nbg_lightning.scoring.worker import serve; serve({os.getpid()})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": modules},
            start_new_session=True,  # a Ctrl-C goes to the run, which then ends this process
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.jobs, self.replies = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self.jobs, False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    def ask(self, function: str, arguments: Sequence[Any], deadline: float) -> tuple[bool, Any]:
        """Call a function: returns whether it returned, and its result or its exception in one line.

        Raises:
            TimeoutError: no result in time.
            OSError, EOFError, pickle.UnpicklingError: the process has ended.
        """
        message = pickle.dumps((function, deadline, tuple(arguments)))
        known = function in self._ready
        end = time.monotonic() + deadline + (0.0 if known else START_SECONDS)
        write_frame(self.jobs, message, end)
        if not known:
            read_frame(self.replies, end)  # its imports are done: the time limit starts
            self._ready.add(function)
            end = time.monotonic() + deadline
        returned, value = pickle.loads(read_frame(self.replies, end))
        return returned, value

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


# -- in the child ------------------------------------------------------------------------------------------------------


def serve(parent: int) -> None:
    """Serve calls from standard input until it ends."""
    die_with(parent)
    source, target = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # a function's output must not mix with the results
    ready = set()
    with contextlib.suppress(EOFError):
        while True:
            path, deadline, arguments = pickle.loads(read_frame(source, None))
            _bind_time(deadline)
            try:
                failure, function = None, _function(path)
            except Exception as error:
                failure, function = error, None
            if path not in ready:
                ready.add(path)
                _send(target, None)
            try:
                if failure is not None:
                    raise failure
                reply = (True, function(*arguments))
            except Exception as error:
                reply = (False, (str(error).strip() or type(error).__name__).splitlines()[0])
            _send(target, reply)


def _send(target: int, value: Any) -> None:
    write_frame(target, pickle.dumps(value), None)


def _bind_time(deadline: float) -> None:
    """Limit processor time, so that the kernel ends a computing child whose parent has died."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + START_SECONDS + deadline) + _ORPHAN_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


@functools.cache
def _function(path: str) -> Any:
    from nbg_lightning.import_path import import_object

    return import_object(path)
