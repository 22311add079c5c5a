"""Extraction of programs and calls from a model's text."""

from __future__ import annotations

import ast

from nbg_lightning import syntax
from nbg_lightning.construction.problems.calls import calls_in
from nbg_lightning.construction.problems.given_code import NotUsableError, Program, function_under_test
from nbg_lightning.construction.workflow import ModelResponse, UnusableError, readable
from nbg_lightning.scoring.fences import code_blocks


def signature(source: str, name: str) -> str:
    """The signature of a function, without annotations.

    Example:
        >>> signature("def f(x: int, *, y=1): return x", "f")
        'f(x, *, y=1)'
    """
    for node in syntax.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            arguments = node.args
            for each in ast.walk(arguments):
                if isinstance(each, ast.arg):
                    each.annotation = None
            return f"{name}({ast.unparse(arguments)})"
    raise ValueError(f"name is invalid: {name!r}; name a function that the program defines")


def python_blocks(text: str) -> list[str]:
    """The code blocks of a text that are marked as Python, or have no language."""
    return [block.code for block in code_blocks(text) if block.is_python or not block.language]


def code_in(text: str) -> str:
    """The code in a text's blocks; the whole text if it has none."""
    return "\n".join(python_blocks(text)) or text


def read_program(response: ModelResponse, topic: str) -> Program:
    """Read a program and its calls from a model's response.

    Args:
        response: has the function in its first code block and calls in the others.
        topic: the topic of the program.

    Raises:
        UnusableError: ``unparsable``, or as raised by `readable`.
    """
    text = readable(response)
    blocks = python_blocks(text)
    if not blocks:
        raise UnusableError("unparsable", f"no code block: {text[:80]!r}")
    source, *calls = blocks
    try:
        name = function_under_test(source, calls)
    except NotUsableError as error:
        raise UnusableError("unparsable", str(error)) from error
    return Program(name, source.strip() + "\n", "", tuple(calls_in("\n".join(calls), name)), f"written on: {topic}")
