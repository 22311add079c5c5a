"""Runs killed while a checkpoint replaces an older one of its name resume from it, bit for bit."""

import os
import shutil
import signal
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from nbg_lightning.testing import Ranks, run_ranks, train_small

EVERY = 3
MOMENTS = ("before the first rename", "between the renames", "after the second rename")


class SavesAgain(pl.Callback):
    """Replaces the checkpoint of step 6, and is killed at a moment of it."""

    def __init__(self, moment):
        self.moment = MOMENTS.index(moment)

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 6:
            if trainer.is_global_zero:
                Path.rename = self.dying(Path.rename)
            trainer.save_checkpoint(Path(trainer.default_root_dir, "checkpoints", "step-00000006"))

    def dying(self, rename):
        renamed = []

        def rename_and_die(path, target):
            if not path.name.startswith("step-"):  # torch's own
                return rename(path, target)
            if len(renamed) == self.moment:
                os.kill(os.getpid(), signal.SIGKILL)
            renamed.append(target)
            rename(path, target)
            if len(renamed) == self.moment == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return path

        return rename_and_die


def killed(folder, moment, devices):
    train_small(folder, devices=devices, checkpoint_every=EVERY, callbacks=[SavesAgain(moment)])


def kill(folder, moment, logs, devices=1):
    """The names that the killed run leaves."""
    run = Ranks(killed, devices, [str(folder), moment, devices], logs)
    run.wait_for(lambda: run.processes[0].poll() is not None)
    assert run.processes[0].returncode == -signal.SIGKILL, run.output()
    run.kill()
    return names(folder)


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("straight"), checkpoint_every=EVERY)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of a run that was killed between the renames."""
    folder = tmp_path_factory.mktemp("interrupted")
    left = kill(folder, "between the renames", folder / "logs")
    assert left == ["step-00000003", "step-00000006.old", "step-00000006.partial"]
    return folder


def assert_finishes_like(straight, folder, resume="last"):
    resumed = train_small(folder, resume=resume, checkpoint_every=EVERY)
    assert resumed.column("step") == list(range(7, 13))
    assert resumed.losses == straight.losses[6:]
    for name, weight in straight.weights.items():
        assert torch.equal(resumed.weights[name], weight), name
    assert names(folder) == [f"step-{step:08d}" for step in (3, 6, 9, 12)]


@pytest.mark.parametrize(
    ("moment", "left"),
    [(MOMENTS[0], ["step-00000006", "step-00000006.partial"]), (MOMENTS[2], ["step-00000006", "step-00000006.old"])],
)
def test_beside_the_renames_the_name_is_there(straight, tmp_path, moment, left):
    assert kill(tmp_path, moment, tmp_path / "logs") == ["step-00000003", *left]
    assert_finishes_like(straight, tmp_path)


@pytest.mark.parametrize("by_path", [False, True])
def test_whole_new_files_take_the_name(straight, interrupted, tmp_path, caplog, by_path):
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "checkpoints" / "step-00000006"
    new = path.with_name("step-00000006.partial").stat().st_ino
    assert_finishes_like(straight, tmp_path, path if by_path else "last")
    assert path.stat().st_ino == new
    assert [text for text in caplog.messages if "interrupted" in text] == [
        f"warning: a replacement of {path} was interrupted: the new files are whole and have its name"
    ]


def test_else_the_old_files_have_it_back(straight, interrupted, tmp_path, caplog):
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "checkpoints" / "step-00000006"
    old = path.with_name("step-00000006.old").stat().st_ino
    file = path.with_name("step-00000006.partial") / "__0_0.distcp"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert_finishes_like(straight, tmp_path)
    assert path.stat().st_ino == old
    assert [text for text in caplog.messages if "interrupted" in text] == [
        f"warning: a replacement of {path} was interrupted: the new files are not whole, and the old ones have its "
        "name again"
    ]


def test_new_files_alone_that_are_not_whole_go(straight, interrupted, tmp_path):
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    checkpoints = tmp_path / "checkpoints"
    shutil.rmtree(checkpoints / "step-00000006.old")
    (checkpoints / "step-00000006.partial" / "digests.json").unlink()
    resumed = train_small(tmp_path, resume="last", checkpoint_every=EVERY)
    assert resumed.losses == straight.losses[3:]
    assert names(tmp_path) == [f"step-{step:08d}" for step in (3, 6, 9, 12)]


def whole_and_killed(folder):
    whole = train_small(f"{folder}/whole", devices=2)
    torch.save(whole.weights, f"{folder}/weights-{os.environ['RANK']}.pt")
    killed(f"{folder}/run", "between the renames", 2)


def resumed_on_two(folder):
    return train_small(folder, devices=2, resume="last", checkpoint_every=EVERY)


def test_two_ranks(tmp_path):
    run = Ranks(whole_and_killed, 2, [str(tmp_path)], tmp_path / "logs")
    run.wait_for(lambda: run.processes[0].poll() is not None)
    run.kill()
    assert names(tmp_path / "run") == ["step-00000003", "step-00000006.old", "step-00000006.partial"]
    for rank, resumed in enumerate(run_ranks(resumed_on_two, 2, str(tmp_path / "run"), folder=tmp_path)):
        assert resumed.column("step") == list(range(7, 13))
        for name, weight in torch.load(tmp_path / f"weights-{rank}.pt").items():
            assert torch.equal(resumed.weights[name], weight), name
    assert names(tmp_path / "run") == [f"step-{step:08d}" for step in (3, 6, 9, 12)]
