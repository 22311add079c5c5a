"""Verdicts arrive once and in order, whatever happens to the workers."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from nbg_lightning.import_path import import_object
from nbg_lightning.scoring.pool import VerifierPool
from nbg_lightning.scoring.verifier import Verifier, VerifierDied, VerifierTimeout


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """Verifiers of the test's own, by import path."""
    (tmp_path / "pool_functions.py").write_text(
        textwrap.dedent("""
        import os, signal, sys, time

        def square(x, seconds=0.0):
            time.sleep(seconds)
            return x * x

        def odd(x):
            if x % 2:
                raise ValueError(f"{x} is odd\\nand a second line")
            print("what is printed must not get between the verdicts")
            sys.stdout.flush()
            return x

        def hang(x):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while x:
                pass

        def die(x):
            if x:
                os._exit(3)
            return "alive"

        def large(text):
            return text * 2
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_order(functions):
    with VerifierPool(workers=3) as pool:
        outcomes = pool.map("function pool_functions.square", [(i, (30 - i) / 1000) for i in range(30)])
        assert [outcome.value for outcome in outcomes] == [i * i for i in range(30)]
        assert pool.map("function pool_functions.square", []) == []


def test_errors_stay_where_they_happen(functions):
    with VerifierPool(workers=2) as pool:
        outcomes = pool.map("function pool_functions.odd", [(i,) for i in range(6)])
    assert [outcome.value for outcome in outcomes] == [0, None, 2, None, 4, None]
    assert [outcome.status for outcome in outcomes] == ["ok", "error"] * 3
    assert "3 is odd" in outcomes[3].detail and "\n" not in outcomes[3].detail


def test_hanging_workers_are_replaced(functions):
    with VerifierPool(workers=2, deadline=0.5) as pool:
        outcomes = pool.map("function pool_functions.hang", [(i % 2,) for i in range(6)])
        assert [outcome.status for outcome in outcomes] == ["ok", "timeout"] * 3
        assert "no verdict" in outcomes[1].detail and "within 0.5 s" in outcomes[1].detail
        assert pool.map("function pool_functions.square", [(3,)])[0].value == 9


def test_a_question_that_kills_is_given_up(functions):
    with VerifierPool(workers=2, attempts=2) as pool:
        outcomes = pool.map("function pool_functions.die", [(0,), (1,), (0,)])
    assert [outcome.value for outcome in outcomes] == ["alive", None, "alive"]
    assert outcomes[1].status == "error" and "died" in outcomes[1].detail


def children():
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
        return set(map(int, file.read().split()))


def test_no_verdict_is_lost_or_shifted_when_workers_die_at_random(functions):
    before, draw = children(), random.Random(0)
    stop, killed = threading.Event(), []

    def kill():
        while not stop.is_set():
            time.sleep(draw.uniform(0.05, 0.25))
            if victims := sorted(all_children() - before):
                killed.append(draw.choice(victims))
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    with VerifierPool(workers=3, attempts=50) as pool:
        pool.map("function pool_functions.square", [(1,)] * 3)
        killer.start()
        try:
            outcomes = pool.map("function pool_functions.square", [(i, 0.01) for i in range(120)])
        finally:
            stop.set()
            killer.join()
    assert len(killed) >= 3
    assert [outcome.value for outcome in outcomes] == [i * i for i in range(120)]


def all_children():
    """Of all threads of this process: each has its own list."""
    found = set()
    for task in os.listdir(f"/proc/{os.getpid()}/task"):
        try:
            with open(f"/proc/{os.getpid()}/task/{task}/children") as file:
                found |= set(map(int, file.read().split()))
        except OSError:
            continue
    return found


def test_with_one_attempt_a_dead_worker_is_an_error_in_its_place(functions):
    with VerifierPool(workers=2, attempts=1) as pool:
        outcomes = pool.map("function pool_functions.die", [(i == 2,) for i in range(5)])
    assert [outcome.status for outcome in outcomes] == ["ok", "ok", "error", "ok", "ok"]


def test_large_questions(functions):
    text = "x" * (1 << 21)  # larger than a pipe
    with VerifierPool(workers=1) as pool:
        assert pool.map("function pool_functions.large", [(text,)])[0].value == text * 2


def test_a_stopped_worker_does_not_stop_us(functions):
    """A worker that does not even read its question."""
    with Verifier(deadline=0.5) as verifier:
        verifier.call("function pool_functions.large", "x")
        os.kill(verifier._worker.pid, signal.SIGSTOP)
        with pytest.raises(VerifierTimeout):
            verifier.call("function pool_functions.large", "x" * (1 << 22))
        assert verifier.call("function pool_functions.large", "x") == "xx"


def test_a_verifier_says_that_it_died(functions):
    with Verifier() as verifier, pytest.raises(VerifierDied, match="died on this answer"):
        verifier.call("function pool_functions.die", 1)


def test_nothing_outlives_a_killed_parent(functions):
    """Neither workers nor sandboxes, also while they compute."""
    source = (
        "import threading, time\nfrom nbg_lightning.scoring.pool import VerifierPool\n"
        "pool = VerifierPool(workers=2, deadline=60)\n"
        "pool.map('math', [('1', '1'), ('2', '2')])\npool.map('function pool_functions.square', [(1,)] * 2)\n"
        "for job in (('math', [('1', '9^{9^{9^9}}')]), ('function pool_functions.hang', [(1,)])):\n"
        "    threading.Thread(target=pool.map, args=job, daemon=True).start()\n"
        "time.sleep(1)\nprint('go', flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path)},
    )
    assert parent.stdout.readline() == "go\n"
    below = descendants(parent.pid)
    assert len(below) >= 6  # two workers, and bubblewrap with a server and a child
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 20
    while any(running(pid) for pid in below):
        assert time.monotonic() < end
        time.sleep(0.05)


def descendants(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    except OSError:
        pass
    return found + [below for child in found for below in descendants(child)]


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("settings", [{"workers": 0}, {"deadline": 0}, {"attempts": 0}])
def test_settings(settings):
    with pytest.raises(ValueError, match="give positive numbers"):
        VerifierPool(**settings)


def test_import_path(functions):
    assert import_object("math:gcd")(4, 6) == 2
    bad = {"gcd": "import path is invalid", "math.nothing": "has no 'nothing'", "no_such.f": "importing no_such failed"}
    for path, says in bad.items():
        with pytest.raises(ValueError, match=says):
            import_object(path)


def test_the_same_call_is_asked_once():
    """Answers to one question are often the same text."""
    asked = []
    with VerifierPool(workers=2) as pool:
        ask = pool._ask
        pool._ask = lambda kind, call: asked.append(tuple(call)) or ask(kind, call)
        calls = [("1/2", "0.5"), ("2", "3"), ("1/2", "0.5"), ("1/2", "0.5")]
        assert [outcome.value for outcome in pool.map("math", calls)] == [True, False, True, True]
    assert sorted(asked) == [("1/2", "0.5"), ("2", "3")]
