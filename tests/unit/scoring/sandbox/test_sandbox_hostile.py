"""Programs that try to escape, exceed their limits, or pass without solving anything.

Each is a "solution" for ``add(a, b)``. None may pass; none may print ESCAPED, which they do when they got what they wanted.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbg_lightning.scoring.sandbox.isolation import ROOT_RUNS_AS
from nbg_lightning.scoring.sandbox.sandbox import Sandbox

TESTS = [
    "assert add(2, 3) == 5",
    "assert abs(add(0.5, 0.25) - 0.75) < 1e-9",
    "def test_more():\n    assert add(1, 1) == 2",
]
HERE = Path(__file__).parent
TRY = """
import ctypes, os, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, action, wanted=bool):
    try:
        value = action()
    except BaseException as error:
        print(name, "refused:", type(error).__name__, error)
        return None
    if wanted(value):
        print("ESCAPED", name, value)
    return value
def add(a, b):
    return None
"""


def programs(kind):
    """Name and text of each program in a file of ``hostile/``."""
    parts = (HERE / "hostile" / f"{kind}.txt").read_text().split("#### ")[1:]
    return dict(part.split("\n", 1) for part in parts)


BOMBS, ESCAPES, FORGERIES = programs("bombs"), programs("escapes"), programs("forgeries")
AS_SOLUTIONS = ("forks", "memory", "output", "loop", "daemon", "recursion")  # bombs that are judged, too
WRONG_BUT_HONEST = "def add(a, b): return 0"


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """A sandbox, and what is outside of it: a secret file, a listening server, an environment, a process."""
    sandbox = Sandbox(timeout=2.5, memory=256, processes=12, disk=8, output=256, workers=4)
    try:
        sandbox.probe()
    except RuntimeError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("host")
    folder.chmod(0o755)
    secret = folder / "secret.txt"
    secret.write_text("canary")
    secret.chmod(0o644)
    os.environ["SECRET"] = "canary-environment"
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with socket.create_server(("127.0.0.1", 0)) as server, sandbox:
        facts = {
            "{port}": str(server.getsockname()[1]),
            "{secret}": repr(str(secret)),
            "{victim}": str(victim.pid),
            "{hostname}": repr(socket.gethostname()),
        }
        yield sandbox, facts, victim
    del os.environ["SECRET"]
    victim.kill()
    victim.wait()


def written(program, facts):
    for name, value in facts.items():
        program = program.replace(name, value)
    return TRY + program


@pytest.fixture(scope="module")
def ran(surroundings):
    """Every program run as a program."""
    sandbox, facts, _ = surroundings
    chosen = {**BOMBS, **ESCAPES}
    return dict(zip(chosen, sandbox.run_many([written(text, facts) for text in chosen.values()]), strict=True))


@pytest.fixture(scope="module")
def checked(surroundings):
    """Every program as a solution."""
    sandbox, facts, _ = surroundings
    chosen = {**ESCAPES, **FORGERIES, "wrong": WRONG_BUT_HONEST, **{name: BOMBS[name] for name in AS_SOLUTIONS}}
    jobs = [{"solution": written(text, facts), "tests": TESTS} for text in chosen.values()]
    return dict(zip(chosen, sandbox.check_many(jobs), strict=True))


def test_there_are_enough():
    assert len(BOMBS) + len(ESCAPES) + len(FORGERIES) >= 40


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_contained(name, ran):
    result = ran[name]
    assert result.seconds < 15, result.detail
    assert result.status != "error", result.detail
    by_itself = {"ok"} if name in ("daemon", "sparse file") else set()  # having done no harm
    assert result.status in {"failed", "timeout", "killed"} | by_itself, (result.status, result.stdout[-300:])
    assert len(result.stdout) <= 256 * 1024 and len(result.stderr) <= 256 * 1024


@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_escapes(name, ran):
    result = ran[name]
    assert result.status != "error", result.detail
    assert "ESCAPED" not in result.stdout
    assert "refused" in result.stdout or name not in ("network", "file of the host"), result


def test_attempts_do_report_success(surroundings):
    """The programs above would say so if they got out."""
    sandbox, facts, _ = surroundings
    assert (
        "ESCAPED temporary 1"
        in sandbox.run(written("attempt('temporary', lambda: open('/tmp/x', 'w').write('x'))", facts)).stdout
    )


@pytest.mark.parametrize("name", [*ESCAPES, *FORGERIES, "wrong", *AS_SOLUTIONS])
def test_nothing_is_forged(name, checked):
    result = checked[name]
    assert not result
    assert result.status in ("failed", "timeout", "killed"), result  # never an error, which would be masked


def test_the_host_is_well(ran, checked, surroundings):
    _, _, victim = surroundings
    assert victim.poll() is None
    deadline = time.monotonic() + 10
    while (left := sandboxed_processes()) and time.monotonic() < deadline:
        time.sleep(0.1)  # the kernel is still tearing namespaces down
    assert left == []


def sandboxed_processes():
    """Processes of the sandbox that are still there (told by the user they run as; none of ours runs as root does).

    Servers of checkers are another sandbox, which other tests of this moment may have open.
    """
    if os.geteuid() != 0:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        return [pid for pid in children if "bwrap" in Path(f"/proc/{pid}/cmdline").read_text()]
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and place.stat().st_uid == ROOT_RUNS_AS:
                found.append((place / "cmdline").read_text())
        except OSError:
            continue
    return [command for command in found if "scoring.checkers.server" not in command]


@pytest.mark.parametrize("name", ["exit at once", "equal to all", "kill the judge", "every descriptor"])
def test_output_tests_are_not_forged_either(name, surroundings):
    sandbox, facts, _ = surroundings
    program = written(FORGERIES[name], facts) + "\nprint('ok')"
    assert not sandbox.check_outputs(program, [("1 2\n", "3\n"), ("2 2\n", "4\n")], timeout=2)
