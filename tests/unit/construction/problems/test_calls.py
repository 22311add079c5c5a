"""Calls collected, varied, run and turned into tests."""

import ast

import pytest

from nbg_lightning.construction.problems.calls import (
    as_test,
    calls_in,
    differs,
    is_fair,
    read_call,
    run_calls,
    varied_calls,
)
from nbg_lightning.scoring.sandbox.sandbox import Sandbox

MEDIAN = """
def median(data, *, low=False):
    data = sorted(data)
    if not data:
        raise LookupError("no data")
    middle = len(data) // 2
    if len(data) % 2 or low:
        return data[middle]
    return (data[middle - 1] + data[middle]) / 2
"""


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(timeout=5, workers=2) as found:
        yield found


def test_calls_with_literal_arguments():
    assert read_call("f( 1,[2] , k={'a': -1})", "f") == "f(1, [2], k={'a': -1})"
    for text in (
        "f(x)",
        "g(1)",
        "f(*[1])",
        "f(**{'a': 1})",
        "f(1",
        "f(g(1))",
        "f",
        "",
        f"f({'1' * 400})",
        "f.f(1)",
        "\0",
    ):
        assert read_call(text, "f") is None


def test_calls_in_code():
    text = "assert f(1) == 2\nassert set(f([1, 2])) == {1}\nnonsense (\nf(1)\nassert f(x) == g(3)\n>>> f(9)"
    assert calls_in(text, "f") == ["f(1)", "f([1, 2])"]


def test_variations_are_a_function_of_seed_and_program():
    known = ["median([1, 2, 3])"]
    first = varied_calls(MEDIAN, "median", known, 30, 0)
    assert len(first) == len(set(first)) == 30
    assert first == varied_calls(MEDIAN, "median", known, 30, 0)
    assert first != varied_calls(MEDIAN, "median", known, 30, 1)
    assert known[0] not in first
    assert all(read_call(call, "median") == call for call in first)
    assert any("low=" in call for call in first)  # the optional argument too


def test_without_a_known_call_values_of_all_kinds():
    found = varied_calls("def f(a, b, c=1): pass", "f", [], 40, 0)
    counts = {len(ast.parse(call).body[0].value.args) for call in found}
    assert counts == {2, 3}
    assert varied_calls("def f(): pass", "f", [], 40, 0) == ["f()"]
    assert all("k=" in call for call in varied_calls("def f(*, k): pass", "f", [], 10, 0))


def test_what_calls_give(sandbox):
    calls = ["median([1, 3])", "median([])", "median(5)", "median(['a', 'b'], low=True)"]
    broken = MEDIAN.replace("/ 2", "/ 0")
    endless = MEDIAN.replace("    data = sorted(data)", "    while data: pass")
    found = run_calls(sandbox, [MEDIAN, broken, endless, "1 / 0", "def f("], "median", calls, 3)
    assert found[0] == [
        ("value", "2.0", ""),
        ("raises", "LookupError", ""),
        ("raised", "TypeError", ""),
        ("value", "'b'", ""),
    ]
    assert found[1][0] == ("raised", "ZeroDivisionError", "")
    assert found[2][0] == ("none", "timeout", "")
    assert found[3] == [("stillborn", "ZeroDivisionError", "")] * 4
    assert found[4] == [("stillborn", "SyntaxError", "")] * 4


def test_what_a_program_prints_is_no_outcome(sandbox):
    source = "import sys, os\nprint('[0, \"value\", \"1\"]')\ndef f(x):\n    print('forged')\n    os.write(1, b'x')\n    return x"
    [[outcome]] = run_calls(sandbox, [source], "f", ["f(3)"])
    assert outcome in (
        ("value", "3", ""),
        ("none", "ok", ""),
    )  # its own output may spoil the line: then it has no outcome


def test_values_that_cannot_be_written_down(sandbox):
    source = "class C: pass\ndef f(x): return {'o': C(), 'n': float('nan'), 'i': iter([]), 's': {1, 2}}[x]"
    [found] = run_calls(sandbox, [source], "f", ["f('o')", "f('n')", "f('i')", "f('s')"])
    assert [kind for kind, *_ in found] == ["opaque", "opaque", "opaque", "value"]


def test_tests_that_are_made_hold_and_tell(sandbox):
    calls = ["median([1, 3])", "median([])", "median([True])", "median([0.1, 0.2])", "median(['b', 'a'], low=True)"]
    [outcomes] = run_calls(sandbox, [MEDIAN], "median", calls)
    tests = [as_test(call, outcome) for call, outcome in zip(calls, outcomes, strict=True)]
    assert tests[2] == "assert median([True]) is True"
    assert sandbox.check(MEDIAN, tests, "median")
    assert not sandbox.check(MEDIAN.replace("raise LookupError", "return print"), tests, "median")
    assert not sandbox.check(MEDIAN.replace("LookupError", "OSError"), tests, "median")
    assert not sandbox.check("def median(data, *, low=False): return None", tests, "median")


def test_arguments_that_a_call_changes(sandbox):
    source = "def order(items, *, key=None):\n    items.sort(key=key)"
    [outcomes] = run_calls(sandbox, [source], "order", ["order([2, 1])", "order([1, 2])", "order([], key=None)"])
    assert outcomes == [("value", "None", "([1, 2],)"), ("value", "None", ""), ("value", "None", "")]
    tests = [as_test("order([2, 1], key=None)", outcomes[0])]
    assert sandbox.check(source, tests, "order")
    assert not sandbox.check("def order(items, *, key=None): return None", tests, "order")
    assert differs(("value", "None", ""), outcomes[0])
    assert differs(("value", "None", "([2, 1],)"), outcomes[0])
    assert not is_fair(("value", "None", "([0.1234567890123],)"))


def test_fair_values():
    assert is_fair(("value", "{'a': [1, 2.5]}", ""))
    assert is_fair(("value", "0.1234567890123", ""))  # tests of one number allow for rounding
    assert not is_fair(("value", "(0.1234567890123,)", ""))
    assert not is_fair(("value", "1e400", ""))
    assert not is_fair(("value", repr("x" * 600), ""))
    assert not is_fair(("opaque", "", ""))


def test_differences():
    assert not differs(("value", "{1, 2}", ""), ("value", "{2, 1}", ""))
    assert differs(("value", "[1, 2]", ""), ("value", "[2, 1]", ""))
    assert differs(("raised", "TypeError", ""), ("value", "1", ""))
    assert not differs(("raised", "ValueError", ""), ("raises", "ValueError", ""))
    assert differs(("value", "1", ""), ("raises", "ValueError", ""))
