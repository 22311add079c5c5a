"""Background checkpoints: the same bytes however the run ends, and no hidden errors."""

import errno
import os
import random
import signal
import threading
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from nbg_lightning.callbacks.checkpoint import StepCheckpoint, checkpoints
from nbg_lightning.core.checkpoint import CheckpointFiles
from nbg_lightning.schedule.curriculum import Stage
from nbg_lightning.testing import SMALL_STEP_TOKENS, Ranks, train_small

EVERY = 3
FEW, MANY = 24, 160  # steps of a run that is killed twice, or twenty times
AVERAGED = {"module_options": {"ema_decay": 0.9}}


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def assert_same_weights(found, expected):
    for kind in ("weights", "averages"):
        for name, value in getattr(expected, kind).items():
            assert torch.equal(getattr(found, kind)[name], value), name


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    return folder, train_small(folder, checkpoint_every=EVERY, **AVERAGED)


def slow_writes(monkeypatch, seconds):
    """Writing a tensor takes this long, so that training continues meanwhile."""
    import torch.distributed.checkpoint.filesystem as filesystem

    write = filesystem._write_item

    def write_item(*arguments, **keywords):
        time.sleep(seconds)
        return write(*arguments, **keywords)

    monkeypatch.setattr(filesystem, "_write_item", write_item)


def test_the_same_bytes_as_at_once(straight, tmp_path, monkeypatch):
    """Weights, averages and AdamW's states are those of the step, though training went on while they were written."""
    slow_writes(monkeypatch, 0.002)
    folder, whole = straight
    run = train_small(tmp_path, checkpoint_every=EVERY, asynchronous=True, **AVERAGED)
    assert_same_weights(run, whole)
    assert names(tmp_path) == [f"step-{step:08d}" for step in (3, 6, 9, 12)]
    for path in checkpoints(tmp_path / "checkpoints"):
        files, expected = CheckpointFiles(path), CheckpointFiles(folder / "checkpoints" / path.name)
        files.check()
        for name in ("__0_0.distcp", "meta.pt"):
            assert files._digests[name] == expected._digests[name], (path.name, name)
    resumed = train_small(tmp_path / "resumed", resume=tmp_path / "checkpoints" / "step-00000006", **AVERAGED)
    assert_same_weights(resumed, whole)


def test_training_goes_on_and_one_is_written_at_a_time(tmp_path, monkeypatch, caplog):
    """Saves that come too often wait, which the end of the run says; no more than two are ever there but the kept one."""
    slow_writes(monkeypatch, 0.003)
    seen, writers = [], []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append({path.name for path in (tmp_path / "checkpoints").glob("*.partial")})
            writers.append(sum(thread.name == "checkpoint-writer" for thread in threading.enumerate()))

    with caplog.at_level("INFO"):
        train_small(tmp_path, checkpoint_every=2, keep=1, asynchronous=True, callbacks=[Look()])
    assert names(tmp_path) == ["step-00000012"]
    assert max(writers) == 1
    assert any(seen), "no step ended while a checkpoint was written"
    assert max(map(len, seen)) == 1
    assert "waited for the one before" in caplog.text
    assert not any(thread.name == "checkpoint-writer" for thread in threading.enumerate())


def test_a_full_disk_ends_the_run_after_the_next_step(tmp_path, monkeypatch):
    import torch.distributed.checkpoint.filesystem as filesystem

    write, steps = filesystem._write_item, []

    def fail(*arguments, **keywords):
        if (tmp_path / "checkpoints" / "step-00000003").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments, **keywords)

    class Slow(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            steps.append(trainer.global_step)
            time.sleep(0.1)

    monkeypatch.setattr(filesystem, "_write_item", fail)
    with pytest.raises(
        OSError, match=r"disk full while saving .*step-00000006.*older checkpoints are intact"
    ) as caught:
        train_small(tmp_path, checkpoint_every=EVERY, asynchronous=True, callbacks=[Slow()])
    assert "\n" not in str(caught.value)
    assert 6 <= steps[-1] <= 8
    assert names(tmp_path) == ["step-00000003"]


def test_an_error_of_training_leaves_what_was_being_written(tmp_path, monkeypatch):
    slow_writes(monkeypatch, 0.01)
    there = []

    class Fail(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 4:
                there.append((tmp_path / "checkpoints" / "step-00000004").exists())
                raise RuntimeError("a step failed")

    with pytest.raises(RuntimeError, match="a step failed"):
        train_small(tmp_path, checkpoint_every=4, asynchronous=True, callbacks=[Fail()])
    assert there == [False]
    assert names(tmp_path) == ["step-00000004"]


def test_a_disk_that_does_not_answer_has_a_deadline(tmp_path, monkeypatch):
    import torch.distributed.checkpoint.filesystem as filesystem

    write, answer = filesystem._write_item, threading.Event()

    def hang(*arguments, **keywords):
        answer.wait(60)
        return write(*arguments, **keywords)

    monkeypatch.setattr(filesystem, "_write_item", hang)
    callback = StepCheckpoint(every_n_steps=4, asynchronous=True, deadline=0.3)
    monkeypatch.setattr("nbg_lightning.testing.runs.StepCheckpoint", lambda *_: callback)
    with pytest.raises(
        TimeoutError, match=r"step-00000004 has not finished after 0 s; .*; older checkpoints are intact"
    ):
        train_small(tmp_path)
    answer.set()
    for thread in threading.enumerate():
        if thread.name == "checkpoint-writer":
            thread.join(60)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"asynchronous": True}, "asynchronous is invalid: true; set every_n_steps"),
        ({"asynchronous": True, "every_n_steps": 3, "deadline": 0.0}, "deadline is invalid: 0.0; give seconds above 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        StepCheckpoint(**settings)


# -- kills and signals -------------------------------------------------------------------------------------------------


class Slow(pl.Callback):
    def on_train_batch_start(self, *_):
        time.sleep(0.05)


def stages(steps):
    return [Stage("stable", steps * SMALL_STEP_TOKENS, 1e-2, {"a": 1.0, "b": 1.0})]


def slow_run(folder, num_steps):
    """A checkpoint is being written most of the time."""
    import torch.distributed.checkpoint.filesystem as filesystem

    write = filesystem._write_item

    def write_item(*arguments, **keywords):
        time.sleep(0.003)
        return write(*arguments, **keywords)

    filesystem._write_item = write_item
    options = {"resume": "last", "checkpoint_every": 2, "keep": 2, "asynchronous": True}
    return train_small(folder, stages=stages(num_steps), callbacks=[Slow()], **options, **AVERAGED).column("step")


def finishes_like_an_unbroken_run(folder, num_steps, kills):
    """Kill a run at random instants, each time going on from what it left; how many kills were during a save."""
    drawn = random.Random(0)
    in_saves = 0
    for _ in range(kills):
        run = Ranks(slow_run, 1, [str(folder), num_steps], folder / "logs")
        run.wait_for(lambda run=run: "\nstep " in run.output())
        time.sleep(drawn.uniform(0.0, 0.7))
        run.send(signal.SIGKILL)
        assert run.exit_codes() == [-signal.SIGKILL]
        in_saves += any((folder / "checkpoints").glob("*.partial"))
        for path in checkpoints(folder / "checkpoints"):
            CheckpointFiles(path).check()
    options = {"stages": stages(num_steps), **AVERAGED}
    finished = train_small(folder, resume="last", checkpoint_every=2, asynchronous=True, **options)
    assert all("." not in name for name in names(folder)), "leftovers of killed runs"
    unbroken = train_small(folder / "unbroken", **options)
    assert_same_weights(finished, unbroken)
    assert finished.steps[-1]["chain"] == unbroken.steps[-1]["chain"]
    return in_saves


def test_two_kills(tmp_path):
    assert finishes_like_an_unbroken_run(tmp_path, FEW, 2) >= 1


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    assert finishes_like_an_unbroken_run(tmp_path, MANY, 20) >= 5


def test_a_signal_waits_for_what_is_being_written(tmp_path):
    run = Ranks(slow_run, 1, [str(tmp_path), MANY], tmp_path / "logs")
    run.wait_for(lambda: "step 4" in run.output() and any(Path(tmp_path, "checkpoints").glob("*.partial")))
    run.send(signal.SIGTERM)
    (steps,) = run.results()
    assert steps[-1] < MANY
    assert names(tmp_path)[-1] == f"step-{steps[-1]:08d}"
    assert len(names(tmp_path)) == 2
    assert "Traceback" not in run.output()
    for path in checkpoints(tmp_path / "checkpoints"):
        CheckpointFiles(path).check()
