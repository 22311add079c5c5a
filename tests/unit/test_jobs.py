import os
import signal
import subprocess
import sys
import time

import pytest

from nbg_lightning.jobs import run_jobs

MODULE = """
import os, time
def double(x): return 2 * x
def fail(x): raise ValueError(f"job {x} is bad: fix it")
def die(x): os._exit(9)
def process(x): return os.getpid()
def sleep(x): os.write(1, f"{os.getpid()}\\n".encode()); time.sleep(600)
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    (tmp_path / "jobs_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    import jobs_of_a_test

    yield jobs_of_a_test
    del sys.modules["jobs_of_a_test"]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_of_all_jobs(functions, workers):
    assert sorted(run_jobs(functions.double, range(7), num_workers=workers)) == [(i, 2 * i) for i in range(7)]
    assert list(run_jobs(functions.double, [], num_workers=workers)) == []


def test_workers_are_other_processes(functions):
    assert os.getpid() not in {pid for _, pid in run_jobs(functions.process, range(4), num_workers=2)}
    assert {pid for _, pid in run_jobs(functions.process, range(4), num_workers=0)} == {os.getpid()}


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_come_through(functions, workers):
    with pytest.raises(ValueError, match=r"job \d is bad: fix it"):
        list(run_jobs(functions.fail, range(4), num_workers=workers))


def test_a_dead_worker_is_said(functions):
    with pytest.raises(RuntimeError, match=r"a worker died .*lower num_workers and run again; finished parts are kept"):
        list(run_jobs(functions.die, range(4), num_workers=2))


def test_settings():
    with pytest.raises(ValueError, match="num_workers is invalid: -1"):
        list(run_jobs(abs, [1], num_workers=-1))
    with pytest.raises(ValueError, match="engine is invalid: spark; give local or ray"):
        list(run_jobs(abs, [1], engine="spark"))


def test_workers_end_with_a_killed_parent(functions, tmp_path):
    code = (
        "import jobs_of_a_test as j; from nbg_lightning.jobs import run_jobs;"
        "list(run_jobs(j.sleep, [1, 2], num_workers=2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") and "Z" not in state(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.1)


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"
