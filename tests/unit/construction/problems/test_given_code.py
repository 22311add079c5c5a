"""Functions from modules and JSON lines as self-contained programs."""

import json

import pytest

from nbg_lightning.construction.problems.given_code import (
    CodeJsonLines,
    ModuleFunctions,
    NotUsableError,
    Program,
    function_under_test,
    identity_of,
)

MODULE = '''
"""A module."""
import re as regex
from math import gcd
from .other import helper

LIMIT = 3
_pattern = regex.compile("a+")


class Error(ValueError):
    """Mine."""


def _half(x):
    """Half of it."""
    return x // 2


def clean(text, limit=LIMIT):
    """Removes every a.

    >>> clean("banana")
    'bnn'
    >>> len("x")
    1
    """
    if _half(len(text)) > limit:
        raise Error("too long")
    return _pattern.sub("", text)


def shadow(unrelated):
    other_function = unrelated
    gcd = 3
    return other_function + gcd


def other_function():
    value = 1
    return value


def relative(x):
    y = helper(x)
    return y


def unknown(x):
    y = missing(x)
    return y


def tiny(): return 1
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "given_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "given_module"


def test_a_function_with_all_it_needs(module):
    found = {p.name if isinstance(p, Program) else p[0]: p for p in ModuleFunctions([module]).programs()}
    program = found["clean"]
    names = {}
    exec(program.source, names)
    assert names["clean"]("banana") == "bnn"
    assert "Half of it" not in program.source
    assert "Removes" not in program.source
    assert "other_function" not in program.source
    assert program.description == "Removes every a."
    assert program.tests == ('clean("banana")',)
    assert program.origin == "given_module.clean"


def test_local_names_are_not_the_module_s(module):
    found = {p.name: p for p in ModuleFunctions([module]).programs() if isinstance(p, Program)}
    assert "def other_function" not in found["shadow"].source
    assert "import" not in found["shadow"].source


def test_what_cannot_stand_alone_says_why(module):
    reasons = dict(p for p in ModuleFunctions([module]).programs() if isinstance(p, tuple))
    assert "relative import" in reasons["given_module.relative"]
    assert "needs 'missing', which is not in its module" in reasons["given_module.unknown"]
    assert reasons["given_module.tiny"] == "2 lines"


def test_functions_of_the_standard_library_run(tmp_path):
    source = ModuleFunctions(["bisect", "textwrap", "statistics"], exclude=["textwrap.wrap"])
    programs = [p for p in source.programs() if isinstance(p, Program)]
    assert {"bisect.bisect_left", "textwrap.dedent", "statistics.median"} <= {p.origin for p in programs}
    assert "textwrap.wrap" not in {p.origin for p in programs}
    for program in programs:
        names = {}
        exec(program.source, names)
        assert callable(names[program.name])
    assert identity_of(source) == identity_of(source)


@pytest.mark.parametrize(
    ("modules", "message"),
    [([], "has no modules"), (["no_such_module_x"], "there is no module"), (["math"], "not written in Python")],
)
def test_modules_that_cannot_be_read(modules, message):
    with pytest.raises(ValueError, match=message):
        ModuleFunctions(modules)


def test_rows_with_programs(tmp_path):
    rows = [
        {
            "task_id": 7,
            "code": "def g(): pass\r\ndef f(x): return x",
            "text": "Same.",
            "test_list": ["assert f(1) == 1"],
        },
        {"code": "def broken(:", "text": "?"},
        {"code": "x = 1"},
        {"code": "  "},
        {"other": 1},
        {"code": "def a(): pass\ndef b(): pass", "test_list": ["assert a() is None", "print(b())"]},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(CodeJsonLines(str(file)).programs())
    assert found[0] == Program("f", "def g(): pass\ndef f(x): return x", "Same.", ("assert f(1) == 1",), "7")
    assert [p[1] for p in found[1:3]] == ["no Python, or too long or too deep", "defines no function"]
    assert found[1][0] == f"{file}:2"
    assert found[4][1] == "no code in 'code'; there are other"
    assert (found[5].name, found[5].tests) == ("a", ("assert a() is None",))


def test_a_prompt_that_the_code_goes_on_from(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(
        json.dumps({"prompt": "def f(x):\n", "canonical_solution": "    return x\n", "entry_point": "f"}) + "\n"
    )
    [program] = CodeJsonLines(str(file), "canonical_solution", prompt_field="prompt").programs()
    assert program.source == "def f(x):\n    return x\n"


def test_the_function_under_test():
    assert function_under_test("def _h(): pass\ndef f(): pass", []) == "f"
    with pytest.raises(NotUsableError, match="no Python"):
        function_under_test("(" * 100_000, [])
