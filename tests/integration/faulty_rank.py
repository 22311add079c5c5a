"""One run of four ranks, of which the third has a fault: `torchrun ... faulty_rank.py FOLDER FAULT`."""

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

import lightning.pytorch as pl

from nbg_lightning.digests import HashingStream
from nbg_lightning.testing import train_small

STEP = 6


class Fault(pl.Callback):
    """Strikes the third rank after a step, in the first attempt."""

    def __init__(self, kind):
        self.kind = kind

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (
            trainer.global_rank != 2
            or trainer.global_step != STEP
            or os.environ.get("TORCHELASTIC_RESTART_COUNT") != "0"
        ):
            return
        if self.kind == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "disk":

            def full(stream, data):
                raise OSError(errno.ENOSPC, "No space left on device")

            HashingStream.write = full
        if self.kind == "clock":
            now = time.time
            time.time = lambda: now() - 86_400


def main(folder, kind):
    run = train_small(folder, devices=4, checkpoint_every=4, callbacks=[Fault(kind)], resume="last")
    if os.environ["RANK"] == "0":
        total = sum(weight.double().sum().item() for weight in run.weights.values())
        attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
        Path(folder, f"run-{attempt}.json").write_text(json.dumps({"losses": run.losses, "weights": total}))


if __name__ == "__main__":
    main(*sys.argv[1:])
