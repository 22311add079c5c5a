"""Preparation of a repository's tests to run in another process than its code: imports from it become remote objects."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class TestFile:
    """Tests of a file, as arguments of `Sandbox.check`.

    Attributes:
        path: path of the file.
        program: the imports from the repository that the tests use.
        setup: the rest of the file.
        tests: the tests, one function each.
    """

    __test__ = False  # no test of pytest

    path: str
    program: str
    setup: str
    tests: tuple[str, ...]


def named_tests(names: Sequence[str], files: Mapping[str, bytes]) -> list[TestFile]:
    """The named tests, file by file.

    Args:
        names: ``path::function``.
        files: files of the repository and its hidden tests.

    Raises:
        ValueError: a test that does not exist, or cannot run in another process.

    Example:
        >>> text = b"from cart import total\\nLIST = [1, 2]\\ndef test_total():\\n    assert total(LIST) == 3\\n"
        >>> made = named_tests(["test_cart.py::test_total"], {"test_cart.py": text, "cart.py": b""})[0]
        >>> made.program.splitlines()[-1], made.setup
        ('from cart import total', 'LIST = [1, 2]')
    """
    of_file: dict[str, list[str]] = {}
    for name in names:
        path, colons, function = str(name).partition("::")
        if not colons or "::" in function:
            raise ValueError(f"the test {name!r:.100} is invalid; name it path::function")
        of_file.setdefault(path, []).append(function)
    modules = _modules(files)
    return [_test_file(path, own, files, modules) for path, own in of_file.items()]


def _test_file(path: str, names: Sequence[str], files: Mapping[str, bytes], modules: set[str]) -> TestFile:
    if path not in files:
        raise ValueError(f"there is no file {path!r:.100} with tests; name one of the repository")
    try:
        tree = ast.parse(files[path].decode("utf-8"), path)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); fix the file") from None
    taken = _Imports(modules, path)
    tree = taken.visit(tree)
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    tests = []
    for name in names:
        if name not in functions:
            raise ValueError(f"{path} has no function {name!r:.100}; check the name")
        arguments = functions[name].args
        if arguments.args or arguments.kwonlyargs or functions[name].decorator_list:
            raise ValueError(f"{path}::{name} takes arguments or is decorated; give plain functions, without fixtures")
        tests.append(ast.unparse(functions[name]))
    rest = [each for each in tree.body if not (isinstance(each, ast.FunctionDef) and each.name.startswith("test"))]
    program = ["import sys", "sys.path[:0] = ['src']", *dict.fromkeys(taken.statements)]
    return TestFile(path, "\n".join(program), ast.unparse(ast.Module(rest, [])), tuple(tests))


class _Imports(ast.NodeTransformer):
    """Removes the imports from the repository."""

    def __init__(self, modules: set[str], path: str):
        self.modules, self.path = modules, path
        self.statements: list[str] = []

    def visit_Import(self, node: ast.Import) -> ast.AST:
        own = [each for each in node.names if each.name.partition(".")[0] in self.modules]
        if not own:
            return node
        self.statements.append(ast.unparse(ast.Import(own)))
        others = [each for each in node.names if each not in own]
        return ast.Import(others) if others else ast.Pass()

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.level or any(each.name == "*" for each in node.names):
            raise ValueError(
                f"{self.path} has `{ast.unparse(node)}`; import names from the repository by its whole path"
            )
        if (node.module or "").partition(".")[0] not in self.modules:
            return node
        self.statements.append(ast.unparse(node))
        return ast.Pass()


def _modules(files: Mapping[str, bytes]) -> set[str]:
    """Names that can be imported from a repository, or from ``src`` in it."""
    found = set()
    for path in files:
        parts = PurePosixPath(path).parts
        parts = parts[1:] if len(parts) > 1 and parts[0] == "src" else parts
        if path.endswith(".py"):
            found.add(parts[0].removesuffix(".py"))
    return found
