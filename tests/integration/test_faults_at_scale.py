"""Four ranks under torchrun, one of which dies, has a full disk, or a jumping clock: what is lost, and that the run continues."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nbg_lightning.callbacks.checkpoint import checkpoints
from nbg_lightning.testing import launchable_environment

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("faulty_rank.py")


def run(folder, fault, restarts):
    words = ["--standalone", "--nproc-per-node", "4", "--max-restarts", str(restarts), "--shutdown-timeout", "5"]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, SCRIPT, folder, fault],
        env=launchable_environment(),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def left(folder):
    """What the last attempt recorded."""
    return json.loads(max(folder.glob("run-*.json")).read_text())


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    done = run(folder, "none", 0)
    assert done.returncode == 0, done.stderr[-3000:]
    return left(folder)


@pytest.mark.parametrize("fault", ["dies", "disk"])
def test_torchrun_goes_on_from_the_last_checkpoint(straight, tmp_path, fault):
    done = run(tmp_path, fault, 1)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (tmp_path / "run-0.json").exists()
    again = left(tmp_path)
    assert again["losses"] == straight["losses"][4:]  # two steps are computed again, or four
    assert again["weights"] == straight["weights"]
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")][-1] == "step-00000012"


def test_a_full_disk_of_one_rank_ends_all_with_one_line(tmp_path):
    done = run(tmp_path, "disk", 0)
    assert done.returncode != 0
    assert "disk full while saving" in done.stderr
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-00000004"]


def test_a_clock_that_jumps_changes_nothing(straight, tmp_path):
    done = run(tmp_path, "clock", 0)
    assert done.returncode == 0, done.stderr[-3000:]
    assert left(tmp_path)["losses"] == straight["losses"]
