"""Workers leave signals to their parent, and exit with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbg_lightning.stopping import STOP_SIGNALS
from nbg_lightning.worker_process import worker_context

PARENT = """
import sys, time
from nbg_lightning.worker_process import hidden_main_module, worker_context
with hidden_main_module():
    worker = worker_context(sys.argv[1]).Process(target=time.sleep, args=(600,))
    worker.start()
print(worker.pid, flush=True)
time.sleep(600)
"""


def gone(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_killed_parent_leaves_nothing(method):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, method], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    for number in STOP_SIGNALS:  # from birth on: they were blocked before it began
        os.kill(worker, number)
    time.sleep(0.5)
    assert not gone(worker)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 2
    while not gone(worker):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_its_parent_may_end_it(method):
    worker = worker_context(method).Process(target=time.sleep, args=(600,))
    worker.start()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == 0


def test_the_parent_keeps_its_own_signals():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    worker = worker_context("fork").Process(target=int)
    worker.start()
    worker.join()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
