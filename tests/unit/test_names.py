"""Unique names: no two modules of the library define a class or type alias with the same name."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import nbg_lightning

LIBRARY = Path(nbg_lightning.__file__).parent
ROOMS_BESIDE = [LIBRARY / "callbacks", LIBRARY / "datamodules"]  # symbolic links, which rglob does not follow


def defined_names(tree: ast.Module) -> Iterator[str]:
    """The classes at the top of a module, under its ``if`` and ``try`` too, and its aliases: CamelCase and assigned."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            waiting += ast.iter_child_nodes(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (each.id for each in targets if isinstance(each, ast.Name) and is_camel_case(each.id))


def is_camel_case(name: str) -> bool:
    bare = name.lstrip("_")
    return bare[:1].isupper() and not bare.isupper() and "_" not in bare


def modules_by_name(folders: list[Path]) -> dict[str, set[str]]:
    """The files that define each name."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in {path.resolve(): path for folder in folders for path in sorted(folder.rglob("*.py"))}.values():
        for name in defined_names(ast.parse(file.read_text())):
            found[name].add(str(file))
    return found


def test_no_name_is_defined_twice():
    found = modules_by_name([LIBRARY, *ROOMS_BESIDE])
    # Of three folders, and classes as well as aliases.
    assert {"GRPOModule", "FGWSD", "PromptDataModule", "TokenKind", "WorkflowItem"} <= set(found)
    assert {name: sorted(files) for name, files in found.items() if len(files) > 1} == {}


def test_definitions_are_found(tmp_path):
    (tmp_path / "one.py").write_text(
        "from typing import TYPE_CHECKING, Literal\nKind = Literal['a']\n_SIZES = {}\nLIMIT = 3\n"
        "if TYPE_CHECKING:\n    class Hidden: ...\nelse:\n    Rest: object = None\n"
        "class Shown:\n    class Inner: ...\n\ndef make():\n    class Local: ...\n"
    )
    (tmp_path / "two.py").write_text("from one import Shown\nKind = int\n")
    found = modules_by_name([tmp_path])
    assert set(found) == {"Kind", "Hidden", "Rest", "Shown"}
    assert [len(found[name]) for name in ("Kind", "Shown")] == [2, 1]
