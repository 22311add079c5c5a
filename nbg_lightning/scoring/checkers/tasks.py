"""Locating reasoning-gym's tasks: a checker needs one module of a hundred, and its imports.

Importing the whole package takes 110 MB, for which each child of the server gets page tables, and copies what it touches.
The sources are read, not imported, so that a task's imports are known before a sandbox runs them.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import sys
import types
from dataclasses import dataclass
from pathlib import Path

from nbg_lightning import syntax

PACKAGE = "reasoning_gym"


@dataclass(frozen=True)
class TaskModule:
    """A module that registers a task.

    Attributes:
        name: its import path.
        light: whether it imports only the standard library and modules of the package, but not numpy or sympy.
    """

    name: str
    light: bool


@functools.lru_cache(maxsize=1024)
def find_task(task: str) -> TaskModule | None:
    """The module of a task, by the name in its ``register_dataset``; None if no module of the package has it.

    Example:
        >>> find_task("countdown")
        TaskModule(name='reasoning_gym.games.countdown', light=False)
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    quoted = repr(task)[1:-1].encode()
    for source in sorted(folder.glob("*/**/*.py")):
        text = source.read_bytes()
        if quoted in text and task in _registered(tree := syntax.parse(text)):
            place = source.relative_to(folder).with_suffix("")
            return TaskModule(".".join((PACKAGE, *place.parts)), not _foreign(tree))
    return None


def load_task(task: str) -> None:
    """Import the module of a task, with its packages as bare namespaces; the whole package if there is no such module.

    Modules of the package imported by name are found as usual; names defined in its ``__init__`` are missing.
    """
    module = find_task(task)
    if module is None:
        _complete()
        return
    for end, letter in enumerate(module.name):
        if letter == "." and module.name[:end] not in sys.modules:
            _place(module.name[:end])
    importlib.import_module(module.name)


def _registered(tree: ast.Module) -> set[object]:
    """Names of the tasks registered by a module."""
    constants: dict[str, object] = {}
    names: set[object] = set()
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
                constants[name] = value
            case ast.Expr(value=ast.Call(func=ast.Name(id="register_dataset"), args=[ast.Constant(value=value), *_])):
                names.add(value)
            case ast.Expr(value=ast.Call(func=ast.Name(id="register_dataset"), args=[ast.Name(id=name), *_])):
                names.add(constants.get(name))
    return names


def _foreign(tree: ast.Module) -> set[str]:
    """Packages imported by a module, apart from the standard library and its own."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - {PACKAGE}


def _place(package: str) -> None:
    """Create a package as a bare namespace of its modules, without running its ``__init__``, which imports them all."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}")
    module = types.ModuleType(package)
    module.__spec__, module.__file__, module.__package__ = spec, spec.origin, package
    module.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[package] = module
    parent, _, name = package.rpartition(".")
    if parent:
        setattr(sys.modules[parent], name, module)
    _placed.append(module)


def _complete() -> None:
    """Import the whole package, some of whose packages may be bare namespaces."""
    while _placed:
        module = _placed.pop()
        assert module.__spec__ is not None
        if module.__spec__.loader is not None:  # a folder without __init__ has none
            module.__spec__.loader.exec_module(module)
    importlib.import_module(PACKAGE)


_placed: list[types.ModuleType] = []
