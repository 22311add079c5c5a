"""Parsers for model-written text with bounds on size, depth and digits, and a single kind of failure."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

from nbg_lightning import syntax

MAX_PYTHON = 100_000  # characters: the parser is linear below, and no program that answers a question is longer
MAX_PYTHON_LINE = 10_000  # characters: a dotted name takes time quadratic in its length
MAX_JSON = 1_000_000  # characters
MAX_DEPTH = 64  # of JSON
_UNPARSABLE = (
    SyntaxError,
    ValueError,
    RecursionError,
    MemoryError,
)  # CPython raises MemoryError for "nested too deeply"


def python_tree(source: str) -> ast.Module | None:
    """Syntax tree of Python source; None if it is not Python, too long, or nested too deeply.

    Example:
        >>> python_tree("f(") is None, python_tree("f()").body[0].value.func.id
        (True, 'f')
    """
    if len(source) > MAX_PYTHON or max(map(len, source.split("\n"))) > MAX_PYTHON_LINE:
        return None
    with warnings.catch_warnings():  # a model's "\d" should not warn the user
        warnings.simplefilter("ignore")
        try:
            return syntax.parse(source)
        except _UNPARSABLE:
            return None


def first_python_error(source: str) -> int | None:
    """Number of lines before the first one that is not Python; None if all of it is, 0 if it cannot be told."""
    if python_tree(source) is not None:
        return None
    lines = source.split("\n")
    if len(source) > MAX_PYTHON or max(map(len, lines)) > MAX_PYTHON_LINE:
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            syntax.parse(source)
        except SyntaxError as error:
            return max(0, min(len(lines), (error.lineno or 1) - 1))
        except _UNPARSABLE:
            pass
    return 0


def python_expression(source: str) -> ast.expr | None:
    """Syntax tree of a Python expression, see `python_tree`."""
    tree = python_tree(source.strip())
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return None
    return tree.body[0].value


def literal(node: ast.expr) -> Any:
    """The value of a literal.

    Raises:
        ValueError: it is not one, or cannot be created (such as a list as a key).
    """
    try:
        return ast.literal_eval(node)
    except (*_UNPARSABLE, TypeError) as error:
        raise ValueError(f"not a literal: {type(error).__name__}") from None


def json_value(text: str, finite: bool = True) -> Any:
    """The value of a model-written JSON text; raw line breaks in strings are accepted.

    Args:
        text: a single value.
        finite: refuse NaN, infinities and ``1e999``; otherwise they are floats, for callers with their own checks.

    Raises:
        ValueError: not JSON, too long, too deep, a duplicate key in an object, a non-finite number, or a lone
            surrogate.

    Example:
        >>> json_value('{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
    """
    if len(text) > MAX_JSON:
        raise ValueError(f"{len(text):,} characters, at most {MAX_JSON:,} are read")
    try:
        value = (_DECODER if finite else _ANY_NUMBER).decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_json(value)
    return value


def json_objects(text: str, finite: bool = True) -> list[dict[str, Any]]:
    """All JSON objects in a text that are not inside of another one, in order; in linear time.

    Example:
        >>> json_objects('Set {x}: {"a": {"b": 1}} and {"a": 2}')
        [{'a': {'b': 1}}, {'a': 2}]
    """
    if len(text) > MAX_JSON:
        return []
    found: list[tuple[int, dict[str, Any]]] = []
    spans = _brace_spans(text)
    for _ in range(_MAX_WRAPPERS):
        inner: list[tuple[int, int]] = []
        for begin, end in _outermost(spans):
            try:
                found.append((begin, json_value(text[begin:end], finite)))
            except ValueError:
                inner.append((begin, end))
        spans = _inside(spans, inner)
        if not spans:
            break
    return [value for _, value in sorted(found, key=lambda each: each[0])]


_MAX_WRAPPERS = 8  # levels of non-JSON braces around an object


_STRUCTURE = re.compile(r'[{}"\\\n]')


def _brace_spans(text: str) -> list[tuple[int, int]]:
    """Begin and end of balanced braces, sorted by begin; braces in strings are ignored."""
    spans: list[tuple[int, int]] = []
    open_braces: list[int] = []
    in_string, escaped = False, -1
    for found in _STRUCTURE.finditer(text):
        position, character = found.start(), found[0]
        if position == escaped:
            continue
        if character == "\n":
            in_string = False  # a quotation mark in prose must not hide what follows
        elif in_string:
            escaped = position + 1 if character == "\\" else -1
            in_string = character != '"'
        elif character == '"':
            in_string = bool(open_braces)
        elif character == "{":
            open_braces.append(position)
        elif character == "}" and open_braces:
            spans.append((open_braces.pop(), position + 1))
    return sorted(spans)


def _outermost(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    last = 0
    for begin, end in spans:
        if begin >= last:
            last = end
            yield begin, end


def _inside(spans: list[tuple[int, int]], outer: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans inside of some of the outer ones, which are excluded; both are sorted."""
    found = []
    places = iter(outer)
    current = next(places, None)
    for begin, end in spans:
        while current is not None and begin >= current[1]:
            current = next(places, None)
        if current is not None and current[0] < begin:
            found.append((begin, end))
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


_DECODER = json.JSONDecoder(
    parse_constant=_finite, parse_float=_finite, object_pairs_hook=_unique, strict=False
)  # JSON has no NaN or Infinity
_ANY_NUMBER = json.JSONDecoder(object_pairs_hook=_unique, strict=False)


def _check_json(value: Any) -> None:
    waiting = [(value, 1)]
    while waiting:
        each, depth = waiting.pop()
        if isinstance(each, str):
            each.encode("utf-8")  # UnicodeEncodeError is a ValueError
        elif isinstance(each, (dict, list)):
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
            parts = [*each, *each.values()] if isinstance(each, dict) else each
            waiting += [(part, depth + 1) for part in parts]
