"""Makes the helpers of this folder importable, and checks that nothing outside is touched or left behind."""

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def descendants(process: int) -> set[int]:
    """Processes that descend from one."""
    found: set[int] = set()
    waiting = [process]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            own = {int(each) for each in task.read_text().split()} - found
            found |= own
            waiting += own
    return found


@pytest.fixture
def canary(tmp_path):
    """A path that nothing may write to; and no process may be left behind."""
    before = descendants(os.getpid())
    path = tmp_path / "touched"
    yield str(path)
    end = time.monotonic() + 10
    while (left := descendants(os.getpid()) - before) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left
    assert not path.exists()
