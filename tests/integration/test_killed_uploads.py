"""`kill -9` while checkpoints go to an object store."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nbg_lightning.testing import launchable_environment


@pytest.mark.slow
def test_the_one_before_is_whole_and_the_run_goes_on_bit_for_bit(tmp_path):
    """Saving at once and in the background; in a process of its own, that of the store."""
    script = Path(__file__).with_name("killed_uploads.py")
    run = subprocess.run(
        [sys.executable, script, tmp_path, "6"],
        env=launchable_environment(),
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = re.search(r"kills in saves: (\d+)", run.stdout)
    assert int(found[1]) >= 1, run.stdout
