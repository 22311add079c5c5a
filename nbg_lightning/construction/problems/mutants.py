"""Mutants, small wrong versions of a program: tests are as good as the mutants they kill.

Mutation score: share of the mutants on which at least one test fails. Some mutants are equivalent to the program, so that no
test can kill them and good tests score below 1 too; which ones they are is undecidable.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from nbg_lightning import syntax

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Mult, ast.Div),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}


@dataclass(frozen=True)
class Mutant:
    """One wrong version.

    Attributes:
        kind: kind of the change: ``comparison``, ``arithmetic``, ``logic``, ``condition``, ``constant``, ``return``,
            ``statement`` or ``loop``.
        line: line in the program.
        change: the code before and after, on one line.
        source: the complete version.
    """

    kind: str
    line: int
    change: str
    source: str


def make_mutants(source: str, limit: int | None = None, seed: int = 0) -> list[Mutant]:
    """The versions of a program that differ from it in one place.

    Args:
        source: Python code; docstrings, annotations, decorators and error messages are not mutated.
        limit: maximum number, sampled by the seed from all mutants.
        seed: see limit.

    Returns:
        Mutants in the order of the program, without duplicates.

    Raises:
        SyntaxError: the source is not Python.

    Example:
        >>> [mutant.change for mutant in make_mutants("def f(x):\\n    return x + 1")]
        ['return x + 1 -> return None', 'x + 1 -> x - 1', '1 -> 2', '1 -> 0']
    """
    tree = syntax.parse(source)
    unchanged = ast.unparse(tree)
    found: dict[str, Mutant] = {}
    for kind, place, replacement in _changes(tree):
        text = _replaced(tree, place, replacement)
        if text == unchanged or text in found:
            continue
        found[text] = Mutant(kind, getattr(place, "lineno", 0), f"{_line(place)} -> {_line(replacement)}", text)
    mutants = list(found.values())
    if limit is None or len(mutants) <= limit:
        return mutants

    def chance(index: int) -> bytes:
        return hashlib.blake2b(f"{seed}\n{mutants[index].source}".encode("utf-8", "surrogatepass")).digest()

    kept = sorted(sorted(range(len(mutants)), key=chance)[:limit])
    return [mutants[index] for index in kept]


def _changes(tree: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """Every change: its kind, the replaced node, and the replacement."""
    for node in _code(tree):
        if isinstance(node, ast.Compare):
            for index, operator in enumerate(node.ops):
                for other in _COMPARISONS.get(type(operator), ()):
                    new = copy.deepcopy(node)
                    new.ops[index] = other()
                    yield "comparison", node, new
        elif isinstance(node, (ast.BinOp, ast.AugAssign)):
            for changed in _OPERATORS.get(type(node.op), ()):
                both = copy.deepcopy(node)
                both.op = changed()
                yield "arithmetic", node, both
        elif isinstance(node, ast.BoolOp):
            logic = copy.deepcopy(node)
            logic.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield "logic", node, logic
            for value in node.values:
                yield "logic", node, value
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            yield "logic" if isinstance(node.op, ast.Not) else "arithmetic", node, node.operand
        elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
            new_test = copy.deepcopy(node)
            new_test.test = ast.UnaryOp(ast.Not(), new_test.test)
            yield "condition", node, new_test
        elif isinstance(node, ast.Constant):
            yield from (("constant", node, ast.Constant(value)) for value in _other_values(node.value))
        elif isinstance(node, ast.Return) and node.value is not None:
            if not (isinstance(node.value, ast.Constant) and node.value.value is None):
                yield "return", node, ast.Return(ast.Constant(None))
        elif isinstance(node, (ast.Assign, ast.Raise)) or _is_call(node):
            yield "statement", node, ast.Pass()
        elif isinstance(node, ast.Break):
            yield "loop", node, ast.Continue()
        elif isinstance(node, ast.Continue):
            yield "loop", node, ast.Pass()
        if isinstance(node, ast.AugAssign):
            yield "statement", node, ast.Pass()


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _other_values(value: object) -> tuple[bool | int | float | str, ...]:
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value + 1, value - 1)
    if isinstance(value, float):
        return (value + 1.0, -value if value else 1.0)
    if isinstance(value, str):
        return ("",) if value else ("mutant",)
    return ()


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes in source order, without docstrings, annotations and decorators."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "format_spec"):
            continue
        children = value if isinstance(value, list) else [value]
        for child in children:
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr):
                continue  # parts of f-strings have their own grammar
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            yield child
            if not isinstance(child, ast.Raise):  # tests do not check error messages
                yield from _code(child)


def _replaced(tree: ast.AST, place: ast.AST, replacement: ast.AST) -> str:
    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if node is place:
                return replacement
            return self.generic_visit(copy.copy(node))

        def generic_visit(self, node: ast.AST) -> ast.AST:
            for name, value in ast.iter_fields(node):
                if isinstance(value, list):
                    setattr(node, name, [self.visit(each) if isinstance(each, ast.AST) else each for each in value])
                elif isinstance(value, ast.AST):
                    setattr(node, name, self.visit(value))
            return node

    return ast.unparse(ast.fix_missing_locations(Replace().visit(tree)))


def _line(node: ast.AST) -> str:
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()
    return text[0] if len(text) == 1 else f"{text[0]} ..."
