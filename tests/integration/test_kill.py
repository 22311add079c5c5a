"""Runs that are killed, stopped by a signal, or out of disk space resume from the last checkpoint bit for bit."""

import errno
import os
import signal
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.digests import HashingStream
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.testing import SMALL_SHAPE, Ranks, train_small

EVERY = 3


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("straight"), checkpoint_every=EVERY)


def assert_finishes_like(straight, folder, done):
    """Resumed from the last checkpoint, the run ends in the same weights, bit for bit."""
    resumed = train_small(folder, resume="last", checkpoint_every=EVERY)
    assert resumed.column("step") == list(range(done + 1, 13))
    assert resumed.losses == straight.losses[done:]
    assert resumed.column("chain") == straight.column("chain")[done:]
    for name, weight in straight.weights.items():
        assert torch.equal(resumed.weights[name], weight), name
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names and all(name.startswith("step-") and "." not in name for name in names), "leftovers of the broken run"


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


class HangsInStep(PretrainModule):
    """Stops for good between two micro-batches of step 8, whose gradients are then half there."""

    seen = 0

    def losses(self, batch):
        if self.global_step == 7:
            self.seen += 1
            if self.seen == 3:
                print("in step", flush=True)
                time.sleep(600)
        return super().losses(batch)


def hang_in_step(folder):
    exact = ParallelConfig(compute_dtype="float32")
    train_small(folder, module=HangsInStep(SMALL_SHAPE, parallel=exact, micro_batch_tokens=64), checkpoint_every=EVERY)


def hang_in_save(folder):
    """Stops for good in the second checkpoint, some of whose tensors are written."""
    import torch.distributed.checkpoint.filesystem as filesystem

    write, written = filesystem._write_item, []

    def hang(*arguments, **keywords):
        if Path(folder, "checkpoints", "step-00000003").exists():
            written.append(1)
        if len(written) == 20:
            print("in save", flush=True)
            time.sleep(600)
        return write(*arguments, **keywords)

    filesystem._write_item = hang
    train_small(folder, checkpoint_every=EVERY)


def test_kill_in_a_step_and_in_a_save(straight, tmp_path):
    step = Ranks(hang_in_step, 1, [str(tmp_path / "step")], tmp_path / "logs")
    save = Ranks(hang_in_save, 1, [str(tmp_path / "save")], tmp_path / "logs")
    for run, line in ((step, "in step"), (save, "in save")):
        run.wait_for(lambda run=run, line=line: line in run.output())
        run.send(signal.SIGKILL)
        assert run.exit_codes() == [-signal.SIGKILL]
    assert checkpoints(tmp_path / "step") == ["step-00000003", "step-00000006"]
    assert_finishes_like(straight, tmp_path / "step", 6)
    found = checkpoints(tmp_path / "save")
    assert found[0] == "step-00000003"
    assert found[1:] == ["step-00000006.partial"]
    assert_finishes_like(straight, tmp_path / "save", 3)


class Slow(pl.Callback):
    """Time to send a signal."""

    def on_train_batch_start(self, *_):
        time.sleep(0.25)


def slow_run(folder, num_workers):
    return train_small(folder, callbacks=[Slow()], num_workers=num_workers).column("step")


def test_signals_save_and_end_cleanly(straight, tmp_path):
    """SIGTERM to the process; SIGINT to it and its workers, as Ctrl-C in a terminal does."""
    for name, workers, number, group in (("term", 0, signal.SIGTERM, False), ("int", 2, signal.SIGINT, True)):
        # One after the other: on a busy machine one would come to its end while the other still begins.
        run = Ranks(slow_run, 1, [str(tmp_path / name), workers], tmp_path / "logs")
        run.wait_for(lambda run=run: "step 3" in run.output())
        run.send(number, group=group)
        (steps,) = run.results()
        assert 4 <= len(steps) < 12, run.output()
        assert checkpoints(tmp_path / name) == [f"step-{len(steps):08d}"]
        assert "Traceback" not in run.output()
        assert_finishes_like(straight, tmp_path / name, len(steps))


class SignalInValidation(pl.Callback):
    def on_validation_start(self, trainer, _):
        if trainer.global_step == 4:
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_in_a_validation_saves_the_trained_weights(tmp_path):
    """Then the averaged weights are in the model."""
    options = {"limit_val_batches": 1, "val_check_interval": 2, "module_options": {"ema_decay": 0.9}}
    whole = train_small(tmp_path / "whole", **options)
    assert len(train_small(tmp_path / "cut", callbacks=[SignalInValidation()], **options).steps) == 4
    assert checkpoints(tmp_path / "cut") == ["step-00000004"]
    resumed = train_small(tmp_path / "cut", resume="last", **options)
    assert resumed.losses == whole.losses[4:]
    for kind in ("weights", "averages"):
        for name, value in getattr(whole, kind).items():
            assert torch.equal(getattr(resumed, kind)[name], value), name


@pytest.mark.parametrize("place", ["shards", "state"])
def test_disk_full(straight, tmp_path, monkeypatch, place):
    """The second checkpoint does not fit: one line says so, nothing half-written stays, and the first one is good."""
    import torch.distributed.checkpoint.filesystem as filesystem

    write, save = filesystem._write_item, torch.save

    def fail():
        if (tmp_path / "checkpoints" / "step-00000003").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write_item(*arguments, **keywords):
        fail()
        return write(*arguments, **keywords)

    def save_state(state, path, *arguments, **keywords):
        if isinstance(path, HashingStream):
            fail()
        return save(state, path, *arguments, **keywords)

    with monkeypatch.context() as patch:
        if place == "shards":
            patch.setattr(filesystem, "_write_item", write_item)
        else:
            patch.setattr(torch, "save", save_state)
        with pytest.raises(
            OSError, match=r"disk full while saving .*step-00000006.*older checkpoints are intact"
        ) as caught:
            train_small(tmp_path, checkpoint_every=EVERY)
    assert "\n" not in str(caught.value)
    assert checkpoints(tmp_path) == ["step-00000003"]
    assert_finishes_like(straight, tmp_path, 3)


def test_other_write_errors_say_what_they_are(tmp_path, monkeypatch):
    import torch.distributed.checkpoint.filesystem as filesystem

    def fail(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(filesystem, "_write_item", fail)
    with pytest.raises(OSError, match=r"saving .*step-00000003 failed \(.*Permission denied.*\); older") as caught:
        train_small(tmp_path, checkpoint_every=EVERY)
    assert "\n" not in str(caught.value)
