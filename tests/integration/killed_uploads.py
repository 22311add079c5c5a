"""A run that saves to an S3 server of this machine and is killed often: `python killed_uploads.py FOLDER KILLS`.

Prints how many kills left a checkpoint of which a part was there, when all that is said in `test_killed_uploads.py` has held.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import torch

from nbg_lightning.callbacks.checkpoint import checkpoints
from nbg_lightning.core.checkpoint import CheckpointFiles
from nbg_lightning.core.checkpoint_folder import is_complete
from nbg_lightning.schedule.curriculum import Stage
from nbg_lightning.testing import SMALL_STEP_TOKENS, Ranks, s3_server, train_small
from nbg_lightning.url_path import UrlPath

URL = "s3://bucket/run"
STEPS, EVERY = 80, 2
OPTIONS = {
    "stages": [Stage("stable", STEPS * SMALL_STEP_TOKENS, 1e-2, {"a": 1.0, "b": 1.0})],
    "module_options": {"ema_decay": 0.9},
}


class Slow(pl.Callback):
    def on_train_batch_start(self, *_):
        time.sleep(0.05)


def slow_run(folder, asynchronous):
    """A checkpoint is on its way most of the time."""
    write = UrlPath.open_write

    def open_write(self):
        time.sleep(0.3)
        return write(self)

    UrlPath.open_write = open_write
    options = {"resume": "last", "checkpoint_every": EVERY, "keep": 2, "dirpath": URL, "asynchronous": asynchronous}
    train_small(folder, callbacks=[Slow()], **options, **OPTIONS)


def names():
    return {path.name for path in UrlPath(URL).iterdir()}


def newest_whole():
    return max((path.name for path in checkpoints(URL)), default="")


def kill_often(folder, kills):
    """Kill a run some time after a checkpoint of its own, each time going on from what it left; how many were during a save."""
    drawn = random.Random(0)
    in_saves, newest = 0, ""
    for number in range(kills):
        run = Ranks(slow_run, 1, [str(folder), number % 2 == 0], folder / "logs")
        run.wait_for(lambda newest=newest: newest_whole() > newest)
        time.sleep(drawn.uniform(0.0, 2.0))
        run.send(signal.SIGKILL)
        assert run.exit_codes() == [-signal.SIGKILL], run.output()
        whole = checkpoints(URL)
        in_saves += len(whole) < len(names())
        before, newest = newest, newest_whole()
        assert newest > before, "a checkpoint that was whole is gone"
        for path in whole:
            CheckpointFiles(path).check()
    return in_saves


def main(folder, kills):
    with s3_server("bucket"):
        in_saves = kill_often(folder, kills)
        finished = train_small(
            folder, resume="last", checkpoint_every=EVERY, keep=2, dirpath=URL, asynchronous=True, **OPTIONS
        )
        assert len(finished.steps) < STEPS
        assert names() == {f"step-{step:08d}" for step in (STEPS - EVERY, STEPS)}, names()
        assert all(is_complete(path) for path in UrlPath(URL).iterdir())
        assert not list(folder.rglob("step-*")), "a checkpoint is on this disk"
        unbroken = train_small(folder / "unbroken", **OPTIONS)
        assert finished.steps[-1]["chain"] == unbroken.steps[-1]["chain"]
        for kind in ("weights", "averages"):
            for name, value in getattr(unbroken, kind).items():
                assert torch.equal(getattr(finished, kind)[name], value), name
        print(f"kills in saves: {in_saves}", flush=True)
    os._exit(0)  # what the client's threads hold ends with the process


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
