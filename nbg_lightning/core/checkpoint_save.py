"""Saving a checkpoint, synchronously or in the background: all ranks write to a partial folder, which is then renamed.

In the background, training waits only for a copy of the state to host memory. A thread on each rank then saves it over a process
group of its own, so that its collectives never mix with those of training.
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

_LONGEST_WRITE = timedelta(hours=6)  # for the slowest rank; after it the other ranks of the background group give up


def save_checkpoint(path: PathOrUrl, states: dict[str, Any], meta: dict[str, Any], group: Any = None) -> None:
    """Write a checkpoint and rename it into place when all ranks are done; collective over all ranks.

    Args:
        path: the checkpoint, on a disk shared by all ranks or behind a URL.
        states: state spread over the ranks: tensors and plain values.
        meta: state written by the first rank: plain values and tensors.
        group: process group that coordinates the save; the default group if None.

    Raises:
        OSError: on all ranks, with the cause on the first one that failed; an older checkpoint of that name is kept.
    """
    first = get_rank() == 0
    _together(lambda: prepare(path) if first else None, path, group)
    try:
        _together(lambda: write_checkpoint(written_at(path), states, meta, group), path, group)
    except OSError:
        if first:
            with suppress(OSError):  # an unreachable store; the next run removes the rest
                remove(written_at(path))
        raise
    _together(lambda: replace(path) if first else None, path, group)


def _together(action: Callable[[], None], path: PathOrUrl, group: Any) -> None:
    """Run one part of a save on all ranks; if it fails on one, it fails on all."""
    failure: BaseException | None = None
    try:
        action()
    except (Exception, CheckpointException) as error:  # the latter is not an Exception
        failure = error
    own = None if failure is None else _why(cause(failure), path)
    try:
        found = next((line for line in gather_objects(own, group) if line is not None), None)
    except RuntimeError as error:  # a rank has died
        found, failure = own or _why(error, path), failure or error
    if found is not None:
        raise OSError(found) from failure


def cause(error: BaseException) -> BaseException:
    """The cause on the first rank that failed, unwrapped from torch's exception for all ranks."""
    while isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return error


def _why(error: BaseException, path: PathOrUrl) -> str:
    full = any(
        (isinstance(each, OSError) and each.errno == errno.ENOSPC)
        or "No space left" in str(each)
        or "unexpected pos" in str(each)  # torch's zip writer reports a truncated write like this
        for each in (error, error.__cause__, error.__context__)
        if each is not None
    )
    if full and isinstance(path, Path):
        free = shutil.disk_usage(path.parent).free
        return f"disk full while saving {path} ({free / 1e9:.1f} GB free); free space and resume; older checkpoints are intact"
    return f"saving {path} failed ({first_line(error)}); older checkpoints are intact"


class BackgroundSaver:
    """Saves checkpoints in a background thread, one at a time; all methods are collective over the ranks.

    The host memory for this rank's copy of the state is reused between saves (pinned if there is a GPU).

    Args:
        after: called on the first rank, in the thread, when a checkpoint has been renamed into place.

    Attributes:
        path: the checkpoint being written or not yet collected; None if there is none.
        waits: number of saves that had to wait for the previous one.
        seconds_waited: total time of these waits.
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
        """Copy the state to host memory and write it in the background; the previous save must have been collected.

        Args:
            path: the checkpoint.
            states: as in `save_checkpoint`; may be changed as soon as this returns.
            meta: as in `save_checkpoint`.
        """
        assert self.path is None, "one checkpoint at a time is written"
        staged = self._stager.stage(states)
        arguments = (path, staged, copy.deepcopy(meta))
        self.path, self._error = path, None
        # A daemon thread: a hanging file system must not keep the process alive; the end of a run waits with a timeout.
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
        """Whether this rank's thread has finished (other ranks' may not have)."""
        return self._thread is None or not self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for this rank's thread; returns False on timeout."""
        if self._thread is not None:
            begin = time.perf_counter()
            if self._thread.is_alive():
                self.waits += 1
                self._thread.join(seconds)
                self.seconds_waited += time.perf_counter() - begin
        return self.is_done

    def collect(self) -> PathOrUrl:
        """Return the checkpoint that has been written, after its thread has finished.

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
        """Free the host memory and the process group, unless the thread hangs and still uses them."""
        if self.is_done:
            self._stager.close()
            dist.destroy_process_group(self._group)
