"""Imports within a package are acyclic too: no files of a package import each other, directly or indirectly.

Imports in functions count, and those for type checkers: a type that two files need stands below both, or is a protocol where it
is used.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath

import pytest

PACKAGE = "nbg_lightning"


def in_package(library: Mapping[str, str]) -> dict[PurePosixPath, str]:
    """The files by their path in the package; callbacks and datamodules are next to it, and belong to it."""
    paths = {PurePosixPath(file): text for file, text in library.items()}
    return {path if path.parts[0] == PACKAGE else PACKAGE / path: text for path, text in paths.items()}


def module(path: PurePosixPath) -> str:
    """The name by which a file is imported."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.Module, names: Mapping[str, PurePosixPath]) -> Iterator[str]:
    """The modules of the library that a file imports; a name is a module where there is one, else its package is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            whole = [f"{node.module}.{each.name}" for each in node.names]
            yield from (name for name in whole if name in names)
            if node.module in names and not all(name in names for name in whole):
                yield node.module


def circle(files: Mapping[PurePosixPath, str], room: str) -> list[str] | None:
    """Files of a room that import each other in a circle; None if there are none."""
    names = {module(path): path for path in files}
    inside = {name: path for name, path in names.items() if name.startswith(f"{room}.")}
    arrows = {name: set(imported(ast.parse(files[path]), names)) & inside.keys() for name, path in inside.items()}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return [name.removeprefix(f"{PACKAGE}.") for name in error.args[1]]
    return None


def rooms(files: Mapping[PurePosixPath, str]) -> list[str]:
    return sorted({f"{PACKAGE}.{path.parts[1]}" for path in files if len(path.parts) > 2})


def test_no_room_has_a_circle_of_files(library: dict[str, str]) -> None:
    files = in_package(library)
    assert {f"{PACKAGE}.core", f"{PACKAGE}.callbacks", f"{PACKAGE}.scoring"} <= set(rooms(files))
    assert {room: found for room in rooms(files) if (found := circle(files, room)) is not None} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from nbg_lightning.core.b import B",
        "from nbg_lightning.core import b",
        "import nbg_lightning.core.b",
        "def f():\n    from nbg_lightning.core.b import B",
        "if TYPE_CHECKING:\n    from nbg_lightning.core.b import B",
    ],
)
def test_circles_are_found(line: str) -> None:
    files = {
        "a.py": line,
        "b.py": "from nbg_lightning.core.deep.c import C",
        "deep/c.py": "import nbg_lightning.core.a",
    }
    found = circle(
        {PurePosixPath("nbg_lightning/core") / name: text for name, text in files.items()}, "nbg_lightning.core"
    )
    assert found is not None
    assert set(found) == {"core.a", "core.b", "core.deep.c"}


def test_a_line_of_files_is_no_circle() -> None:
    files = {
        "a.py": "from nbg_lightning.core.b import B",
        "b.py": "import torch",
        "__init__.py": "import nbg_lightning.core.a",
    }
    paths = {PurePosixPath("nbg_lightning/core") / name: text for name, text in files.items()}
    assert circle(paths, "nbg_lightning.core") is None
