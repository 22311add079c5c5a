"""A stateful interpreter over several cells: its output, and that nothing escapes or outlives it."""

import os
import time

import pytest

from nbg_lightning.scoring.sandbox.sandbox import Sandbox
from nbg_lightning.scoring.sandbox.session import SandboxSession


@pytest.fixture(scope="module")
def sandbox():
    box = Sandbox(timeout=5, memory=256, processes=12, disk=16, output=4)
    box.probe()
    return box


@pytest.fixture
def session(sandbox):
    with SandboxSession(sandbox, {"data/numbers.txt": "1 2 3"}) as found:
        yield found


def test_cells_see_what_those_before_them_made(session):
    said = [
        session.run(cell).stdout
        for cell in (
            "import math\ndef area(r):\n    return math.pi * r ** 2",
            "area(1)",
            "open('data/numbers.txt').read()",
            "open('mine.txt', 'w').write('x')\nprint('written')",
            "import os; sorted(os.listdir())",
        )
    ]
    assert said == ["", "3.141592653589793\n", "'1 2 3'\n", "written\n", "['data', 'mine.txt']\n"]


def test_errors_are_shown_with_their_line_and_cost_no_state(session):
    session.run("x = 1")
    failed = session.run("def f():\n    return x / 0\nprint('before')\nf()")
    assert failed.status == "failed" and failed.stdout.startswith("before\nTraceback")
    assert 'File "<cell 2>", line 2, in f\n    return x / 0' in failed.stdout
    assert "nbg_lightning" not in failed.stdout
    assert session.run("1 +").stdout.endswith("SyntaxError: invalid syntax\n")
    assert session.run("raise SystemExit(3)").status == "failed"
    assert session.run("x").stdout == "1\n"


@pytest.mark.parametrize(
    ("cell", "status"),
    [("while True: pass", "timeout"), ("import os; os._exit(0)", "killed"), ("f = lambda: f()", "ok")],
)
def test_a_cell_that_does_not_end_costs_the_session_and_nothing_else(session, cell, status):
    session.run("x = 1")
    begin = time.monotonic()
    assert session.run(cell, 0.5).status == status
    assert time.monotonic() - begin < 20
    assert session.alive == (status == "ok")
    assert session.run("'x' in globals()").stdout == f"{status == 'ok'}\n"


HOSTILE = {
    "the network": "import socket\nsocket.create_connection(('192.0.2.1', 80), 1)",
    "a name on the network": "import urllib.request\nurllib.request.urlopen('http://example.com', timeout=1)",
    "the host's files": f"open({__file__!r}).read()",
    "the root": "open('/usr/bin/python3', 'w')",
    "the shadow file": "open('/etc/shadow').read()",
    "memory": "data = bytearray(1 << 30)",
    "the disk": "with open('big', 'wb') as file:\n    for _ in range(64):\n        file.write(bytes(1 << 20))",
    "processes": "import os, time\nfor _ in range(64):\n    if os.fork() == 0:\n        time.sleep(60)\n        os._exit(0)",
    "another user": "import os\nos.setuid(0)",
    "a name space": "import ctypes, os\nif ctypes.CDLL(None).unshare(0x10000000): raise OSError('refused')",
    "the supervisor's memory": "open('/proc/1/mem', 'rb').read(1)",
}


def test_nothing_is_within_reach_over_turns(sandbox):
    """All in one session where it lives on: what an attempt leaves must not help the next."""
    with SandboxSession(sandbox) as session:
        for name, cell in HOSTILE.items():
            result = session.run(cell)
            assert result.status in ("failed", "killed"), (name, result)
        assert session.run("40 + 2").stdout == "42\n"


def test_the_supervisor_cannot_be_killed_and_forged_replies_help_nobody(sandbox):
    with SandboxSession(sandbox) as session:
        killing = "import os, signal\nos.kill(1, signal.SIGKILL)\nos.kill(1, signal.SIGSTOP)"
        assert session.run(killing).status == "ok" and session.run("1").stdout == "1\n"
        session.run("import os\nfor n in range(3, 64):\n    try: os.write(n, b'd' * 8)\n    except OSError: pass")
        for cell in ("import sys; sys.stdout = None", "import os; os.closerange(0, 64)"):
            session.run(cell, 1.0)
        session.close()
        assert session.run("'as new'").stdout == "'as new'\n"


def test_output_is_cut_and_a_flood_ends(session):
    much = session.run("print('x' * 1_000_000)")
    assert much.status == "ok" and len(much.stdout) < 5000 and much.stdout.endswith("kB of output)")
    assert session.run("1").stdout == "1\n", "of the cell before nothing is left"
    flood = session.run("while True: print('y' * 1000)", 0.5)
    assert flood.status == "timeout" and len(flood.stdout) < 5000


def test_nothing_computes_between_cells_and_nothing_outlives_the_session(sandbox):
    with SandboxSession(sandbox) as session:
        session.run(
            "import os, subprocess, sys, threading\ncount = 0\ndef burn():\n    global count\n    while True: count += 1\n"
            "threading.Thread(target=burn, daemon=True).start()\n"
            "child = subprocess.Popen([sys.executable, '-c', 'while True: pass'])"
        )
        process = session._process.pid
        begin = _processor_seconds(process)
        time.sleep(0.6)
        assert _processor_seconds(process) - begin < 0.2
        assert session.run("count > 0").stdout == "True\n"
        below = _below(process)
        assert len(below) >= 3
    assert not [pid for pid in below if os.path.exists(f"/proc/{pid}")]


def test_a_session_is_refused_a_file_outside_and_a_cell_without_end(sandbox):
    with pytest.raises(ValueError, match="inside the program's folder"):
        SandboxSession(sandbox, {"../x": ""})
    with SandboxSession(sandbox) as session:
        assert "at most" in session.run("#" * 300_000).stdout
        assert session.run("'\ud800'").status in ("ok", "failed")


def _below(process):
    found, waiting = [], [process]
    while waiting:
        for task in os.listdir(f"/proc/{waiting[0]}/task"):
            with open(f"/proc/{waiting[0]}/task/{task}/children") as file:
                waiting += map(int, file.read().split())
        found.append(waiting.pop(0))
    return found


def _processor_seconds(process):
    ticks = 0
    for pid in _below(process):
        with open(f"/proc/{pid}/stat") as file:
            ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")
