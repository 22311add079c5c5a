"""Model-written JSON and Python: values, or a single kind of failure, in linear time."""

import ast
import time

import pytest

from nbg_lightning.scoring.bounded import MAX_DEPTH, json_objects, json_value, literal, python_expression


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}), ('"a\nb"', "a\nb"), (" 7 ", 7), ('"\\ud83d\\ude00"', "😀")],
)
def test_json_values(text, value):
    assert json_value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1,]",
        "NaN",
        "-Infinity",
        "1e999",
        '{"a": 1, "a": 2}',
        '[{"b": {"a": 1, "a": 1}}]',
        '"\\ud800"',
        '{"\\udc00": 1}',
        "9" * 5000,
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "[" * 200_000,
        '"' + "a" * 1_000_000 + '"',
    ],
    ids=range(14),
)
def test_no_json_value(text):
    with pytest.raises(ValueError, match=r"."):
        json_value(text)


def test_numbers_that_are_not_finite_for_who_refuses_them():
    assert json_value("[1e999, -Infinity]", finite=False) == [float("inf"), -float("inf")]
    assert json_objects('{"a": 1e999}') == [] and json_objects('{"a": 1e999}', finite=False) == [{"a": float("inf")}]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"a": 1} and {"a": 2}', [{"a": 1}, {"a": 2}]),
        ('{"a": {"b": 1}}', [{"a": {"b": 1}}]),
        ('{not {"a": 1}}', [{"a": 1}]),
        ('a " quote\n{"a": "}"}', [{"a": "}"}]),
        ('{"a": 1} {"a": ', [{"a": 1}]),
        ("{x}", []),
        ("", []),
    ],
)
def test_json_objects(text, values):
    assert json_objects(text) == values


@pytest.mark.parametrize("piece", ["{", "}", "{}", '{"a": ', '{"a": {', '"', '{"', "\\", '{"a": 1, "a": 2}', "{ {} "])
def test_objects_are_found_in_linear_time(piece):
    text = piece * (900_000 // len(piece))
    begin = time.process_time()
    json_objects(text + "}" * 100)
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("text", ["", "a = 1", "f(", "1; 2", "(" * 5000, "\x00", "a." * 50_000, "'\ud800'"])
def test_no_expression(text):
    assert python_expression(text) is None


@pytest.mark.parametrize("text", ["{[]: 1}", "x", "f()", "[x]", "1 + y", "-" * 3000 + "1"])
def test_no_literal(text):
    node = python_expression(text)
    with pytest.raises(ValueError, match="not a literal"):
        literal(node if node is not None else ast.Name("x"))


def test_literals():
    assert literal(python_expression(" {'a': [1, (2.5, None)]} ")) == {"a": [1, (2.5, None)]}
