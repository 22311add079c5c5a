"""Size limits of the library's files, functions and constructors: larger ones have several jobs."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES = 450
FUNCTION_LINES = 60  # of code: without docstrings, comments and blank lines
CONSTRUCTOR_PARAMETERS = 15
TABLES = {"LanguageModelConfig": 17}  # fields of a table that another format gives, as the docstring says
POLICY_MODULE_LINES = 250
BLANK = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Measured(NamedTuple):
    """The size of one thing in a file."""

    size: int
    kind: str
    name: str


def code_lines(text: str) -> set[int]:
    """The lines of a file that contain code; strings that are whole statements do not count."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in BLANK:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def parameters(function: Function) -> int:
    """How many arguments a caller may write, ``self`` not counted."""
    return len(function.args.posonlyargs + function.args.args + function.args.kwonlyargs) - 1


def fields(node: ast.ClassDef) -> list[str]:
    """The fields of a dataclass that a caller may write; none of another class."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return []
    declared = [each for each in node.body if isinstance(each, ast.AnnAssign)]
    return [
        ast.unparse(each.target)
        for each in declared
        if "ClassVar" not in ast.unparse(each.annotation)
        and not (each.value and "init=False" in ast.unparse(each.value))
    ]


def is_builder(node: ast.ClassDef) -> bool:
    """Whether the fields of a class are keys of a YAML file and options of a command, as `Builder` says why."""
    return any(ast.unparse(base).endswith("Builder") for base in node.bases)


def measured(text: str) -> Iterator[Measured]:
    """The sizes of a file, its functions and its constructors."""
    yield Measured(len(text.splitlines()), "file", "")
    lines = code_lines(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function):
            last = node.end_lineno or node.lineno
            yield Measured(len(lines.intersection(range(node.lineno, last + 1))), "function", node.name)
        if isinstance(node, ast.ClassDef):
            made = [each for each in node.body if isinstance(each, Function) and each.name == "__init__"]
            for constructor in made:
                yield Measured(parameters(constructor), "constructor", node.name)
            if not is_builder(node):
                yield Measured(len(fields(node)), "constructor", node.name)


def too_large(size: Measured) -> bool:
    limits = {"file": FILE_LINES, "function": FUNCTION_LINES, "constructor": CONSTRUCTOR_PARAMETERS}
    return size.size > TABLES.get(size.name, limits[size.kind])


def library_files() -> list[Path]:
    """The files of the library, and of its callbacks and datamodules, which are next to it."""
    folders = [ROOT / name for name in ("nbg_lightning", "callbacks", "datamodules")]
    return sorted({file.resolve() for folder in folders for file in folder.rglob("*.py")})


def test_nothing_is_too_large() -> None:
    files = library_files()
    assert {"grpo.py", "fg_wsd.py", "prompts.py", "cli.py"} <= {file.name for file in files}
    found = {file: [size for size in measured(file.read_text("utf-8")) if too_large(size)] for file in files}
    assert {str(file.relative_to(ROOT)): sizes for file, sizes in found.items() if sizes} == {}


def test_the_policy_module_stays_a_reading_of_one_page() -> None:
    """It was sampler, scorer, estimator, packer and trainer in one: each of these has a place in `nbg_lightning.rl`."""
    assert len((ROOT / "nbg_lightning/modules/grpo.py").read_text("utf-8").splitlines()) <= POLICY_MODULE_LINES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""Doc."""\n\ndef f():\n    """Doc.\n\n    More.\n    """\n    # why\n    return (\n        1\n    )\n', 4),
        ("class A:\n    def __init__(self, a, /, b, *, c=1, **rest):\n        self.a = a\n", 2),
    ],
)
def test_lines_are_those_of_code(text: str, expected: int) -> None:
    assert [size.size for size in measured(text) if size.kind == "function"] == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("class A:\n    def __init__(self, a, /, b, *, c=1, **rest):\n        self.a = a\n", [3, 0]),
        (
            "@dataclass(frozen=True)\nclass A:\n    a: int\n    b: ClassVar[int] = 1\n    c: int = field(init=False)\n",
            [1],
        ),
        ("@dataclass\nclass A(WorkflowBuilder):\n    a: int\n", []),
        ("class A:\n    a: int\n", [0]),
    ],
)
def test_parameters_are_those_a_caller_may_write(text: str, expected: list[int]) -> None:
    assert [size.size for size in measured(text) if size.kind == "constructor"] == expected
