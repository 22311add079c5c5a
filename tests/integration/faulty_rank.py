"""One run of four ranks, of which the third has a fault, or both of the second node: `torchrun ... faulty_rank.py FOLDER FAULT`.

FOLDER has the time of each step, and which ranks were struck: a torchrun that joins later counts attempts of its own.
"""

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
    """Strikes the third rank after a step, once; a fault of the node the fourth too."""

    def __init__(self, kind, folder):
        self.kind, self.folder = kind, Path(folder)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        rank = trainer.global_rank
        if rank == 0:
            with (self.folder / "steps.txt").open("a") as steps:
                steps.write(f"{trainer.global_step} {time.monotonic()}\n")
        struck = self.folder / f"struck-{rank}"
        if rank not in ((2, 3) if self.kind == "node" else (2,)) or trainer.global_step != STEP or struck.exists():
            return
        struck.touch()
        if self.kind == "node" and rank == 2:
            os.kill(os.getppid(), signal.SIGKILL)  # torchrun, which would start its ranks again
        if self.kind in ("dies", "node"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "disk":

            def full(stream, data):
                raise OSError(errno.ENOSPC, "No space left on device")

            HashingStream.write = full
        if self.kind == "clock":
            now = time.time
            time.time = lambda: now() - 86_400


def main(folder, kind):
    run = train_small(
        folder,
        devices=int(os.environ["LOCAL_WORLD_SIZE"]),
        num_nodes=int(os.environ["GROUP_WORLD_SIZE"]),
        checkpoint_every=4,
        callbacks=[Fault(kind, folder)],
        resume="last",
    )
    if os.environ["RANK"] == "0":
        total = sum(weight.double().sum().item() for weight in run.weights.values())
        attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
        Path(folder, f"run-{attempt}.json").write_text(json.dumps({"losses": run.losses, "weights": total}))


if __name__ == "__main__":
    main(*sys.argv[1:])
