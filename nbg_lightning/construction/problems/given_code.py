"""Existing functions as a basis for coding problems: from installed modules, and from JSON lines."""

from __future__ import annotations

import ast
import builtins
import doctest
import hashlib
import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbg_lightning import syntax
from nbg_lightning.data.sources import JsonLines, JsonLinesPart, line_number
from nbg_lightning.scoring.bounded import python_tree


@dataclass(frozen=True)
class Program:
    """A function with everything it needs, and metadata.

    Attributes:
        name: name of the function under test.
        source: a complete program that defines it.
        description: what it does, if documented.
        tests: assertions that came with it; may be empty.
        origin: its origin, for display.
    """

    name: str
    source: str
    description: str = ""
    tests: tuple[str, ...] = ()
    origin: str = ""

    @property
    def key(self) -> str:
        """Hex digest of name and source: equal functions are one item."""
        return hashlib.blake2b(
            f"{self.name}\n{self.source}".encode("utf-8", "surrogatepass"), digest_size=16
        ).hexdigest()


class NotUsableError(ValueError):
    """Code that cannot be turned into a program; the message gives the reason in one line."""


@dataclass(kw_only=True)
class CodeSource(ABC):
    """Base class of sources of programs."""

    @abstractmethod
    def programs(self) -> Iterator[Program | tuple[str, str]]:
        """Programs in a fixed order, or location and reason for unusable code.

        Raises:
            FileNotFoundError, ValueError: the source cannot be read.
        """


@dataclass
class ModuleFunctions(CodeSource):
    """Public functions of installed modules, each with the other definitions of its module that it needs.

    A function is usable as a program if everything it needs is in its module's own Python source or in the module's imports
    from the standard library.

    Args:
        modules: module names, such as ``textwrap`` or ``bisect``.
        minimum_lines, maximum_lines: size of the function without its docstring.
        maximum_program_lines: size of the function with everything it needs.
        exclude: names to exclude, such as ``textwrap.wrap``.
    """

    modules: list[str]
    minimum_lines: int = 3
    maximum_lines: int = 60
    maximum_program_lines: int = 200
    exclude: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.modules:
            raise ValueError("ModuleFunctions has no modules; name some, such as textwrap")
        for name in self.modules:
            _module_file(name)

    def programs(self) -> Iterator[Program | tuple[str, str]]:
        for module in self.modules:
            tree = syntax.parse(_module_file(module).read_text("utf-8"))
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    place = f"{module}.{node.name}"
                    if place in self.exclude:
                        continue
                    try:
                        yield self._program(tree, node, place)
                    except NotUsableError as error:
                        yield place, str(error)

    def _program(self, tree: ast.Module, function: ast.FunctionDef, place: str) -> Program:
        description = ast.get_docstring(function) or ""
        lines = len(ast.unparse(without_docstrings(function)).splitlines())
        if not self.minimum_lines <= lines <= self.maximum_lines:
            raise NotUsableError(f"{lines} lines")
        program = without_docstrings(ast.Module(body=_needed(tree, function), type_ignores=[]))
        source = ast.unparse(program)
        if len(source.splitlines()) > self.maximum_program_lines:
            raise NotUsableError(f"{len(source.splitlines())} lines with what it needs")
        examples = _examples(description, function.name)
        return Program(function.name, source + "\n", _without_examples(description), tuple(examples), place)


def _module_file(name: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ValueError(f"there is no module {name!r}; check its name, or install it")
    origin = getattr(spec.loader_state, "filename", None) or spec.origin or ""  # the former for frozen modules
    if not origin.endswith(".py"):
        raise ValueError(f"the module {name!r} is not written in Python; choose another one")
    return Path(origin)


def without_docstrings(node: Any) -> Any:
    """A copy of a tree without docstrings: a solution with its own description would give the problem away."""
    import copy

    node = copy.deepcopy(node)
    for each in ast.walk(node):
        if (
            isinstance(each, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
            and ast.get_docstring(each) is not None
        ):
            each.body = each.body[1:] or [ast.Pass()]
    return node


def _needed(tree: ast.Module, function: ast.FunctionDef) -> list[ast.stmt]:
    """The function's definition, preceded by all statements of its module that it needs, in order."""
    defined: dict[str, list[int]] = {}
    for index, node in enumerate(tree.body):
        for name in _binds(node):
            defined.setdefault(name, []).append(index)
    wanted: set[int] = set()
    waiting = [tree.body.index(function)]
    while waiting:
        index = waiting.pop()
        if index in wanted:
            continue
        node = tree.body[index]
        if isinstance(node, ast.ImportFrom) and node.level:
            raise NotUsableError(f"needs a relative import ({ast.unparse(node)})")
        wanted.add(index)
        own = _own_names(node)
        for name in _names(node):
            if name in defined and not (
                name in own and isinstance(node, ast.FunctionDef)
            ):  # otherwise it is a local variable
                waiting += defined[name]
            elif not hasattr(builtins, name) and name not in own:
                raise NotUsableError(f"needs {name!r}, which is not in its module")
    return [tree.body[index] for index in sorted(wanted)]


def _binds(node: ast.stmt) -> set[str]:
    """Names defined by a module-level statement."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)} | {
        (alias.asname or alias.name).split(".")[0]
        for each in ast.walk(node)
        if isinstance(each, (ast.Import, ast.ImportFrom))
        for alias in each.names
    }


def _names(node: ast.stmt) -> set[str]:
    """Names read by a statement."""
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}


def _own_names(node: ast.stmt) -> set[str]:
    """Names bound somewhere inside a statement."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load)}
    for each in ast.walk(node):
        if isinstance(each, ast.arg):
            found.add(each.arg)
        elif isinstance(each, (ast.FunctionDef, ast.ClassDef)):
            found.add(each.name)
        elif isinstance(each, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in each.names}
        elif isinstance(each, ast.ExceptHandler) and each.name:
            found.add(each.name)
    return found


def _examples(docstring: str, name: str) -> list[str]:
    """Calls of a function in its docstring's doctest, as assertions without an expected value."""
    try:
        examples = doctest.DocTestParser().get_examples(docstring)
    except ValueError:
        return []
    return [example.source.strip() for example in examples if example.source.strip().startswith(f"{name}(")]


def _without_examples(docstring: str) -> str:
    """The prose of a docstring without its examples, which would be publicly visible tests."""
    try:
        parts = doctest.DocTestParser().parse(docstring)
    except ValueError:
        return docstring.strip()
    prose = "".join(part for part in parts if isinstance(part, str)).strip()
    return prose[:-1] + "." if prose.endswith(":") else prose


@dataclass
class CodeJsonLines(CodeSource):
    """JSON-lines files with one function per line, as in MBPP and HumanEval.

    Args:
        path: a .jsonl or .jsonl.gz file, a glob pattern, or a folder.
        code_field: field of the program.
        prompt_field: field of a text that the program continues, such as HumanEval's ``prompt``; the program is both together.
        name_field: field of the function's name; if the row has none, it is the function that its tests call, or the
            last one.
        text_field: field of the description.
        tests_field: field of the tests: a list of assertions.
    """

    path: str
    code_field: str = "code"
    prompt_field: str | None = None
    name_field: str = "entry_point"
    text_field: str = "text"
    tests_field: str = "test_list"

    def programs(self) -> Iterator[Program | tuple[str, str]]:
        for part in JsonLines(self.path, self.code_field).parts():
            assert isinstance(part, JsonLinesPart)
            for path, position, row in part.records():
                try:
                    yield self._program(row, path, position)
                except NotUsableError as error:
                    yield f"{path}:{line_number(path, position)}", str(error)

    def _program(self, row: dict[str, Any], path: str, position: int) -> Program:
        code = row.get(self.code_field)
        if not isinstance(code, str) or not code.strip():
            raise NotUsableError(f"no code in {self.code_field!r}; there are {', '.join(sorted(row)) or 'no fields'}")
        if self.prompt_field is not None:
            code = str(row.get(self.prompt_field) or "") + code
        tests = row.get(self.tests_field) or []
        tests = tests.splitlines() if isinstance(tests, str) else [str(test) for test in tests]
        asserted = [test.strip() for test in tests if test.strip().startswith("assert ")]
        name = str(row.get(self.name_field) or "") or function_under_test(code, asserted)
        text = str(row.get(self.text_field) or "").strip()
        origin = str(row.get("task_id") or f"{Path(path).name}:{position}")
        return Program(name, code.replace("\r\n", "\n"), text, tuple(asserted), origin)


def function_under_test(source: str, tests: list[str]) -> str:
    """The function of a program that its tests call; without tests, its last public one.

    Raises:
        NotUsableError: the program is not Python, or has no such function.

    Example:
        >>> function_under_test("def a(): pass\\ndef b(): pass", ["assert a() is None"])
        'a'
    """
    tree = python_tree(source)
    if tree is None:
        raise NotUsableError("no Python, or too long or too deep")
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    called = {name for test in tests for name in functions if f"{name}(" in test}
    chosen = [name for name in functions if name in called] or [n for n in functions if not n.startswith("_")]
    if not chosen:
        raise NotUsableError("defines no function")
    return chosen[-1]


def identity_of(source: CodeSource) -> str:
    """Hex digest of all programs of a source, as part of a build's identity."""
    digest = hashlib.blake2b(digest_size=16)
    for program in source.programs():
        entry = program if isinstance(program, tuple) else [program.key, program.description, program.tests]
        digest.update(json.dumps(entry).encode() + b"\n")
    return digest.hexdigest()
