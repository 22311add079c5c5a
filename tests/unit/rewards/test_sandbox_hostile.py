"""Programs that want out, want more than they are given, or want to pass without solving anything.

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

from nbg_lightning.rewards.sandbox import ROOT_RUNS_AS, Sandbox

TESTS = ["assert add(2, 3) == 5", "assert abs(add(0.5, 0.25) - 0.75) < 1e-9", "def test_more():\n    assert add(1, 1) == 2"]
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

BOMBS = {
    "forks": "while True:\n    os.fork()",
    "forks that go on": "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    "threads": "while True:\n    threading.Thread(target=time.sleep, args=(99,)).start()",
    "subprocesses": "while True:\n    subprocess.Popen([sys.executable, '-c', 'while True: pass'])",
    "memory": "kept = []\nwhile True:\n    kept.append(bytearray(1 << 24))",
    "memory at once": "kept = [0] * 10**11",
    "shared memory": "import mmap\nkept = []\nwhile True:\n    m = mmap.mmap(-1, 1 << 24); m[:] = b'x' * len(m); kept.append(m)",
    "memory in files without names": (
        "while True:\n    fd = os.memfd_create('x')\n    while os.write(fd, bytes(1 << 22)): pass"
    ),
    "System V memory": (
        "for _ in range(10**6):\n    if libc.shmget(0, 1 << 28, 0o1600) < 0: raise MemoryError('no System V memory')"
    ),
    "disk": "with open('/tmp/big', 'wb') as f:\n    while True:\n        f.write(bytes(1 << 20))",
    "many files": "i = 0\nwhile True:\n    i += 1\n    open(f'/tmp/{i}', 'wb').write(bytes(1 << 16))",
    "device memory": "i = 0\nwhile True:\n    i += 1\n    open(f'/dev/shm/{i}', 'wb').write(bytes(1 << 20))",
    "sparse file": "with open('/tmp/sparse', 'wb') as f:\n    f.truncate(1 << 50)\n    f.seek(1 << 49)\n    f.write(b'x')",
    "output": "while True:\n    print('x' * 100000)",
    "error output": "while True:\n    sys.stderr.write('x' * 100000)",
    "descriptors": "kept = []\nwhile True:\n    kept.append(os.open('/dev/null', os.O_RDONLY))",
    "loop": "while True:\n    pass",
    "sleep": "time.sleep(10**6)",
    "big numbers": "x = 9 ** 9 ** 9 ** 9",
    "regular expression": "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
    "recursion": "sys.setrecursionlimit(10**9)\ndef deep(): deep()\ndeep()",
    "loop that catches all": (
        "for number in range(1, 65):\n    try:\n        signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\n"
        "while True:\n    try:\n        while True: pass\n    except BaseException:\n        pass"
    ),
    "daemon": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        while True: time.sleep(1)\n    os._exit(0)\nos._exit(0)",
}
ESCAPES = {
    "network": "attempt('connect', lambda: socket.create_connection(('127.0.0.1', {port}), 1))",
    "network of the host": "attempt('route', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('8.8.8.8', 53)) is None)",
    "names": "attempt('resolve', lambda: socket.getaddrinfo('example.org', 80))",
    "raw socket": "attempt('raw', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))",
    "netlink": "attempt('netlink', lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))",
    "other socket families": "for family in range(2, 50):\n    attempt(f'family {family}', lambda: socket.socket(family, socket.SOCK_STREAM))",
    "file of the host": "attempt('read', lambda: open({secret!r}).read())",
    "passwords": "attempt('shadow', lambda: open('/etc/shadow').read())\nattempt('passwd', lambda: open('/etc/passwd').read())",
    "homes": "for place in ('/root', '/home', '/work', '/var', '/mnt', '/opt', '/srv', '/sys', '/run'):\n    attempt(place, lambda: os.listdir(place))",
    "environment": "attempt('environ', lambda: [v for v in os.environ.values() if 'canary' in v])",
    "environment of others": (
        "for pid in [p for p in os.listdir('/proc') if p.isdigit()]:\n"
        "    attempt(pid, lambda: b'canary' in open(f'/proc/{pid}/environ', 'rb').read())"
    ),
    "root of the first process": "attempt('root', lambda: os.path.exists({secret!r}) or os.path.exists('/proc/1/root' + {secret!r}))",
    "processes of the host": "attempt('kill', lambda: os.kill({victim}, 9) is None)",
    "write to the system": "for place in ('/x', '/usr/x', '/usr/bin/x', '/lib/x', '/dev/x', '/etc/x'):\n    attempt(place, lambda: open(place, 'w').write('x'))",
    "write to the kernel": "for place in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/user/max_user_namespaces'):\n    attempt(place, lambda: open(place, 'w').write('1'))",
    "user namespace": "attempt('unshare', lambda: libc.unshare(0x10000000) == 0)",
    "user namespace by a command": "attempt('unshare -Ur', lambda: subprocess.run(['unshare', '-Ur', 'true']).returncode == 0)",
    "user namespace by clone": (
        "def clone():\n    pid = libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)\n    if pid == 0: os._exit(0)\n    return pid > 0\n"
        "attempt('clone', clone)"
    ),
    "user namespace by clone3": (
        "def clone3():\n    arguments = ctypes.create_string_buffer(struct.pack('<8Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0))\n"
        "    pid = libc.syscall(435, arguments, 64)\n    if pid == 0: os._exit(0)\n    return pid > 0\n"
        "attempt('clone3', clone3)"
    ),
    "all namespaces": "for flag in (0x20000, 0x40000000, 0x8000000, 0x4000000, 0x20000000, 0x2000000):\n    attempt(hex(flag), lambda: libc.unshare(flag) == 0)",
    "namespaces of the first process": (
        "for kind in ('mnt', 'net', 'user', 'pid'):\n    attempt(kind, lambda: libc.setns(os.open(f'/proc/1/ns/{kind}', 0), 0) == 0)"
    ),
    "mount": "attempt('mount', lambda: libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0)\nattempt('remount', lambda: libc.mount(None, b'/', None, 32 | 4096, None) == 0)",
    "chroot": "attempt('chroot', lambda: os.chroot('/tmp') is None)",
    "root": "attempt('setuid', lambda: os.setuid(0) is None)\nattempt('su', lambda: subprocess.run(['su', '-c', 'true'], stdin=subprocess.DEVNULL).returncode == 0)\nattempt('uid', lambda: os.getuid() == 0)",
    "capabilities": "attempt('capabilities', lambda: [l for l in open('/proc/self/status') if l[:6] in ('CapEff', 'CapPrm', 'CapBnd') and int(l.split()[1], 16)])",
    "more than the limits": (
        "import resource\nfor limit in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU):\n"
        "    attempt(limit, lambda: resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)) is None)"
    ),
    "tracing": "attempt('attach', lambda: libc.ptrace(16, os.getppid(), 0, 0) == 0)\nattempt('seize', lambda: libc.ptrace(0x4206, os.getppid(), 0, 0) == 0)",
    "memory of the judge": "attempt('mem', lambda: open(f'/proc/{os.getppid()}/mem', 'rb'))\nattempt('maps', lambda: open(f'/proc/{os.getppid()}/maps').read())",
    "memory of the judge by a call": (
        "buffer = ctypes.create_string_buffer(8)\nvector = struct.pack('<QQ', ctypes.addressof(buffer), 8)\n"
        "attempt('process_vm_readv', lambda: libc.process_vm_readv(os.getppid(), vector, 1, vector, 1, 0) > 0)"
    ),
    "descriptors of the judge": (
        "attempt('fd', lambda: os.listdir(f'/proc/{os.getppid()}/fd'))\n"
        "attempt('pidfd_getfd', lambda: [n for n in range(20) if libc.syscall(438, os.pidfd_open(os.getppid()), n, 0) >= 0])"
    ),
    "descriptors left open": "attempt('open', lambda: [fd for fd in range(3, 256) if not os.fstat(fd) is None and False] or [os.readlink(f'/proc/self/fd/{n}') for n in range(3, 9)])",
    "interfaces of the kernel": (
        "for name, number in (('io_uring', 425), ('bpf', 321), ('userfaultfd', 323), ('perf', 298), ('keyctl', 250), ('add_key', 248)):\n"
        "    attempt(name, lambda: libc.syscall(number, 0, 0, 0, 0, 0) >= 0)"
    ),
    "typing into the terminal": "import fcntl, termios\nattempt('tty', lambda: fcntl.ioctl(0, termios.TIOCSTI, b'x') == 0)\nattempt('open tty', lambda: open('/dev/tty'))",
    "host name": "attempt('hostname', lambda: socket.gethostname() == {hostname!r})\nattempt('set', lambda: socket.sethostname('x') is None)",
    "devices": "attempt('mknod', lambda: os.mknod('/tmp/sda', 0o60666, os.makedev(8, 0)) is None)\nattempt('mem', lambda: open('/dev/mem'))\nattempt('kmsg', lambda: open('/dev/kmsg').read(1))",
}
ENCODER = """
def frame(data): return struct.pack('<I', len(data)) + data
def text(value): return b's' + struct.pack('<I', len(value)) + value
passed = b't' + struct.pack('<I', 2) + text(b'ok') + text(b'')
"""
FORGERIES = {
    "exit": "sys.exit(0)",
    "exit at once": "os._exit(0)",
    "exit in the call": "def add(a, b): os._exit(0)",
    "exit in the call, politely": "def add(a, b): raise SystemExit(0)",
    "exit after output": "print('ok passed 3/3 all tests passed True'); sys.stdout.flush(); os._exit(0)",
    "exit hooks": "import atexit\natexit.register(lambda: os._exit(0))",
    "equal to all": "class All:\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\ndef add(a, b): return All()",
    "equal int": "class All(int):\n    __eq__ = lambda s, o: True\n    __hash__ = int.__hash__\ndef add(a, b): return All(7)",
    "equal float": (
        "class All(float):\n    __eq__ = lambda s, o: True\n    __sub__ = __rsub__ = lambda s, o: 0.0\n    __abs__ = lambda s: 0.0\n"
        "    __lt__ = lambda s, o: True\ndef add(a, b): return All(7)"
    ),
    "object that calculates": (
        "class All:\n    def __getattr__(self, name): return lambda *a: True\n    __eq__ = __lt__ = __gt__ = lambda s, o: True\n"
        "    __sub__ = __add__ = __abs__ = __rsub__ = lambda s, *o: s\n    __float__ = lambda s: 0.0\n    __bool__ = lambda s: True\n"
        "def add(a, b): return All()"
    ),
    "class of another": "class All:\n    __class__ = property(lambda s: int)\n    __eq__ = lambda s, o: True\ndef add(a, b): return All()",
    "class by metaclass": "class Meta(type):\n    __eq__ = lambda s, o: True\n    __hash__ = type.__hash__\nclass add(metaclass=Meta):\n    def __new__(cls, *a): return cls",
    "class called like the function": "class add:\n    def __init__(self, *a): pass\n    __eq__ = __lt__ = lambda s, o: True\n    __sub__ = __abs__ = lambda s, *o: s",
    "builtins": (
        "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.AssertionError = Warning\nbuiltins.isinstance = lambda *a: True\n"
        "builtins.compile = builtins.exec = lambda *a, **k: None\ndef add(a, b): return 0"
    ),
    "own abs": "def abs(x): return 0\ndef add(a, b): return 5 if a == 2 else 0.1 if a == 0.5 else 3",
    "own check": "def check(candidate): return True\ntest_more = check\ndef add(a, b): return 0",
    "stop iteration": "def add(a, b): raise StopIteration",
    "generator exit": "def add(a, b): raise GeneratorExit",
    "keyboard interrupt": "def add(a, b): raise KeyboardInterrupt",
    "own error": "class Passed(AssertionError): pass\ndef add(a, b): raise Passed('ok')",
    "error that lies": "class Liar(Exception):\n    def __str__(self): os._exit(0)\ndef add(a, b): raise Liar()",
    "frames": (
        "def add(a, b):\n    frame = sys._getframe()\n    while frame:\n        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):\n"
        "            if 'assert' in repr(value): return 5\n        frame = frame.f_back\n    return 0"
    ),
    "objects in memory": (
        "import gc\ndef add(a, b):\n    found = [o for o in gc.get_objects() if isinstance(o, (list, dict, tuple)) and 'test_more' in repr(o)[:10**6]]\n"
        "    for o in found:\n        if 'assert add(2, 3)' in repr(o): return 5\n    return 0"
    ),
    "every descriptor": ENCODER + "def add(a, b):\n    for fd in range(1, 256):\n        try: os.write(fd, frame(b'began') + frame(passed))\n        except OSError: pass\n    time.sleep(0.3)\n    os._exit(0)",
    "every descriptor of everybody": (
        ENCODER + "for pid in os.listdir('/proc'):\n    for fd in range(0, 64):\n        try:\n"
        "            with open(f'/proc/{pid}/fd/{fd}', 'wb', buffering=0) as f: f.write(frame(b'began') + frame(passed))\n        except OSError: pass"
    ),
    "answers of its own": (
        "def forge(*a):\n    pass\nframe = sys._getframe()\nwhile frame:\n    if 'self' in frame.f_locals and hasattr(frame.f_locals['self'], 'answer'):\n"
        "        served = frame.f_locals['self']\n        served._do = lambda *a: True\n        served.__class__._do = lambda *a: True\n    frame = frame.f_back"
    ),
    "malformed answers": "def add(a, b):\n    for fd in range(3, 20):\n        try: os.write(fd, struct.pack('<I', 6) + b'l' + struct.pack('<I', 2**31) + b'N')\n        except OSError: pass\n    time.sleep(9)",
    "an endless answer": "def add(a, b):\n    for fd in range(3, 20):\n        try: os.write(fd, struct.pack('<I', 2**32 - 1) + b'x' * 1000)\n        except OSError: pass\n    time.sleep(9)",
    "a deep answer": "def add(a, b):\n    deep = []\n    for _ in range(10**5): deep = [deep]\n    return deep",
    "a large answer": "def add(a, b): return 'x' * (1 << 27)",
    "modules of the judge": (
        "for name in ('_ast', 'types', 'struct', 'ctypes', 'fractions', 'datetime', 'decimal', 'collections', 'numpy', 'solution', 'builtins'):\n"
        "    open(f'/tmp/{name}.py', 'w').write('import os; os._exit(0)')\n"
        "import fractions\ndef add(a, b): return type('Fraction', (), {'__module__': 'fractions', 'numerator': 5, 'denominator': 1})()"
    ),
    "special value": "import types\ndef add(a, b):\n    class numpy: pass\n    value = numpy(); value.dtype = types.SimpleNamespace(kind='i', str='O'); numpy.__module__ = 'numpy'; value.shape = (); value.ravel = lambda: value; value.tolist = lambda: [5]\n    return value",
    "kill the judge": "os.kill(os.getppid(), 9)",
    "interrupt the judge": "def add(a, b):\n    for number in (2, 14, 10, 12, 15, 1): os.kill(os.getppid(), number)\n    time.sleep(1)",
    "stop the judge": "os.kill(os.getppid(), signal.SIGSTOP)",
    "kill everybody": "os.kill(-1, 9)",
    "limits of the judge": "import resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))",
    "tracing hooks": "sys.settrace(lambda *a: os._exit(0))\nsys.setprofile(lambda *a: os._exit(0))",
    "import hooks": "sys.meta_path.insert(0, type('H', (), {'find_spec': lambda *a: os._exit(0)})())\nimport wave",
    "finalizers": "class Late:\n    def __del__(self): os._exit(0)\nkept = Late()\ndef add(a, b):\n    global kept\n    kept = None\n    return 5",
    "a child that answers": "if os.fork():\n    time.sleep(99)\ndef add(a, b): return None",
    "arguments changed": "def add(a, b):\n    a = b = 5\n    return a == b",
    "iterators": "class Any:\n    def __iter__(self): return self\n    def __next__(self): raise StopIteration\n    __len__ = lambda s: 0\n    __eq__ = lambda s, o: True\ndef add(a, b): return Any()",
}  # fmt: skip

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
            "{secret!r}": repr(str(secret)),
            "{victim}": str(victim.pid),
            "{hostname!r}": repr(socket.gethostname()),
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
    programs = {**BOMBS, **ESCAPES}
    return dict(zip(programs, sandbox.run_many([written(text, facts) for text in programs.values()]), strict=True))


@pytest.fixture(scope="module")
def checked(surroundings):
    """Every program as a solution."""
    sandbox, facts, _ = surroundings
    programs = {**ESCAPES, **FORGERIES, "wrong": WRONG_BUT_HONEST}
    for name in ("forks", "memory", "output", "loop", "daemon", "recursion"):
        programs[name] = BOMBS[name]
    jobs = [{"solution": written(text, facts), "tests": TESTS} for text in programs.values()]
    return dict(zip(programs, sandbox.check_many(jobs), strict=True))


def test_there_are_enough():
    assert len(BOMBS) + len(ESCAPES) + len(FORGERIES) >= 40


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_contained(name, ran):
    result = ran[name]
    assert result.seconds < 15, result.detail
    assert result.status != "error", result.detail
    if name not in ("daemon", "sparse file"):  # these end by themselves, having done no harm
        assert result.status in ("failed", "timeout", "killed"), (result.status, result.stdout[-300:])
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
    assert "ESCAPED temporary 1" in sandbox.run(written("attempt('temporary', lambda: open('/tmp/x', 'w').write('x'))", facts)).stdout


@pytest.mark.parametrize("name", [*ESCAPES, *FORGERIES, "wrong", "forks", "memory", "output", "loop", "daemon", "recursion"])
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
    """Processes of the sandbox that are still there (told by the user they run as; none of ours runs as root does)."""
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
    return found


@pytest.mark.parametrize("name", ["exit at once", "equal to all", "kill the judge", "every descriptor"])
def test_output_tests_are_not_forged_either(name, surroundings):
    sandbox, facts, _ = surroundings
    program = written(FORGERIES[name], facts) + "\nprint('ok')"
    assert not sandbox.check_outputs(program, [("1 2\n", "3\n"), ("2 2\n", "4\n")], timeout=2)
