"""Attributes are declared: no ``hasattr``, and no ``getattr`` with a default, except on third-party objects.

``getattr(config, field.name)`` and ``getattr(torch, dtype)`` read by its name what is declared, and fail where it is not.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest

# How often a file asks an object of others whether it has something.
OF_OTHERS = {
    "nbg_lightning/chat/bounded_jinja.py": (4, "functions and values of a template"),
    "nbg_lightning/chat/encoder.py": (1, "a tokenizer of transformers, fast or slow"),
    "nbg_lightning/class_source.py": (2, "nodes of Python's syntax"),
    "nbg_lightning/construction/problems/given_code.py": (1, "how Python found a module"),
    "nbg_lightning/construction/problems/mutants.py": (1, "nodes of Python's syntax"),
    "nbg_lightning/construction/provenance.py": (1, "arguments of a class that a user has written"),
    "nbg_lightning/core/initialize.py": (1, "modules of torchtitan and of torch"),
    "nbg_lightning/core/weight_sources.py": (1, "entries of torch's checkpoints"),
    "nbg_lightning/data/sources/parquet.py": (2, "errors of pyarrow"),
    "nbg_lightning/data/tokenizer.py": (1, "a tokenizer of transformers, fast or slow"),
    "nbg_lightning/environments/methods.py": (1, "methods of an object that a user has written"),
    "nbg_lightning/environments/tools.py": (1, "the name of a callable that a user has written"),
    "nbg_lightning/import_path.py": (1, "a module that a text names"),
    "nbg_lightning/planning/simulate.py": (1, "what torch's memory tracker counts by"),
    "nbg_lightning/scoring/sandbox/guard.py": (3, "values of the tests and of the program"),
    "nbg_lightning/scoring/sandbox/judge.py": (2, "values of the tests"),
    "nbg_lightning/scoring/sandbox/link.py": (3, "values of the tests"),
    "nbg_lightning/scoring/sandbox/plain.py": (2, "types of numpy"),
    "nbg_lightning/scoring/sandbox/program.py": (2, "values of the program"),
}


class Asked(NamedTuple):
    """A question whether an object has something."""

    line: int
    text: str


def asked(text: str) -> Iterator[Asked]:
    """The ``hasattr`` and ``getattr`` with a default of a file, but of modules that it imports."""
    tree = ast.parse(text)
    modules = {
        (each.asname or each.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for each in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
            continue
        if not (node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3)):
            continue
        if not (isinstance(node.args[0], ast.Name) and node.args[0].id in modules):
            yield Asked(node.lineno, ast.unparse(node))


def fixed_names(text: str) -> Iterator[Asked]:
    """The ``getattr`` with a name that is written there, which hides from a type checker what it reads."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call) and len(node.args) == 2]
    for call in calls:
        if ast.unparse(call.func) == "getattr" and isinstance(call.args[1], ast.Constant):
            yield Asked(call.lineno, ast.unparse(call))


def test_only_objects_of_others_are_asked_what_they_have(library: dict[str, str]) -> None:
    found = {file: list(asked(text)) for file, text in library.items()}
    counts = Counter({file: len(questions) for file, questions in found.items() if questions})
    assert counts == {file: number for file, (number, _) in OF_OTHERS.items()}, {
        file: found[file] for file in counts if counts[file] != OF_OTHERS.get(file, (0, ""))[0]
    }


def test_what_has_a_name_is_read_by_it(library: dict[str, str]) -> None:
    assert {file: found for file, text in library.items() if (found := list(fixed_names(text)))} == {}


def test_engines_teachers_and_rewards_are_asked_by_their_types() -> None:
    """Their rooms, and the room that uses all three, ask no object at all."""
    rooms = tuple(
        f"nbg_lightning/{room}/" for room in ("engines", "evaluation", "modules", "rewards", "rl", "teachers")
    )
    assert [file for file in OF_OTHERS if file.startswith((*rooms, "callbacks/", "datamodules/"))] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hasattr(engine, 'sync')", 1),
        ("getattr(engine, 'sync', None)", 1),
        ("getattr(engine, name)", 0),
        ("import torch\ngetattr(torch, 'float8', None)", 0),
        ("import torch.nn as nn\nhasattr(nn, 'RMSNorm')", 0),
        ("engine.getattr(1, 2, 3)", 0),
    ],
)
def test_questions_are_found(text: str, expected: int) -> None:
    assert len(list(asked(text))) == expected
