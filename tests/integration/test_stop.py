"""Signals to whole runs, as terminals and schedulers send them (the cases of benchmarks/stopping.py)."""

import importlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbg_lightning.stopping import REPEAT_SECONDS
from nbg_lightning.testing import launchable_environment

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
stopping = importlib.import_module("stopping")
FAST = ("SIGTERM-group", "two-ranks-second", "setting-up", "validate")


@pytest.fixture(scope="module")
def configs(workshop):
    def longer(config):
        config["trainer"]["callbacks"][0]["init_args"]["stages"][1]["tokens"] = 512 * 50_000
        config["trainer"]["val_check_interval"] = 40_000
        config["data"]["init_args"]["num_workers"] = 1

    return stopping.make_inputs(workshop.folder / "stopped", workshop.changed("stopped.yaml", longer))


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=() if case.name in FAST else pytest.mark.slow) for case in stopping.CASES],
)
def test_signals(case, configs, tmp_path):
    """Exit code, last output, checkpoints, and leftover processes and files of a run."""
    found = stopping.run(case, configs, tmp_path)
    assert found.faults(case) == [], found.output
    if case.moment.startswith("checkpoints/"):
        assert found.checkpoints, found.output
        if case.times == 1 and case.number != stopping.signal.SIGKILL:
            step = int(found.checkpoints[-1].removeprefix("step-"))
            assert f"stopped by {case.number.name} after step {step}; go on with: --ckpt_path last" in found.output


@pytest.mark.parametrize("last", ["", "stopped by SIGINT after step 5; go on", "Killed"])
def test_a_case_sees_other_words(last):
    case = stopping.CASES[0]
    assert not case.said(f"step 5\n{last}\n")
    assert case.said(
        "stopped by SIGTERM after step 5; go on with: --ckpt_path last (the last checkpoint is a/step-00000005)"
    )


def start(folder, line):
    """Run a command whose messages on standard error are read, in a folder whose files it may import."""
    return subprocess.Popen(
        [sys.executable, "-m", "nbg_lightning.cli", *line],
        cwd=folder,
        env=launchable_environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


STUCK = """
import time
from pathlib import Path

import lightning.pytorch as pl


class Stuck(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 3:
            Path("stuck").touch()
            while True:
                time.sleep(60)
"""


def test_a_second_ctrl_c_ends_a_step_that_does_not_end(workshop, tmp_path):
    """The last words are true: the checkpoint that they name is there, and the line that they give resumes from it."""
    (tmp_path / "my_stuck.py").write_text(STUCK)
    place = tmp_path / "run"
    line = ["fit", "--config", workshop.yaml, "--trainer.default_root_dir", str(place)]
    process = start(tmp_path, [*line, "--trainer.callbacks+", "my_stuck.Stuck"])
    try:
        end = time.monotonic() + 120
        while not (tmp_path / "stuck").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        time.sleep(REPEAT_SECONDS + 0.5)
        assert process.poll() is None  # the first one waits for the step
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[1].splitlines()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "SIGINT: stopping after this step (again: at once)" in said
    checkpoint = place / "checkpoints" / "step-00000002"
    assert said[-1] == (
        f"nbg fit: stopped at once by SIGINT; go on with: --ckpt_path last (the last checkpoint is {checkpoint})"
    )
    assert (checkpoint / "digests.json").exists()
    resumed = workshop.nbg(*line, "--ckpt_path", "last", "--trainer.max_steps", "4")
    assert resumed.code == 0, resumed.err
    assert (place / "checkpoints" / "step-00000004").exists()


LATE = """
import os
from multiprocessing import get_context
from time import sleep

import lightning.pytorch as pl


class Late(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 3:
            get_context("fork").Process(target=sleep, args=(60,), daemon=True).start()
            os.kill(os.getpid(), 15)

    def on_fit_end(self, trainer, pl_module):
        sleep(11)
        raise ConnectionError("the upload failed")
"""


def test_what_fails_at_the_end_of_a_stopped_fit_is_told(workshop, tmp_path):
    """It has more than the grace of 10 s, and a process that the callback has left keeps nothing alive."""
    (tmp_path / "my_late.py").write_text(LATE)
    line = ["fit", "--config", workshop.yaml, "--trainer.default_root_dir", str(tmp_path / "run")]
    process = start(tmp_path, [*line, "--trainer.callbacks+", "my_late.Late"])
    try:
        said = process.communicate(timeout=55)[1].splitlines()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 143
    assert "SIGTERM: stopping after this step (again: at once)" in said
    assert said[-2] == "nbg fit: after SIGTERM: the upload failed"
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000003"
    assert (
        said[-1] == f"nbg fit: stopped by SIGTERM; go on with: --ckpt_path last (the last checkpoint is {checkpoint})"
    )
