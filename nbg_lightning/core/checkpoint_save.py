"""Saving a checkpoint: written beside its name by all ranks, then named; at once, or in the background while training goes on.

In the background the state is first copied to host memory, which is all that training waits for; a thread of each rank then
does what is done at once otherwise, over a process group of its own, so that its exchanges never meet those of training.
"""

from __future__ import annotations

import copy
import errno
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from nbg_lightning.core.checkpoint import write_checkpoint
from nbg_lightning.core.checkpoint_folder import prepare, remove, replace, written_at
from nbg_lightning.distributed import gather_objects, get_rank
from nbg_lightning.error_line import first_line
from nbg_lightning.url_path import PathOrUrl

_LONGEST_WRITE = timedelta(hours=6)  # of the slowest rank, before the others of the background group give up


def save_checkpoint(path: PathOrUrl, states: dict[str, Any], meta: dict[str, Any], group: Any = None) -> None:
    """Write a checkpoint, which takes its name when all ranks are done; all ranks together.

    Args:
        path: of the checkpoint, on a disk that all ranks share, or behind a URL.
        states: what is spread over ranks: tensors, and plain values.
        meta: what the first rank writes: plain values and tensors.
        group: over which ranks agree; the default group unless another is given.

    Raises:
        OSError: on all ranks, with what went wrong on the first that failed; what had the name before still has it.
    """
    first = get_rank() == 0
    _together(lambda: prepare(path) if first else None, path, group)
    try:
        _together(lambda: write_checkpoint(written_at(path), states, meta, group), path, group)
    except OSError:
        if first:
            with suppress(OSError):  # of a store that cannot be reached; the next run removes it
                remove(written_at(path))
        raise
    _together(lambda: replace(path) if first else None, path, group)


def _together(action: Callable[[], None], path: PathOrUrl, group: Any) -> None:
    """Do a part of a save on all ranks; if one fails, all do."""
    failure: BaseException | None = None
    try:
        action()
    except (Exception, CheckpointException) as error:  # the latter is no Exception
        failure = error
    own = None if failure is None else _why(cause(failure), path)
    try:
        found = next((line for line in gather_objects(own, group) if line is not None), None)
    except RuntimeError as error:  # a rank has gone
        found, failure = own or _why(error, path), failure or error
    if found is not None:
        raise OSError(found) from failure


def cause(error: BaseException) -> BaseException:
    """What went wrong on the first rank that failed, out of the exception in which torch wraps all of them."""
    while isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return error


def _why(error: BaseException, path: PathOrUrl) -> str:
    full = any(
        (isinstance(each, OSError) and each.errno == errno.ENOSPC)
        or "No space left" in str(each)
        or "unexpected pos" in str(each)  # all that torch's zip writer says of a write that was cut short
        for each in (error, error.__cause__, error.__context__)
        if each is not None
    )
    if full and isinstance(path, Path):
        free = shutil.disk_usage(path.parent).free
        return f"disk full while saving {path} ({free / 1e9:.1f} GB free); free space and resume; older checkpoints are intact"
    return f"saving {path} failed ({first_line(error)}); older checkpoints are intact"


class BackgroundSaver:
    """Saves checkpoints in a thread, one at a time; all ranks call its methods together.

    Host memory for a copy of this rank's state is reused from save to save (page-locked where there is a GPU).

    Args:
        after: what the first rank does when a checkpoint has its name; runs in the thread.

    Attributes:
        path: the checkpoint that is being written, or whose outcome nobody has asked for; None without one.
        waits: saves that had to wait for the one before.
        seconds_waited: how long, in all.
    """

    def __init__(self, after: Callable[[], None]):
        self.path: PathOrUrl | None = None
        self.waits, self.seconds_waited = 0, 0.0
        self._after = after
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._group = dist.new_group(backend="gloo", timeout=_LONGEST_WRITE)
        on_gpu = torch.cuda.is_available()
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=on_gpu,
                use_shared_memory=False,
                use_async_staging=False,
                use_non_blocking_copy=on_gpu,
            )
        )

    def start(self, path: PathOrUrl, states: dict[str, Any], meta: dict[str, Any]) -> None:
        """Copy the state to host memory, and write it in the background; the one before must be collected.

        Args:
            path: of the checkpoint.
            states: as in `save_checkpoint`; may change as soon as this returns.
            meta: likewise.
        """
        assert self.path is None, "one checkpoint at a time is written"
        staged = self._stager.stage(states)
        arguments = (path, staged, copy.deepcopy(meta))
        self.path, self._error = path, None
        # A daemon: a file system that hangs does not keep the process; whoever ends the run waits with a deadline.
        self._thread = threading.Thread(target=self._save, args=arguments, name="checkpoint-writer", daemon=True)
        self._thread.start()

    def _save(self, path: PathOrUrl, states: dict[str, Any], meta: dict[str, Any]) -> None:
        try:
            save_checkpoint(path, states, meta, self._group)
            if get_rank() == 0:
                self._after()
        except BaseException as error:
            self._error = error

    @property
    def is_done(self) -> bool:
        """Whether this rank's thread has ended (other ranks' may not have)."""
        return self._thread is None or not self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for this rank's thread; False where it has not ended by then."""
        if self._thread is not None:
            begin = time.perf_counter()
            if self._thread.is_alive():
                self.waits += 1
                self._thread.join(seconds)
                self.seconds_waited += time.perf_counter() - begin
        return self.is_done

    def collect(self) -> PathOrUrl:
        """The checkpoint that has been written; its thread has ended.

        Raises:
            OSError: it could not be written.
        """
        assert self.path is not None and self._thread is not None and self.is_done
        self._thread.join()
        path, self.path, self._thread = self.path, None, None
        error, self._error = self._error, None
        if error is not None:
            raise error
        return path

    def close(self) -> None:
        """Free the host memory and the process group; a thread that hangs keeps its own."""
        if self.is_done:
            self._stager.close()
            dist.destroy_process_group(self._group)
