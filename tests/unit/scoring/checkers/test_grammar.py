"""Expressions are answers; programs are not, however they are written."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.scoring.checkers.grammar import refusal


@pytest.mark.parametrize(
    "text",
    [
        "1", "(3 + 4) * 2 - 5 / 2", "x**2/2 + C", "-log(x) + sqrt(3)*atan(x/2)", "Symbol ('x')*Integer (2 )",
        "Function ('f')(Symbol ('x'))", "[[0, 1], [1, 0]]", "['A', 'B']", "{'a': 1}", "x if y else z", "1 < 2 and 3",
        "Add(x, 1, evaluate=False)", "from sympy import *", "a[0]", "_", "wrong",
    ],
)  # fmt: skip
def test_expressions(text):
    assert refusal(text) is None
    assert refusal(text.encode()) is None


@pytest.mark.parametrize("text", ["the answer is 5", "2x + 1", "(((", "\x00", "", "3 +", "f(", "'open"])
def test_what_is_not_python_is_left_to_the_checker(text):
    assert refusal(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("().__class__", "'__class__' is an attribute"),
        ("x.real", "'real' is an attribute"),
        ("eval('1')", "'eval' is not a function of mathematics"),
        ("integrate(x, x)", "'integrate' is not a function of mathematics"),
        ("f(1)(2)", "it calls the result of an expression"),
        ("[print][0](1)", "it calls the result of an expression"),
        ("Function('f')(getattr)(1)", "it calls the result of an expression"),
        ("max([1], key=exit)", "'key' is a keyword argument"),
        ("sin(*x)", "Starred"),
        ("__builtins__", "a name of Python's own"),
        ("lambda: 1", "Lambda"),
        ("[x for x in y]", "ListComp"),
        ("f'{1}'", "JoinedStr"),
        ("(y := 1)", "NamedExpr"),
        ("import os", "Import"),
        ("while True: pass", "While"),
        ("x = 1", "Assign"),
        ("from sympy import *\nimport os", "ImportFrom"),
    ],
)
def test_programs(text, says):
    assert says in refusal(text)


def test_trees():
    assert refusal(ast.parse("x + 1", mode="eval")) is None
    assert "attribute" in refusal(ast.parse("x.a", mode="eval"))
    assert refusal(ast.parse("x = 1")) is not None


@pytest.mark.parametrize("text", ["'a' * 10", "10 * [0]", "1 + (1, 2)", "{1} | x", "x % b'a'", "'%99999d' % 1"])
def test_sequences_are_operands_only_where_they_may_be(text):
    assert refusal(text) is None
    assert "its operand is no number" in refusal(text, sequences=False)


@pytest.mark.parametrize("text", ["[1, 2, 3]", "'text'", "(1 + 2) * 3", "x**2", "sin(x)"])
def test_sequences_by_themselves_are_no_operands(text):
    assert refusal(text, sequences=False) is None


CALLS = ("eval", "exec", "getattr", "open", "print", "S", "sympify", "lambdify", "type", "breakpoint", "__import__")
VALUES = st.sampled_from(["1", "x", "[2]", "'text'", "(3)", "sin(1)"])
PROGRAMS = st.one_of(
    st.builds("{}({})".format, st.sampled_from(CALLS), VALUES), st.builds("({}).a{}".format, VALUES, VALUES)
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.lists(VALUES, max_size=4),
    PROGRAMS,
    st.sampled_from(["[{}]", "({}) + 1", "sin({})", "{} or 1", "1 if {} else 2"]),
)
def test_a_program_is_found_wherever_it_stands(others, program, around):
    text = around.format(" + ".join([*others, around.format(program)]))
    try:
        ast.parse(text)
    except SyntaxError:
        return
    assert refusal(text) is not None
