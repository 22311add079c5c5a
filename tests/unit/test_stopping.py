"""Signal handling of a command: the first and second signal in each phase, and the exit code."""

import signal
import subprocess
import sys

import pytest

from nbg_lightning.stopping import STOP_SIGNALS, Stopped

BODY = """
import os, signal, sys, time
from nbg_lightning import stopping
from nbg_lightning.last_words import say
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
        say(handler.line())
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


FORKED = """
import contextlib, multiprocessing, os, signal, subprocess, sys, time
from nbg_lightning import stopping
fork, phase, owns = multiprocessing.get_context("fork"), sys.argv[1], sys.argv[2] == "1"
stopping.GRACE_SECONDS = 1.0

def child(work=time.sleep, given=(60,)):
    process = fork.Process(target=work, args=given, daemon=work is time.sleep)
    process.start()
    return process

def nested():
    process = child()
    process.terminate()
    process.join(5)
    command = subprocess.Popen(["sleep", "60"])
    command.terminate()
    os._exit(process.exitcode == -15 and command.wait(5) == -15)

with stopping.handling("nbg test", owns_process=owns) as handler:
    handler.phase = "working"
    with stopping.remembering("stopping") if phase == "training" else contextlib.nullcontext():
        code = 0
"""


@pytest.mark.parametrize("phase", ["training", "working"])
@pytest.mark.parametrize("owns", [1, 0])
def test_a_forked_process_can_be_terminated_and_its_signals_are_its_own(phase, owns):
    body = (
        FORKED
        + """
        for _ in range(20):
            process = child()
            process.terminate()
            process.join(5)
            assert process.exitcode == -15
        process = child(nested, ())
        process.join(20)
        print(process.exitcode)
        process = child()
        os.kill(process.pid, signal.SIGINT)
        time.sleep(1.5)
        print(process.is_alive(), handler.received)
        with fork.Pool(2) as pool:
            print(pool.map(abs, [-1, 2]))
sys.exit(code)
"""
    )
    assert run(phase, [owns], body=body) == (0, "1\nTrue None\n[1, 2]\n", "")


def test_a_handler_that_a_forked_process_installs_is_called():
    body = (
        FORKED.replace(
            "def child(",
            "def own(ready):\n    signal.signal(15, lambda *_: os._exit(3))\n    ready.set()\n    time.sleep(60)\n\ndef child(",
        )
        + """
        ready = fork.Event()
        process = child(own, (ready,))
        ready.wait(10)
        process.terminate()
        process.join(5)
        print(process.exitcode)
"""
    )
    assert run("training", [1], body=body) == (0, "3\n", "")


def test_a_forked_process_is_terminated_by_a_handler_that_calls_the_one_before_it():
    body = (
        FORKED
        + """
        before = signal.getsignal(15)
        signal.signal(15, lambda *given: before(*given))
        process = child()
        process.terminate()
        process.join(5)
        print(process.exitcode, handler.received)
"""
    )
    assert run("training", [1], body=body) == (0, "-15 None\n", "")


# What is registered before the library is called after it, when the fork has begun.
IN_A_FORK = """
import os
begun = []
os.register_at_fork(before=lambda: begun and begun.pop()())
"""
FORK = """
        process = os.fork()
        if process == 0:
            os._exit(0)
        os.waitpid(process, 0)
        time.sleep(1)
"""


def test_a_fork_within_a_fork_leaves_no_signal_blocked():
    body = (
        IN_A_FORK
        + FORKED
        + "        begun.append(lambda: print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True) if os.fork() else nested())\n"
        + FORK
        + "        print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
    )
    assert run("training", [1], body=body) == (0, "1\nset()\n", "")


@pytest.mark.parametrize(
    ("phase", "owns", "block", "raised"),
    [
        ("working", 1, "stopping.interrupts()", "KeyboardInterrupt"),
        ("training", 0, "contextlib.nullcontext()", "KeyboardInterrupt"),
        ("working", 1, "contextlib.nullcontext()", "stopping.Stopped"),
    ],
)
def test_a_signal_that_comes_during_a_fork_is_heard(phase, owns, block, raised):
    first = "        os.kill(os.getpid(), 2)\n        time.sleep(1.2)\n" if phase == "training" else ""
    body = (
        IN_A_FORK
        + FORKED
        + first
        + "        begun.append(lambda: os.kill(os.getpid(), 2))\n        try:\n"
        + f"          with {block}:\n{FORK.replace(chr(10), chr(10) + '    ').rstrip(' ')}"
        + f"        except {raised}:\n            print('heard', flush=True)\n            os._exit(0)\n"
    )
    assert run(phase, [owns], body=body)[:2] == (0, "heard\n")


def test_a_handler_that_python_does_not_know_is_left():
    body = (
        "import signal\nknown = signal.getsignal\nsignal.getsignal = lambda n: None if n == signal.SIGUSR2 else known(n)\n"
        + FORKED
        + "        pass\nprint(known(signal.SIGUSR2) is signal.SIG_DFL, stopping.current())\n"
    )
    assert run("training", [0], body=body) == (0, "True None\n", "")


def test_a_stopped_command_ends_though_a_forked_process_is_left():
    body = (
        FORKED
        + """
        child()
        os.kill(os.getpid(), 15)
        time.sleep(1.2)
        code = 143
print("done", end="")
sys.exit(code)
"""
    )
    assert run("training", [1], body=body) == (143, "done", "SIGTERM: stopping (again: at once)\n")


def test_a_call_that_no_signal_interrupts_ends_with_the_signals_own_code_and_words():
    body = SHORT_GRACE + BODY.replace(
        "        for number in numbers:",
        "        import ctypes\n        mutex = (ctypes.c_byte * 64)()\n        lock = ctypes.CDLL(None).pthread_mutex_lock\n"
        "        lock(mutex)\n        import threading\n"
        "        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n        lock(mutex)\n"
        "        for number in numbers:",
    )
    code, _, err = run("working", [signal.SIGTERM], body=body)
    assert (code, err) == (130, "nbg test: stopped at once by SIGINT; all is kept\n")


@pytest.mark.parametrize("kept", ["time.sleep(60)", "1 / 0"])
def test_last_words_that_cannot_be_found_keep_no_process(kept):
    body = "from nbg_lightning import stopping\nstopping._LAST_WORDS_SECONDS = 0.5\n" + BODY.replace(
        'lambda: "all is kept"', f"lambda: {kept}"
    )
    code, out, err = run("training", [signal.SIGTERM, signal.SIGTERM], pause=1.3, body=body)
    assert (code, out) == (143, "printed before")
    assert err.splitlines()[1:] == ["nbg test: stopped at once by SIGTERM; what is saved could not be found out"]


@pytest.mark.parametrize("owns", ["True", "False"])
def test_a_notice_that_another_rank_had_first_is_the_same_one(owns):
    agreed = (
        "        handler.agreed(15)\n        time.sleep(1.2)\n        handler.phase = 'working'\n        for number"
    )
    body = BODY.replace("        for number", agreed).replace("owns_process=True", f"owns_process={owns}")
    code, out, err = run("training", [signal.SIGTERM], body=body)
    assert (code, out, err) == (143, "printed before, end of step", "")


@pytest.mark.parametrize(("within", "code"), [("0.0", 0), ("60", 130)])
def test_a_block_that_answers_ctrl_c_itself(within, code):
    """The command goes on, even if the block is left at once; a block that is stuck is ended by another one."""
    block = f"""
        mutex, lock = (ctypes.c_byte * 64)(), ctypes.CDLL(None).pthread_mutex_lock
        lock(mutex)
        try:
            with stopping.interrupts():
                if {within}:
                    for seconds in (0.3, 1.6):
                        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
                    lock(mutex)
                os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            print(", interrupted", end="")
        time.sleep(1.5)
        code = 0
"""
    a, b = BODY.index("        for number in"), BODY.index("    except stopping.Stopped")
    body = f"import ctypes, threading\n{SHORT_GRACE}{BODY[:a]}{block.lstrip(chr(10))}{BODY[b:]}"
    found, out, err = run("working", [signal.SIGINT], body=body)
    assert (found, out) == (code, "printed before, interrupted" if code == 0 else "printed before")
    assert err == ("" if code == 0 else "nbg test: stopped at once by SIGINT; all is kept\n")


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
