"""The first rank waits for those that it has started, here small processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from nbg_lightning import strategy

DONE, FAILED, KILLED = "pass", "raise SystemExit(7)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
SLOW, HANGS = "import time; time.sleep(1)", "import time; time.sleep(600)"


@pytest.fixture
def launched(monkeypatch):
    """A launcher whose ranks run these programs."""
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    started = []

    def launch(*programs):
        launcher = strategy.RankLauncher.__new__(strategy.RankLauncher)
        started.extend(subprocess.Popen([sys.executable, "-c", program]) for program in programs)
        launcher.procs = list(started)
        return launcher

    yield launch
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("programs", "code", "said"),
    [
        ([], 0, ""),
        ([DONE, SLOW], 0, ""),
        ([SLOW, FAILED], 7, "rank 2 ended with exit code 7 after the first one was done"),
        ([KILLED], 128 + signal.SIGKILL, "rank 1 was ended by SIGKILL after the first one was done"),
    ],
    ids=["none", "slow", "failed", "killed"],
)
def test_the_code_is_that_of_a_rank_that_failed(launched, capfd, programs, code, said):
    assert launched(*programs).wait() == code
    assert capfd.readouterr().err.strip() == said


def test_a_rank_that_does_not_end_is_killed(launched, monkeypatch):
    monkeypatch.setattr(strategy, "_EXIT_SECONDS", 0.5)
    launcher = launched(DONE, HANGS)
    hangs = launcher.procs[1]
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"rank 2 is still running 0 s .* look at what its callbacks do"):
        launcher.wait()
    assert hangs.wait(timeout=10) == -signal.SIGKILL
    assert time.monotonic() - begin < 10
