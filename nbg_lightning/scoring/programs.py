"""Extraction of the program from a model's answer: one of its code blocks, and what that needs from the others."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from nbg_lightning.scoring.bounded import MAX_PYTHON, first_python_error, python_tree
from nbg_lightning.scoring.fences import CodeBlock, code_blocks, dedented

MAX_BLOCKS = 100  # the last blocks of an answer are considered
MAX_PARSES = 60  # per text without fences
_INVISIBLE = {0xFEFF: None, 0x200B: None, 0x200C: None, 0x200D: None, 0x2060: None, 0xA0: " ", 0x3000: " ", 0x202F: " "}
_BUILTINS = frozenset(dir(builtins))
_READS = frozenset({"input", "stdin", "open", "fileinput", "readline"})
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
_HELPERS = (*_DEFINITIONS, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.If, ast.Try)
_SAYS_NOTHING = (
    ast.Constant,
    ast.Name,
    ast.Attribute,
    ast.Tuple,
    ast.List,
    ast.Dict,
    ast.Set,
    ast.UnaryOp,
    ast.Compare,
)
_BEGINS_CODE = re.compile(
    r"(?:async\s+)?def\s+\w+\s*\(|class\s+\w+\s*[(:]|@\w|import\s+[\w.]+(?:\s+as\s+\w+)?\s*(?:$|[,;#])|from\s+[\w.]+\s+import\s"
    r"|[A-Za-z_][\w.]*(?:\s*,\s*[A-Za-z_]\w*)*\s*(?:[-+*/%|&^]|//|\*\*)?=[^=]|[A-Za-z_][\w.]*\(|(?:for|while|if|with)\s.*:"
    r"|try\s*:|#!|\"\"\"|'''"
)

_BEGINS_INDENTED = re.compile(
    r"\s+(?:(?:async\s+)?def\s+\w+\s*\(|class\s+\w+\s*[(:]|import\s+\w|from\s+[\w.]+\s+import\s)"
)


def extract_program(text: str, unfenced: bool = False, entry_points: Sequence[str] = ()) -> str | None:
    """The program of an answer; None if there is none.

    It is the last Python block that defines the entry points, preceded by what it uses from other Python blocks without
    defining it itself: functions, classes, imports, constants, and the statements that fill them. Importing a name counts less
    than defining it, and blocks that use the program contribute nothing to it. Without entry points it is the last block that is
    a program: preferably one that does something rather than only define, and among those one that reads input. A block marked
    as another language (``text``, ``pycon``) counts only if it is Python and defines an entry point; outputs never do.

    Args:
        text: text of any length; processed in linear time.
        unfenced: without a fenced block, use the lines that are Python.
        entry_points: names called by tests.

    Example:
        >>> extract_program("So:\\n```python\\nprint(1)\\n```\\nThat is all.")
        'print(1)\\n'
        >>> extract_program("```python\\ndef f(): return 1\\n```\\n```python\\nprint(f())\\n```", entry_points=["f"])
        'def f(): return 1\\n'
    """
    fenced = code_blocks(text)
    if fenced:
        return _chosen([piece for block in _candidates(fenced) for piece in _pieces(block)], entry_points)
    if not unfenced or not text.strip():
        return None
    source = text.replace("\r\n", "\n").replace("\r", "\n")
    whole = _Piece(CodeBlock("", source))
    if whole.tree is not None:
        return _without_words(source) if whole.does_anything else None
    regions = [_Piece(CodeBlock("", code)) for code in _regions(source)]
    if any(piece.does_anything for piece in regions):
        return _chosen(regions, entry_points)
    lines = source.split("\n")
    begin = next((place for place, line in enumerate(lines) if _BEGINS_CODE.match(line)), None)
    return None if begin is None else "\n".join(lines[begin:])  # code with a syntax error


def defined_names(program: str) -> frozenset[str]:
    """Names bound at the top level of a program; none if it is not Python.

    Example:
        >>> sorted(defined_names("import os.path as p\\ndef f(): x = 1"))
        ['f', 'p']
    """
    return _Piece(CodeBlock("", program)).defines


def called_names(tests: Iterable[str]) -> list[str]:
    """Functions and classes called by assertions that neither import nor define them, in order, without builtins.

    Example:
        >>> called_names(["assert add(1, len([2])) == 3", "assert math.isclose(area(1), 3)"])
        ['add', 'area']
    """
    called: dict[str, None] = {}
    bound: set[str] = set()
    for test in tests:
        tree = python_tree(test)
        if tree is None:
            continue
        bound |= _bound(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):  # `check(add)` calls add too
                called |= {each.id: None for each in (node.func, *node.args) if isinstance(each, ast.Name)}
    return [name for name in called if name not in _BUILTINS and name not in bound]


# -- choosing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """A code block, with properties that can be derived without running it."""

    block: CodeBlock

    @cached_property
    def tree(self) -> ast.Module | None:
        return python_tree(self.block.code)

    @cached_property
    def makes(self) -> frozenset[str]:
        """Names that it defines, rather than only imports."""
        imports = (ast.Import, ast.ImportFrom)
        return frozenset(
            name for name in self.defines if not all(isinstance(each, imports) for each in self.binders[name])
        )

    @cached_property
    def statements(self) -> list[ast.stmt]:
        return [] if self.tree is None else self.tree.body

    @cached_property
    def binders(self) -> dict[str, list[ast.stmt]]:
        """Top-level statements by the names that they bind."""
        found: dict[str, list[ast.stmt]] = {}
        for statement in self.statements:
            for name in _bound(statement, top_only=True):
                found.setdefault(name, []).append(statement)
        return found

    @cached_property
    def defines(self) -> frozenset[str]:
        return frozenset(name for name, made in self.binders.items() if not all(map(_is_stub, made)))

    @cached_property
    def does_anything(self) -> bool:
        """Whether it has a statement that is more than a value, unlike an output."""
        return any(not _is_value(statement) for statement in self.statements)

    @cached_property
    def runs(self) -> bool:
        """Whether it has a statement that is neither a definition nor a docstring."""
        quiet = (*_DEFINITIONS, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
        return any(not isinstance(each, quiet) and not _is_value(each) for each in self.statements)

    @cached_property
    def reads(self) -> bool:
        return any(
            (isinstance(node, ast.Name) and node.id in _READS)
            or (isinstance(node, ast.Attribute) and node.attr in _READS)
            for statement in self.statements
            for node in ast.walk(statement)
        )


def _pieces(block: CodeBlock) -> list[_Piece]:
    """A block; if it was never closed and continues in words, its Python part."""
    whole = _Piece(block)
    if whole.tree is None and block.code.strip():
        cleaned = _Piece(replace(block, code=_cleaned(block.code)))
        whole = cleaned if cleaned.tree is not None else whole
    if block.closed or whole.tree is not None:
        return [whole]
    return [_Piece(CodeBlock(block.language, code)) for code in _regions(block.code)] or [whole]


def _candidates(blocks: Sequence[CodeBlock]) -> list[CodeBlock]:
    return [block for block in blocks if block.code.strip()][-MAX_BLOCKS:]


def _cleaned(code: str) -> str:
    """Code without additions of a notebook, a session or a clipboard: prompts, shell commands, invisible characters."""
    lines = code.translate(_INVISIBLE).split("\n")
    if next((line for line in lines if line.strip()), "").lstrip().startswith(">>>"):
        return "\n".join(line.lstrip()[4:] for line in lines if line.lstrip().startswith((">>>", "...")))
    return "\n".join("" if line.startswith(("%", "!")) else line for line in lines)


def _chosen(pieces: Sequence[_Piece], entry_points: Sequence[str]) -> str | None:
    """The program among pieces of Python: see `extract_program`."""
    named = any(piece.block.is_python for piece in pieces)
    wanted = frozenset(entry_points)
    best: tuple[tuple[int, int, int], int] | None = None
    for place, piece in enumerate(pieces):
        says_so = piece.block.is_python
        entries = len(wanted & piece.defines)
        if piece.does_anything and (says_so or bool(entries) or not (named or piece.block.language)):
            own = len(wanted & piece.makes)
            rank = (entries, own, int(says_so)) if wanted else (int(piece.runs and piece.reads), int(piece.runs), 0)
            best = max(best or (rank, place), (rank, place))
    if best is not None:
        return _completed(pieces, best[1], wanted)
    left = [piece for piece in pieces if piece.block.is_python] or [each for each in pieces if not each.block.language]
    return left[-1].block.code if left else None  # a syntax error, or nothing: the tests will report it


def _completed(pieces: Sequence[_Piece], chosen: int, wanted: frozenset[str]) -> str:
    """A piece preceded by the statements of the others that it needs."""
    own = pieces[chosen]
    bound = set().union(*(_bound(statement) for statement in own.statements))
    needed = [((_read(own.statements) - _BUILTINS) | wanted) - bound]
    taken: set[tuple[int, int, int]] = set()
    known = set(bound)
    while needed:
        for name in sorted(needed.pop() - known):
            known.add(name)
            found = _helper(pieces, chosen, name, wanted) or _star_imports(pieces, chosen)
            if found is None:
                continue
            place, statements = found
            taken |= {(place, *_span(statement)) for statement in statements}
            needed.append(_read(statements) - _BUILTINS)
    if not taken:
        return own.block.code
    helpers = ["\n".join(pieces[place].block.code.split("\n")[begin - 1 : end]) for place, begin, end in sorted(taken)]
    lines = own.block.code.split("\n")
    head = max((each.end_lineno or 0 for each in own.statements if _is_future(each)), default=0)
    return "\n".join([*lines[:head], *helpers, "", *lines[head:]])


def _helper(
    pieces: Sequence[_Piece], chosen: int, name: str, wanted: frozenset[str]
) -> tuple[int, list[ast.stmt]] | None:
    """The last other piece that defines a name without using the program, else the last one; with the defining statements."""
    users = [bool(_read(piece.statements) & wanted & pieces[chosen].defines) for piece in pieces]
    for place in sorted(range(len(pieces)), key=lambda place: (not users[place], place), reverse=True):
        binders = pieces[place].binders.get(name, ())
        statements: list[ast.stmt] = [each for each in binders if isinstance(each, _HELPERS)]
        if place != chosen and statements and not all(map(_is_stub, statements)):
            return place, [*statements, *(each for each in pieces[place].statements if _fills(each, name))]
    return None


def _star_imports(pieces: Sequence[_Piece], chosen: int) -> tuple[int, list[ast.stmt]] | None:
    """The last other piece with star imports, and these statements."""
    for place in range(len(pieces) - 1, -1, -1):
        stars = [
            each for each in pieces[place].statements if isinstance(each, ast.ImportFrom) and each.names[0].name == "*"
        ]
        if place != chosen and stars:
            return place, list(stars)
    return None


def _fills(statement: ast.stmt, name: str) -> bool:
    """Whether a top-level statement fills a value: ``table[0] = 1``, ``table.append(1)``, also in a loop."""
    if isinstance(statement, _DEFINITIONS):
        return False
    for node in ast.walk(statement):
        target: ast.AST | None = None
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            target = node.value
        elif (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Attribute)
        ):
            target = node.value.func.value
        if isinstance(target, ast.Name) and target.id == name:
            return True
    return False


def _span(statement: ast.stmt) -> tuple[int, int]:
    """First and last line, including decorators."""
    decorators = statement.decorator_list if isinstance(statement, _DEFINITIONS) else []
    begin = min([statement.lineno, *(each.lineno for each in decorators)])
    return begin, statement.end_lineno or begin


def _bound(node: ast.AST, top_only: bool = False) -> set[str]:
    """Names bound anywhere in a statement, or only in its own scope."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, ast.Name):
            if not isinstance(each.ctx, ast.Load):
                found.add(each.id)
        elif isinstance(each, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in each.names}
        elif isinstance(each, _DEFINITIONS):
            found.add(each.name)
            if top_only:
                continue
        elif isinstance(each, ast.arg):
            found.add(each.arg)
        elif isinstance(each, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and each.name:
            found.add(each.name)
        elif top_only and isinstance(each, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            continue
        waiting += ast.iter_child_nodes(each)
    return found


def _read(statements: Iterable[ast.stmt]) -> frozenset[str]:
    """Names read by statements."""
    return frozenset(
        node.id
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    )


def _is_value(statement: ast.stmt) -> bool:
    """Whether a statement is just a value: a docstring, an output such as ``[1, 2]``, a word, a declared name."""
    if isinstance(statement, ast.AnnAssign):
        return statement.value is None
    return isinstance(statement, ast.Expr) and all(
        isinstance(node, (*_SAYS_NOTHING, ast.expr_context, ast.unaryop, ast.cmpop))
        for node in ast.walk(statement.value)
    )


def _is_stub(statement: ast.stmt) -> bool:
    """Whether a definition has no body except a docstring, ``...``, ``pass`` or ``raise NotImplementedError``."""
    return isinstance(statement, _FUNCTIONS) and all(
        isinstance(each, ast.Pass)
        or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        or (isinstance(each, ast.Raise) and "NotImplementedError" in _read([each]))
        for each in statement.body
    )


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


# -- code without fences -------------------------------------------------------------------------------------------------


def _regions(source: str) -> Iterator[str]:
    """Runs of lines in a text that are Python, among those that look like the beginning of code."""
    lines = source.split("\n")
    begin, parses = 0, 0
    while begin < len(lines) and parses < MAX_PARSES:
        line = lines[begin]
        if not (_BEGINS_CODE.match(line) or (line[:1].isspace() and _BEGINS_INDENTED.match(line))):
            begin += 1
            continue
        end = _as_far_as(lines, begin, MAX_PYTHON)
        while end > begin and parses < MAX_PARSES:
            parses += 1
            code = dedented(lines[begin:end])
            problem = first_python_error(code)
            if problem is None:
                yield _without_words(code)
                break
            end = min(end - 1, begin + problem)
        begin = max(end, begin + 1)


def _as_far_as(lines: Sequence[str], begin: int, characters: int) -> int:
    """Index after the lines from ``begin`` on with this many characters in total."""
    for place in range(begin, len(lines)):
        characters -= len(lines[place]) + 1
        if characters < 0:
            return place
    return len(lines)


def _without_words(code: str) -> str:
    """Code without trailing lines that are just values, such as the word ``Done``."""
    piece = _Piece(CodeBlock("", code))
    last = next((each for each in reversed(piece.statements) if not _is_value(each)), None)
    return (
        code if last is None or last is piece.statements[-1] else "\n".join(code.split("\n")[: last.end_lineno]) + "\n"
    )
