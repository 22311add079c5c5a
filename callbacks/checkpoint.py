"""Checkpoints by step, of which the newest complete one can always be found."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.callbacks.graceful_stop import GracefulStop, stop_signal
from nbg_lightning.callbacks.retention import Keep
from nbg_lightning.contracts import callbacks_of, is_fast_dev_run
from nbg_lightning.core.checkpoint_folder import is_complete, move, remove, remove_leftovers, settle_all
from nbg_lightning.core.checkpoint_names import DIGESTS
from nbg_lightning.core.checkpoint_save import BackgroundSaver
from nbg_lightning.quantities import count_text
from nbg_lightning.remote import is_url, open_store
from nbg_lightning.url_path import PathOrUrl, UrlPath, place_of

_PREFIX = "step-"
_NAME = re.compile(rf"{_PREFIX}\d+")


def checkpoints(folder: str | PathOrUrl) -> list[PathOrUrl]:
    """The complete checkpoints in a folder, oldest first."""
    found = [path for path in place_of(folder).glob(f"{_PREFIX}*") if is_complete(path)]
    return sorted(found, key=step_of)


def step_of(path: PathOrUrl) -> int:
    """The optimizer step of a checkpoint, from its name."""
    return int(path.name.removeprefix(_PREFIX))


def damaged(folder: str | PathOrUrl) -> PathOrUrl | None:
    """The newest checkpoint that has its final name but is incomplete, hence damaged. None for URLs, where names prove
    nothing.
    """
    place = place_of(folder)
    if isinstance(place, UrlPath):
        return None
    found = [path for path in place.glob(f"{_PREFIX}*") if _NAME.fullmatch(path.name) and not is_complete(path)]
    return max(found, key=step_of, default=None)


def set_aside(paths: list[PathOrUrl]) -> PathOrUrl:
    """Move checkpoints that a new run would mistake for its own into a sibling folder, and return it."""
    folder = paths[0].parent
    number = 1
    while (aside := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    for path in paths:
        move(path, aside / path.name)
    return aside


def _written(path: PathOrUrl) -> float:
    return (path / DIGESTS).modified() if isinstance(path, UrlPath) else path.stat().st_mtime


class StepCheckpoint(ModelCheckpoint):
    """Saves a checkpoint every ``every_n_steps`` steps and at the end, and keeps the most recent ones.

    A checkpoint appears under its final name only when it is complete (see `FSDP2Strategy`), and older ones are removed
    only after that, so a usable checkpoint exists at all times. ``Trainer.fit(ckpt_path="last")`` resumes from it.
    Checkpoints of an earlier run that are ahead of the step where this run starts are moved to ``checkpoints-1`` and so on.

    With ``asynchronous``, training blocks only while the state is copied to host memory, which needs memory for this rank's
    shard; the copy is written in the background. Only one checkpoint is written at a time: the next one waits for it, and
    the number of waits is logged at the end of training. On a stop, at the end and after an error, the run waits up to
    ``deadline`` seconds for the pending write, and the last state is saved synchronously. A failed write ends the run after
    the next step.

    Args:
        every_n_steps: optimizer steps between checkpoints; None saves at the end of training only.
        keep: number of most recent checkpoints to keep, or a `Keep` with more rules.
        dirpath: destination; ``<default_root_dir>/checkpoints`` by default. A folder, or a URL such as ``s3://bucket/run``,
            where a checkpoint is complete once its last file is written.
        asynchronous: write in the background.
        deadline: seconds to wait for a checkpoint that is being written in the background.

    Raises:
        ValueError: an invalid setting.
    """

    def __init__(
        self,
        every_n_steps: int | None = None,
        keep: int | Keep = 2,
        dirpath: str | None = None,
        asynchronous: bool = False,
        deadline: float = 1800.0,
    ):
        number = 1 if isinstance(keep, Keep) else keep
        for name, value in (("keep", number), ("every_n_steps", 1 if every_n_steps is None else every_n_steps)):
            if value < 1:
                raise ValueError(f"{name} is invalid: {value}; give at least 1")
        if not deadline > 0:
            raise ValueError(f"deadline is invalid: {deadline}; give seconds above 0")
        if dirpath is not None and is_url(dirpath):
            open_store(dirpath)  # raises if a package is missing, with what to install
        super().__init__(dirpath=dirpath, save_top_k=0)  # the base class only resolves "last"
        self.every_n_steps = every_n_steps
        self.keep = keep if isinstance(keep, Keep) else Keep(keep)
        if self.keep.every is not None and (every_n_steps is None or self.keep.every % every_n_steps):
            raise ValueError(
                f"keep.every is invalid: {self.keep.every}; give a multiple of every_n_steps ({every_n_steps}): at other steps "
                "nothing is saved"
            )
        if asynchronous and every_n_steps is None:
            raise ValueError(
                "asynchronous is invalid: true; set every_n_steps: the run waits for the final checkpoint in any case"
            )
        self.asynchronous, self.deadline = asynchronous, deadline
        self._saved_step = -1
        self._saver: BackgroundSaver | None = None

    @property
    def is_remote(self) -> bool:
        """Whether checkpoints go to a URL."""
        return self.dirpath is not None and is_url(str(self.dirpath))

    @property
    @override
    def state_key(self) -> str:
        return "StepCheckpoint"

    @override
    def state_dict(self) -> dict[str, Any]:
        return {}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore nothing: the folder is the only state."""

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.dirpath = trainer.strategy.broadcast(self._folder(trainer))

    def _folder(self, trainer: pl.Trainer) -> str:
        return str(self.dirpath or Path(trainer.default_root_dir) / "checkpoints")

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_step = trainer.global_step  # nothing new to save yet
        assert self.dirpath is not None
        if trainer.is_global_zero:
            settle_all(self.dirpath)
            later = [path for path in checkpoints(self.dirpath) if step_of(path) > trainer.global_step]
            if later:
                aside = set_aside(later)
                log.info(f"{len(later)} checkpoints of an earlier run are ahead of this one: moved to {aside}")
            remove_leftovers(self.dirpath, _PREFIX)
        trainer.strategy.barrier()
        if self.asynchronous:
            self._saver = BackgroundSaver(self._remove_old)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._collect_if_done(trainer)
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        # The last checkpoint before a stop is saved here, not in on_train_end: there Lightning has counted the epoch as
        # over, and a run resumed from it would have nothing left to do.
        ends = trainer.should_stop or self._is_last(trainer)
        if due or ends:
            self.save(trainer, at_once=ends)
            for callback in callbacks_of(trainer):  # a signal may have come while it saved
                if isinstance(callback, GracefulStop):
                    callback.agree(trainer)

    @staticmethod
    def _is_last(trainer: pl.Trainer) -> bool:
        """Whether training ends with this step: its checkpoint must exist before other callbacks run at the end."""
        epochs = trainer.max_epochs
        last_epoch = epochs is not None and 0 <= epochs <= trainer.current_epoch + 1
        return trainer.global_step == trainer.max_steps or (trainer.is_last_batch and last_epoch)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save(trainer)
        if self._saver is not None and self._saver.waits:
            saves = count_text(self._saver.waits, "save")
            log.info(
                f"{saves} waited for the one before, {self._saver.seconds_waited:.1f} s in all: "
                "a larger StepCheckpoint.every_n_steps costs less"
            )
        self._close()

    def save(self, trainer: pl.Trainer, at_once: bool = True) -> None:
        """Save the state after the last finished step, unless it is saved already. Collective.

        Args:
            trainer: the trainer to save.
            at_once: with ``asynchronous``, block until the checkpoint is written rather than only copied.
        """
        done = trainer.global_step == self._saved_step or is_fast_dev_run(trainer)
        if at_once or not done:
            self._collect(trainer)
        if done:
            return
        assert self.dirpath is not None
        path = place_of(self.dirpath) / f"{_PREFIX}{trainer.global_step:08d}"
        saver = None if at_once else self._saver
        trainer.save_checkpoint(cast(Path, path), weights_only=False, storage_options=saver)
        self._saved_step = trainer.global_step
        if saver is not None:
            return
        if trainer.is_global_zero:
            self._remove_old()
        log.info(f"saved {path}")

    def _remove_old(self) -> None:
        assert self.dirpath is not None
        found = checkpoints(self.dirpath)
        time_of = {step_of(path): _written(path) for path in found}
        ages = [(time.time() - written) / 3600 for written in time_of.values()]
        leaving = set(self.keep.leaving(list(time_of), ages))
        for path in found:
            if step_of(path) in leaving:
                remove(path)

    # -- what is written in the background -------------------------------------------------------------------------------

    def _collect_if_done(self, trainer: pl.Trainer) -> None:
        """Log that a checkpoint is saved, or raise its error, once all ranks have written it. Collective."""
        saver = self._saver
        if saver is None or saver.path is None:
            return
        if trainer.strategy.reduce_boolean_decision(saver.is_done, all=True):
            log.info(f"saved {saver.collect()}")

    def _collect(self, trainer: pl.Trainer) -> None:
        """Wait for a checkpoint that is being written. Collective.

        Raises:
            OSError: it could not be written, or not within the deadline.
        """
        saver = self._saver
        if saver is None or saver.path is None:
            return
        if not trainer.strategy.reduce_boolean_decision(saver.wait(self.deadline), all=True):
            raise TimeoutError(
                f"saving {saver.path} has not finished after {self.deadline:,.0f} s; check whether its disk responds, or raise "
                "StepCheckpoint's deadline; older checkpoints are intact"
            )
        log.info(f"saved {saver.collect()}")

    def _close(self) -> None:
        if self._saver is not None:
            self._saver.close()
            self._saver = None

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do nothing: checkpoints are taken by step, not by epoch."""

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do nothing after a validation, unless the run is about to stop."""
        if trainer.state.fn == TrainerFn.FITTING and stop_signal(trainer) is not None:
            self.save(trainer)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save nothing new, since a failed step may have left a partial update; only finish the pending write."""
        saver = self._saver
        if saver is not None and saver.path is not None and saver.wait(self.deadline):
            try:
                log.info(f"saved {saver.collect()}")
            except OSError as error:
                log.warn(str(error))
        self._close()

    def _find_last_checkpoints(self, trainer: pl.Trainer) -> set[str]:
        found = self.newest(trainer)
        return set() if found is None else {found}

    def newest(self, trainer: pl.Trainer) -> str | None:
        """The checkpoint that ``last`` stands for; None if training starts without one.

        Raises:
            ValueError: the newest is damaged.
            FileNotFoundError: there is none, but validation, test or prediction needs one.
        """
        folder = self._folder(trainer)  # Lightning asks before setup
        settle_all(folder)
        found = checkpoints(folder)
        broken = damaged(folder)
        if broken is not None and (not found or step_of(broken) > step_of(found[-1])):
            others = ", ".join(path.name for path in found) or "none"
            raise ValueError(
                f"checkpoint {broken} is damaged: files are missing; move it away, or name another: {others}"
            )
        if found:
            return str(found[-1])
        if trainer.state.fn != TrainerFn.FITTING:
            raise FileNotFoundError(
                f"ckpt_path is invalid: last; there is no complete checkpoint in {folder}: leave it out to begin anew"
            )
        log.info(f"no checkpoint in {folder} yet: training begins at step 0")
        return None

    # -- words -----------------------------------------------------------------------------------------------------------

    def kept(self, trainer: pl.Trainer) -> str:
        """A short text: what is saved, and how to resume."""
        folder = self._folder(trainer)
        if found := checkpoints(folder):
            return f"go on with: --ckpt_path last (the last checkpoint is {found[-1]})"
        every = self.every_n_steps
        return f"nothing was saved: the first checkpoint comes at {'the end' if every is None else f'step {every}'}"


def save_before_step(trainer: pl.Trainer) -> None:
    """Save the state before the current step or validation, which has changed nothing yet. Collective."""
    loop = trainer.fit_loop.epoch_loop
    # Lightning adds 1 on loading, since checkpoints are saved before the step that they end with is counted.
    counted = int(trainer.training)
    loop._batches_that_stepped -= counted
    try:
        save_state(trainer)
    finally:
        loop._batches_that_stepped += counted


def fail_before_step(trainer: pl.Trainer, problem: str, part: str, cause: Exception | None = None) -> NoReturn:
    """Save the state before the current step and end the run with an error that says what to fix. Collective.

    Raises:
        RuntimeError: always, from ``cause``.
    """
    save_before_step(trainer)
    raise RuntimeError(f"{problem}; the state before this step is saved: fix the {part} and resume") from cause


def leave_before_step(trainer: pl.Trainer) -> Literal[-1]:
    """End training before the step that was about to start, which a signal has interrupted. Collective.

    Returns:
        The value that ``on_train_batch_start`` has to return.
    """
    save_before_step(trainer)
    for callback in callbacks_of(trainer):
        if isinstance(callback, GracefulStop):
            callback.agree(trainer)
    return -1


def save_state(trainer: pl.Trainer) -> None:
    """Save the state after the last finished step, if the trainer has a `StepCheckpoint`. Collective."""
    for callback in callbacks_of(trainer):
        if isinstance(callback, StepCheckpoint):
            callback.save(trainer)


def kept(trainer: pl.Trainer) -> str:
    """A short text: what a trainer's run has saved, and how to resume it."""
    for callback in callbacks_of(trainer):
        if isinstance(callback, StepCheckpoint):
            rehearsal = is_fast_dev_run(trainer)
            return "nothing is saved in a fast_dev_run" if rehearsal else callback.kept(trainer)
    return "nothing was saved: checkpoints are off (trainer.enable_checkpointing)"
