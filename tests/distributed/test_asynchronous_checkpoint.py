"""Background checkpoints of two gloo ranks: one name for all, and one error."""

import errno
import os
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from nbg_lightning.core.checkpoint import CheckpointFiles
from nbg_lightning.testing import run_ranks, train_small


class SlowSecond(pl.Callback):
    """The second rank takes long to write each tensor; those of step 8 it fails to."""

    def __init__(self, fails=False):
        self.fails = fails
        self.named_early = []

    def setup(self, trainer, pl_module, stage):
        import torch.distributed.checkpoint.filesystem as filesystem

        self.write = filesystem._write_item
        folder = Path(trainer.default_root_dir, "checkpoints")

        def write_item(*arguments, **keywords):
            if trainer.global_rank == 1:
                time.sleep(0.004)
                if self.fails and any(folder.glob("*00000008*")):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.write(*arguments, **keywords)

        filesystem._write_item = write_item

    def teardown(self, trainer, pl_module, stage):
        import torch.distributed.checkpoint.filesystem as filesystem

        filesystem._write_item = self.write

    def on_train_batch_end(self, trainer, *_):
        folder = Path(trainer.default_root_dir, "checkpoints")
        time.sleep(0.05)
        self.named_early.append((trainer.global_step, any(folder.glob("*.partial"))))


def on_two_ranks(folder):
    options = {"devices": 2, "module_options": {"ema_decay": 0.9}}
    whole = train_small(f"{folder}/whole", checkpoint_every=4, **options)
    slow = SlowSecond()
    asynchronous = train_small(f"{folder}/slow", checkpoint_every=4, asynchronous=True, callbacks=[slow], **options)
    resumed = train_small(f"{folder}/resumed", resume=f"{folder}/slow/checkpoints/step-00000004", **options)
    failing, error = SlowSecond(fails=True), None
    try:
        train_small(f"{folder}/full", checkpoint_every=4, asynchronous=True, callbacks=[failing], **options)
    except OSError as found:
        error = str(found)
    failing.teardown(None, None, "fit")
    torch.distributed.barrier()
    return whole, asynchronous, resumed, slow.named_early, error


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder):
    return run_ranks(on_two_ranks, 2, str(folder), folder=folder)


def test_files_are_those_of_a_save_at_once(ranks, folder):
    for step in (4, 8, 12):
        found, expected = (
            CheckpointFiles(folder / name / "checkpoints" / f"step-{step:08d}") for name in ("slow", "whole")
        )
        found.check()
        for name in ("__0_0.distcp", "__1_0.distcp", "meta.pt"):
            assert found._digests[name] == expected._digests[name], (step, name)


def test_it_has_its_name_when_the_slow_rank_is_done(ranks):
    """Steps end while the files of the first rank are written, and those of the second are not."""
    for *_, partial, _ in ranks:
        assert (5, True) in partial
        assert (6, True) in partial


def test_runs_go_on_with_the_same_weights(ranks):
    for whole, asynchronous, resumed, *_ in ranks:
        for kind in ("weights", "averages"):
            for name, value in getattr(whole, kind).items():
                assert torch.equal(getattr(asynchronous, kind)[name], value), name
                assert torch.equal(getattr(resumed, kind)[name], value), name


def test_an_error_of_one_rank_ends_all_with_one_line(ranks, folder):
    for *_, error in ranks:
        assert error is not None
        assert "disk full while saving" in error
        assert "step-00000008" in error
        assert "\n" not in error
    assert [path.name for path in (folder / "full" / "checkpoints").iterdir()] == ["step-00000004"]
