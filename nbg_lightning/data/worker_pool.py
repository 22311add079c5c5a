"""Worker processes that encode parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from nbg_lightning.chat.fast_encoder import ONE_THREAD, EnginesDiffer
from nbg_lightning.data.encode_part import PartJob, Report, encode_part
from nbg_lightning.data.encoder import Encoder
from nbg_lightning.worker_process import hidden_main_module, worker_context

STALL_SECONDS = 3600.0  # without any report from a worker: a file system hangs


class WorkerPool:
    """Worker processes that encode parts.

    Not `concurrent.futures`, as in `nbg_lightning.jobs`: a part may take minutes, and a future reports nothing before it is
    done, while these workers report documents, bytes and tokens twice a second. For a killed worker it raises only
    ``BrokenProcessPool: A process in the process pool was terminated abruptly``, while this names the part and the exit code.
    """

    def __init__(self, num_workers: int, encoder: Encoder) -> None:
        context = worker_context("spawn")
        self.workers: dict[Connection, Any] = {}
        with hidden_main_module():
            for _ in range(num_workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, encoder), daemon=True)
                process.start()
                theirs.close()
                self.workers[ours] = process

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        for connection, process in self.workers.items():
            connection.close()
            process.terminate()
        for process in self.workers.values():
            process.join(10)
            if process.is_alive():
                process.kill()

    def run(self, jobs: list[PartJob], report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (part index, record) as parts are finished."""
        outside = {type(job.part).__qualname__ for job in jobs if type(job.part).__module__ == "__main__"}
        if outside:
            raise ValueError(
                f"workers cannot import {', '.join(sorted(outside))} from the running script or notebook; "
                "move it to a module, or set num_workers to 0"
            )
        todo = list(reversed(jobs))
        running: dict[Connection, PartJob] = {}
        for connection in self.workers:
            self._send(connection, todo.pop(), running)
        while running:
            ready: list[Any] = wait(list(running), timeout=STALL_SECONDS)
            if not ready:
                parts = ", ".join(str(job.index) for job in running.values())
                raise RuntimeError(
                    f"no worker has answered for {STALL_SECONDS:,.0f} s (parts {parts}); see whether the "
                    "file system hangs, and run again; finished parts are kept"
                )
            for connection in ready:
                try:
                    kind, value = connection.recv()
                except (EOFError, ConnectionResetError):
                    self._dead(connection, running)
                if kind == "progress":
                    report(*value)
                elif kind == "error":
                    raise value
                else:
                    yield running.pop(connection).index, value
                    if todo:
                        self._send(connection, todo.pop(), running)

    def _send(self, connection: Connection, job: PartJob, running: dict[Connection, PartJob]) -> None:
        running[connection] = job
        try:
            connection.send(job)
        except (BrokenPipeError, ConnectionResetError):
            self._dead(connection, running)

    def _dead(self, connection: Connection, running: dict[Connection, PartJob]) -> NoReturn:
        process = self.workers[connection]
        process.join(10)
        raise RuntimeError(
            f"the worker for part {running[connection].index} died (exit code {process.exitcode}; -9 is "
            "often out of memory): lower num_workers and run again; finished parts are kept"
        ) from None


def _work(connection: Connection, encoder: Encoder) -> None:
    """Main loop of a worker process."""
    os.environ.update(ONE_THREAD)
    try:
        while True:
            job = connection.recv()
            record = encode_part(job, encoder, lambda *counts: connection.send(("progress", counts)))
            connection.send(("done", record))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has closed the pipe
    except Exception as error:
        connection.send(("error", _plain_error(error)))


def _plain_error(error: Exception) -> Exception:
    """Convert the error to one of a few types that can be sent through a pipe."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(str(error))
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, f"{error.strerror}: {error.filename}" if error.filename else error.strerror)
    if isinstance(error, EnginesDiffer):
        return EnginesDiffer(str(error))
    if isinstance(error, ValueError):
        return ValueError(str(error))
    return RuntimeError(f"a worker failed: {type(error).__name__}: {error}")
