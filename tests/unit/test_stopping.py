"""Signal handling of a command: the first and second signal in each phase, and the exit code."""

import signal
import subprocess
import sys

import pytest

from nbg_lightning.stopping import STOP_SIGNALS, Stopped

BODY = """
import os, signal, sys, time
from nbg_lightning import stopping
phase, numbers, pause = sys.argv[1], [int(n) for n in sys.argv[2].split(",")], float(sys.argv[3])
with stopping.handling("nbg test", owns_process=True) as handler:
    handler.kept = lambda: "all is kept"
    handler.phase, handler.plan = phase, "stopping after this step"
    print("printed before", end="")
    try:
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(pause)
        print(", end of step", end="")
        code = 128 + handler.received
    except stopping.Stopped as stop:
        stopping.say(handler.line())
        code = stop.code
sys.exit(code)
"""


def run(phase, numbers, pause=0.1, body=BODY):
    arguments = [phase, ",".join(str(int(number)) for number in numbers), str(pause)]
    found = subprocess.run([sys.executable, "-c", body, *arguments], capture_output=True, text=True, timeout=60)
    return found.returncode, found.stdout, found.stderr


@pytest.mark.parametrize("number", sorted(STOP_SIGNALS))
def test_work_is_left_with_one_line(number):
    assert run("working", [number]) == (
        128 + number,
        "printed before",
        f"nbg test: stopped by {number.name}; all is kept\n",
    )


@pytest.mark.parametrize("number", sorted(STOP_SIGNALS))
def test_a_step_is_finished(number):
    code, out, err = run("training", [number, number])  # the same notice, twice
    assert (code, out) == (128 + number, "printed before, end of step")
    assert err == f"{number.name}: stopping after this step (again: at once)\n"


def test_the_second_ends_it_at_once():
    code, out, err = run("training", [signal.SIGTERM, signal.SIGTERM], pause=1.3)
    assert (code, out) == (143, "printed before")
    assert err.splitlines()[1:] == ["nbg test: stopped at once by SIGTERM; all is kept"]


def test_starting_ends_at_once():
    assert run("starting", [signal.SIGINT])[0] == 130


SHORT_GRACE = "from nbg_lightning import stopping\nstopping.GRACE_SECONDS = 0.5\n"


def test_what_follows_a_remembered_stop_has_time_even_if_the_notice_comes_twice():
    body = SHORT_GRACE + BODY.replace(
        "        code = 128", "        handler.phase = 'working'\n        time.sleep(1.5)\n        code = 128"
    )
    for numbers in ([signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]):
        code, out, err = run("training", numbers, body=body)
        assert (code, out) == (143, "printed before, end of step")
        assert err.count("\n") == 1


def test_another_signal_ends_what_follows_a_remembered_stop():
    late = "        handler.phase = 'working'\n        time.sleep(1.2)\n        os.kill(os.getpid(), number)\n"
    body = BODY.replace("        code = 128", f"{late}        time.sleep(30)\n        code = 128")
    code, out, err = run("training", [signal.SIGTERM], body=body)
    assert (code, out) == (143, "printed before, end of step")
    assert err.splitlines()[1:] == ["nbg test: stopped at once by SIGTERM; all is kept"]


def test_unwinding_that_hangs_is_ended_after_the_grace():
    swallowed = "with suppress(SystemExit):\n                os.kill(os.getpid(), number)\n"
    body = f"from contextlib import suppress\n{SHORT_GRACE}{BODY}".replace("os.kill(os.getpid(), number)\n", swallowed)
    code, out, err = run("working", [signal.SIGTERM], pause=30, body=body)
    assert (code, out) == (143, "printed before")
    assert err == "nbg test: stopped at once by SIGTERM; all is kept\n"


@pytest.mark.parametrize(("pause", "ended"), [(0.1, False), (1.3, True)])
def test_an_end_that_hangs_is_ended_by_another_signal_and_not_by_the_same_one_again(pause, ended):
    hanging = """
import atexit
atexit.register(print, "; complete", end="")
time.sleep(pause)
os.kill(os.getpid(), 15)
time.sleep(0.5)
sys.exit(code)
"""
    code, out, _ = run("training", [signal.SIGTERM], pause=pause, body=BODY.replace("sys.exit(code)\n", hanging))
    assert code == 143
    assert ("; complete" in out) is not ended


def test_one_that_is_swallowed_by_a_destructor_is_raised_again():
    deaf = """
class Deaf:
    def __del__(self):
        os.kill(os.getpid(), 15)
        time.sleep(0.1)
"""
    body = BODY.replace("phase, numbers", f"{deaf}\nphase, numbers", 1).replace(
        "os.kill(os.getpid(), number)\n", "Deaf()\n"
    )
    code, _, err = run("working", [signal.SIGTERM], body=body)
    assert code == 143
    assert err == "nbg test: stopped by SIGTERM; all is kept\n"


def test_nohup_keeps_a_lost_terminal_away():
    body = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + BODY.replace("128 + handler.received", "0")
    assert run("working", [signal.SIGHUP], body=body)[:2] == (0, "printed before, end of step")


def test_a_script_that_does_not_catch_it_ends_with_the_code():
    assert Stopped(signal.SIGTERM).code == 143
    assert str(Stopped(signal.SIGTERM)) == "stopped by SIGTERM"
