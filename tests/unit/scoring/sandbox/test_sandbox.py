"""Normal use of the sandbox: honest programs run and are judged by all kinds of tests. Hostile ones: test_sandbox_hostile.py."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict, deque
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbg_lightning.scoring.sandbox import isolation
from nbg_lightning.scoring.sandbox.codec import DEEPEST, decode, encode
from nbg_lightning.scoring.sandbox.isolation import _closed_to_others
from nbg_lightning.scoring.sandbox.judge import plain_output
from nbg_lightning.scoring.sandbox.sandbox import Sandbox, SandboxResult
from nbg_lightning.scoring.sandbox.seccomp import system_call_filter


@pytest.fixture(scope="module")
def sandbox():
    box = Sandbox(timeout=10, workers=2)
    try:
        box.probe()
    except RuntimeError as error:
        pytest.skip(str(error))
    with box:
        yield box


# -- values between judge and program ----------------------------------------------------------------------------------

UNHURRIED = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.fractions(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@UNHURRIED
@given(plain)
def test_values_survive(value):
    copy = decode(encode(value))
    assert copy == value
    assert repr(copy) == repr(value)  # 1, 1.0 and True are distinguished


@UNHURRIED
@given(st.binary(max_size=60))
def test_hostile_bytes_make_no_harm(data):
    try:
        value = decode(data)
    except (ValueError, TypeError, ArithmeticError, ModuleNotFoundError):
        return
    assert type(value).__module__ in ("builtins", "fractions", "decimal", "datetime", "collections", "numpy")


def test_values_of_the_standard_library():
    values = [
        deque([1, 2]),
        Decimal("1.50"),
        Fraction(1, 3),
        date(2026, 1, 2),
        range(3),
        2 + 1j,
        {1},
        frozenset({2}),
        bytearray(b"x"),
    ]
    assert decode(encode(values)) == values


def test_subclasses_become_their_base():
    class All(int):
        __eq__ = lambda self, other: True  # noqa: E731
        __hash__ = int.__hash__

    class Own(dict):
        pass

    values = decode(encode([All(7), Own(a=1), OrderedDict(a=1)]))
    assert [type(value) for value in values] == [int, dict, OrderedDict]
    assert values[0] != 5


def test_what_is_no_data_does_not_cross():
    with pytest.raises(TypeError, match="object is no plain data"):
        encode(object())
    deep = []
    for _ in range(DEEPEST + 1):
        deep = [deep]
    with pytest.raises(TypeError):
        encode(deep)
    with pytest.raises(ValueError, match="too early"):
        decode(b"l\xff\xff\xff\xff")
    with pytest.raises(ValueError, match="follows"):
        decode(b"NN")


# -- programs ----------------------------------------------------------------------------------------------------------


def test_run(sandbox):
    result = sandbox.run("print(input()); import sys; print('oh', file=sys.stderr)", stdin="hello\n")
    assert (result.status, result.stdout, result.stderr) == ("ok", "hello\n", "oh\n")
    assert bool(result) and 0 < result.seconds < 10
    result = sandbox.run("import helper, sys; print(helper.x, open('data/a.txt').read(), sys.argv[1:])",
                         files={"helper.py": "x = 3", "data/a.txt": b"text"}, arguments=["one"])  # fmt: skip
    assert result.stdout == "3 text ['one']\n"
    result = sandbox.run("1 / 0")
    assert (result.status, result.detail) == ("failed", "exit code 1")
    assert result.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert sandbox.run("import sys; sys.exit(3)").detail == "exit code 3"
    assert sandbox.run("import os; os.abort()").status == "killed"
    assert sandbox.run("while True: pass", timeout=0.5).status == "timeout"
    assert sandbox.run("def (").status == "failed"


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", ""])
def test_files_stay_inside(name, sandbox):
    with pytest.raises(ValueError, match="give a relative path inside"):
        sandbox.run("pass", files={name: "x"})


def test_programs_share_nothing(sandbox):
    assert sandbox.run("open('/tmp/left', 'w').write('x')")
    assert sandbox.run("import os; print(os.listdir('/tmp'))").stdout == "[]\n"


def test_many_keep_their_order(sandbox):
    results = sandbox.run_many([f"import time; time.sleep({(9 - i) / 50}); print({i})" for i in range(10)])
    assert [result.stdout for result in results] == [f"{i}\n" for i in range(10)]
    results = sandbox.check_many(
        [{"solution": f"def f(): return {i}", "tests": "assert f() % 2 == 0"} for i in range(6)]
    )
    assert list(map(bool, results)) == [True, False] * 3


def test_arrays(sandbox):
    with Sandbox(packages=["numpy"]) as other:
        solution = "import numpy as np\ndef f(x): return x * np.arange(3), np.float64(0.5), np.int64(2)"
        test = (
            "array, half, two = f(np.array([1, 1, 2]))\nassert (array == [0, 1, 4]).all() and half == 0.5 and two == 2"
        )
        passed = other.check(solution, test)
        assert passed, passed
        assert not other.check(solution.replace("x *", "2 *"), test)
    assert "No module named 'numpy'" in sandbox.check(solution, test).detail


def test_packages_of_another_python(monkeypatch):
    monkeypatch.setattr(isolation.platform, "python_version_tuple", lambda: ("3", "99", "0"))
    with pytest.raises(RuntimeError, match="the packages are those of Python"):
        Sandbox(packages=["mpmath"]).probe()


def test_packages(sandbox):
    pytest.importorskip("mpmath")
    assert sandbox.run("import mpmath").status == "failed"
    with Sandbox(packages=["mpmath"]) as other:
        assert other.run("import mpmath; print(mpmath.mpf(1) / 2)").stdout == "0.5\n"
        passed = other.check("import math\ndef f(x): return x", ["import mpmath\nassert f(2) == mpmath.mpf(2)"])
        assert passed, passed


# -- tests with assertions ----------------------------------------------------------------------------------------------

VECTOR = """
class Vector:
    def __init__(self, x): self.x = x
    def __eq__(self, other): return self.x == other.x
    def __add__(self, other): return Vector(self.x + other.x)
    def __lt__(self, other): return self.x < other.x
    def __contains__(self, item): return item == self.x
    def __len__(self): return self.x
    def __iter__(self): return iter([self.x])
    def __getitem__(self, index): return self.x * index
    def __str__(self): return f'<{self.x}>'
    def __enter__(self): return self
    def __exit__(self, *error): self.x = 0
class Odd(ValueError): pass
"""


def honest():
    """Name, program and tests of each in ``honest.txt``; they may use what is above."""
    parts = (Path(__file__).parent / "honest.txt").read_text().split("#### ")[1:]
    for part in parts:
        name, text = part.split("\n", 1)
        solution, tests = text.split("==== tests\n")
        yield name, (VECTOR + solution, tests)


PASS = dict(honest())


def test_assertions(sandbox):
    results = sandbox.check_many([{"solution": solution, "tests": test} for solution, test in PASS.values()])
    assert {name: result for name, result in zip(PASS, results, strict=True) if not result} == {}


def test_assertions_fail(sandbox):
    jobs = [{"solution": "def f(*a, **k): raise TypeError('no')", "tests": test} for _, test in PASS.values()]
    assert [name for name, result in zip(PASS, sandbox.check_many(jobs), strict=True) if result] == []
    result = sandbox.check("def f(x): return x", ["assert f(1) == 1", "assert f(2) == 3", "assert f(3) == 3"])
    assert (result.status, result.detail) == ("failed", "test 2: AssertionError:")


def test_entry_points(sandbox):
    check = "def check(candidate):\n    assert candidate(2) == 4"
    assert sandbox.check("def double(x): return 2 * x", check, entry_point="double")
    assert not sandbox.check("def double(x): return 3 * x", check, entry_point="double")
    assert not sandbox.check("def other(x): return 2 * x", check, entry_point="double")
    # a name of a builtin is the builtin, unless it is asked for
    assert sandbox.check("def sum(a, b): return a + b", "assert sum(1, 2) == 3", entry_point="sum")
    assert not sandbox.check("def sum(a, b): return a + b", "assert sum(1, 2) == 3")


def test_setup_is_not_the_programs(sandbox):
    setup = "def helper(x):\n    return x + 1\ndef f(x):\n    pass"
    assert sandbox.check("def f(x): return x", "assert helper(f(1)) == 2", entry_point="f", setup=setup)
    assert not sandbox.check(
        "def f(x): return 9\ndef helper(x): return 2", "assert helper(f(1)) == 2", entry_point="f", setup=setup
    )


def test_operators_of_the_programs_classes_are_believed_by_name_only(sandbox):
    test = "one, two = Vector(1), Vector(2)\nassert one + two == Vector(3) and one < two and 2 in two and one != two"
    assert sandbox.check(VECTOR, test, own_operators=["Vector"])
    result = sandbox.check(VECTOR, test)
    assert not result and "operators are not believed" in result.detail


def test_tests_that_cannot_judge_are_errors(sandbox):
    for tests in (
        "assert f(",
        "import no_such_module\nassert f(1) == 1",
        "def test():\n    assert 1 == 1",
        "def helper():\n    assert f(1) == 1",
        "import threading\nassert f(threading.Lock())",
    ):
        result = sandbox.check("def f(x): return x", tests)
        assert result.status == "error", (tests, result)
    for tests in ([], "f(1)", ["assert f(1) == 1", "print(f(1))"]):
        with pytest.raises(ValueError, match=r"no tests|asserts nothing"):
            sandbox.check("def f(x): return x", tests)


# -- tests by output ---------------------------------------------------------------------------------------------------


def test_outputs(sandbox):
    program = "a, b = map(int, input().split())\nprint(a + b)"
    assert sandbox.check_outputs(program, [("1 2\n", "3"), ("10 -4", "6  \n\n")])
    result = sandbox.check_outputs(program, [("1 2", "3"), ("2 2", "5")])
    assert (result.status, result.detail) == ("failed", "case 2: another output")
    assert sandbox.check_outputs(program, [("one two", "3")]).detail == "case 1: exit code 1"
    assert sandbox.check_outputs("while True: pass", [("", "")], timeout=0.5).status == "timeout"
    assert sandbox.check_outputs("while True: print('x' * 9999)", [("", "x")]).status == "killed"
    with pytest.raises(ValueError, match="no cases"):
        sandbox.check_outputs(program, [])


def test_cases_have_processes_of_their_own(sandbox):
    program = (
        "import builtins, os\nprint(hasattr(builtins, 'seen'), os.path.exists('/proc/self'))\nbuiltins.seen = True"
    )
    assert sandbox.check_outputs(program, [("", "False True")] * 3)


def test_plain_output():
    assert plain_output("a  \nb\n\n") == ["a", "b"] == plain_output("a\nb")
    assert plain_output("a\n\nb") != plain_output("a\nb")
    assert plain_output(" a") != plain_output("a")


# -- isolation ---------------------------------------------------------------------------------------------------------


def test_refused_without_bubblewrap(monkeypatch):
    monkeypatch.setattr(isolation, "_bubblewraps", lambda: [])
    for use in (
        lambda box: box.run("pass"),
        lambda box: box.check("", "assert x"),
        lambda box: box.__enter__(),
        lambda box: box.run_many(["pass"]),
    ):
        with pytest.raises(RuntimeError, match="no sandbox: there is no bwrap; install bubblewrap") as caught:
            use(Sandbox())
        assert "\n" not in str(caught.value)


@pytest.fixture
def bubblewrap(monkeypatch):
    """Puts a script in the place of bubblewrap, where the sandbox's user can read it."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "bwrap")
        Path(folder).chmod(0o755)

        def replace(text):
            script.write_text(f"#!/bin/sh\n{text}\n")
            script.chmod(0o755)
            monkeypatch.setattr(isolation, "_bubblewraps", lambda: [str(script)])

        yield replace


def test_refused_where_bubblewrap_does_not_work(bubblewrap):
    bubblewrap("echo 'bwrap: No permissions to create new namespace' >&2\nexit 1")
    with pytest.raises(RuntimeError, match=r"No permissions to create new namespace.*user.max_user_namespaces"):
        Sandbox().probe()


def test_refused_where_bubblewrap_isolates_nothing(bubblewrap):
    """A program that runs is not enough: it must have tried to get out."""
    bubblewrap('while [ "${1#*/python}" = "$1" ]; do shift; done\nexec "$@"')
    with pytest.raises(RuntimeError, match="not isolated: "):
        Sandbox().probe()


@pytest.mark.skipif(os.geteuid() != 0, reason="for root only")
def test_root_needs_another_user(monkeypatch):
    monkeypatch.setattr(isolation.shutil, "which", lambda name, path=None: None)
    with pytest.raises(RuntimeError, match="no sandbox for root without setpriv"):
        Sandbox().probe()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"timeout": 0}, "timeout of the sandbox is invalid: 0"),
        ({"memory": -1}, "memory of the sandbox is invalid: -1"),
        ({"processes": 2}, "processes is invalid: 2"),
        ({"packages": ["no_such_package"]}, "'no_such_package' is not installed; pip install no_such_package"),
    ],
)
def test_settings(settings, says):
    with pytest.raises(ValueError, match=says):
        Sandbox(**settings)


def test_the_sandbox_dies_with_its_parent(sandbox):
    source = (
        "from nbg_lightning.scoring.sandbox.sandbox import Sandbox\n"
        "print('go', flush=True)\nSandbox(timeout=60).run('while True: pass')\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"go\n"
    children = wait_for(lambda: descendants(parent.pid) if len(descendants(parent.pid)) >= 3 else None)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert wait_for(lambda: not [pid for pid in children if alive(pid)])


def descendants(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = file.read().split()
    except OSError:
        return []
    return children + [below for child in children for below in descendants(child)]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def test_results_are_true_if_passed():
    assert SandboxResult("ok") and not SandboxResult("failed") and not SandboxResult("error")


def test_system_call_filter():
    assert system_call_filter("quantum") is None
    for machine in ("x86_64", "aarch64"):
        code = system_call_filter(machine)
        assert len(code) % 8 == 0 and len(code) < 8 * 4096


def test_a_folder_that_roots_sandbox_cannot_reach_is_named_with_its_mode(tmp_path, monkeypatch):
    """root's sandbox runs as another user, who cannot enter an environment below /root."""
    package = tmp_path / "venv" / "package"
    package.mkdir(parents=True)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for folder in (package, *package.parents):
        if folder.is_relative_to(tmp_path):
            folder.chmod(0o755)
    (tmp_path / "venv").chmod(0o700)
    said = _closed_to_others([package])
    assert f"{tmp_path / 'venv'} has mode 700; chmod o+x {tmp_path / 'venv'}" in said
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert _closed_to_others([package]) == "", "a user's sandbox runs as that user"
