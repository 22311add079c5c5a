"""Structure of the library's code: packages, import cycles, sizes, duplication. Writes the table of docs/architecture.md.

    python benchmarks/code_structure.py                     # prints the table of this tree
        python benchmarks/code_structure.py --against 711de74   # compares with another commit, and writes the page

Sizes are limited by tests/unit/test_sizes.py, with the same definitions.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import io
import re
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- structure: benchmarks/code_structure.py -->", "<!-- end of structure -->"
FOLDERS = ("nbg_lightning", "callbacks", "datamodules")
REPEATED = 8  # number of equal lines from which two places count as duplicated
_THIN = re.compile(r"[\])}(,:\"']*|(from|import) .*|#.*")  # lines without information, or the same everywhere


@dataclass(frozen=True)
class Structure:
    """Measurements of a tree.

    Attributes:
        lines: lines per package; files at the top level are ``(files)``.
        circles: packages that import each other, directly or indirectly, one text per group.
        file_circles: the same for files within a package.
        longest: size and name of the longest by category; without the tables and builders that tests/unit/test_sizes.py exempts.
        looked_up: number of ``getattr`` and ``hasattr`` calls.
        asked: those that ask an object whether it has an attribute.
        raised: number of error messages, and of those that do not say what is wrong and what to do.
        repeats: pairs of files that share at least `REPEATED` lines of code.
    """

    lines: Mapping[str, int]
    circles: list[str]
    file_circles: list[str]
    longest: Mapping[str, tuple[int, str]]
    looked_up: int
    asked: int
    raised: tuple[int, int]
    repeats: int


def files_of(revision: str | None) -> dict[PurePosixPath, str]:
    """The library's files by path in the package: of a commit, or of the working tree."""
    if revision is None:
        found = {
            path.relative_to(ROOT): path.read_text("utf-8") for name in FOLDERS for path in (ROOT / name).rglob("*.py")
        }
    else:
        tree = ["git", "-C", str(ROOT), "archive", revision]
        there = subprocess.run([*tree, *FOLDERS], capture_output=True)
        with tarfile.open(fileobj=io.BytesIO(there.stdout)) as archive:
            members = [each for each in archive if each.isfile() and each.name.endswith(".py")]
            found = {Path(each.name): archive.extractfile(each).read().decode("utf-8") for each in members}
    whole = {PurePosixPath(path): text for path, text in sorted(found.items()) if not (ROOT / path).parent.is_symlink()}
    return {path if path.parts[0] == FOLDERS[0] else FOLDERS[0] / path: text for path, text in whole.items()}


def room(module: str) -> str:
    """The package that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def measure(files: Mapping[PurePosixPath, str]) -> Structure:
    """All measurements of the table."""
    sizes = _test_module("sizes")
    lines: dict[str, int] = defaultdict(int)
    longest: dict[str, tuple[int, str]] = {}
    for path, text in files.items():
        lines[path.parts[1] if len(path.parts) > 2 else "(files)"] += len(text.splitlines())
        own = [(each.kind, each.size, each.name) for each in sizes.measured(text) if each.name not in sizes.TABLES]
        for kind, size, name in [*own, *_classes(text)]:
            longest[kind] = max(longest.get(kind, (0, "")), (size, name or path.stem))
    calls = sum(len(re.findall(r"\b(?:getattr|hasattr)\(", text)) for text in files.values())
    declared, messages = _test_module("declared"), _test_module("messages")
    asked = sum(len(list(declared.asked(text))) for text in files.values())
    said = [
        each
        for path, text in files.items()
        for each in messages.messages(text)
        if not messages.is_reason(_in_repository(path), each)
    ]
    raised = len(said), sum(not messages.is_well_formed(each.text) for each in said)
    return Structure(lines, circles(files), file_circles(files), longest, calls, asked, raised, repeats(files.values()))


def _test_module(name: str):
    """Import a house test, which defines the limits shown here."""
    spec = importlib.util.spec_from_file_location(f"test_{name}", ROOT / "tests" / "unit" / f"test_{name}.py")
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    return tests


def _in_repository(path: PurePosixPath) -> str:
    """Path in the repository; callbacks and datamodules are outside of the package."""
    return str(path.relative_to(FOLDERS[0]) if path.parts[1] in FOLDERS else path)


def _classes(text: str) -> list[tuple[str, int, str]]:
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    return [("class", node.end_lineno - node.lineno + 1, node.name) for node in nodes]


def circles(files: Mapping[PurePosixPath, str]) -> list[str]:
    """Groups of packages that import each other; imports in functions count, those for type checkers only do not."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for path, text in files.items():
        own = path.parts[1].removesuffix(".py")
        for node in _running(ast.parse(text)):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.module == FOLDERS[0]:
                names = [f"{FOLDERS[0]}.{each.name}" for each in node.names]
            arrows[own] |= {room(name) for name in names if name.startswith(f"{FOLDERS[0]}.")} - {own}
    reach = {name: _reachable(name, arrows) for name in list(arrows)}
    groups = {frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in reach}
    return sorted(", ".join(sorted(group)) for group in groups if len(group) > 1)


def file_circles(files: Mapping[PurePosixPath, str]) -> list[str]:
    """Groups of files in a package that import each other; imports for type checkers count."""
    tests = _test_module("circles")
    names = {tests.module(path): path for path in files}
    found = set()
    for room_name in {name.split(".")[1] for name, path in names.items() if len(path.parts) > 2}:
        inside = {name for name in names if name.startswith(f"{FOLDERS[0]}.{room_name}.")}
        arrows = {name: set(tests.imported(ast.parse(files[names[name]]), names)) & inside for name in inside}
        reach = {name: _reachable(name, arrows) for name in inside}
        found |= {frozenset(b for b in reach[a] if a in reach[b]) for a in inside}
    return sorted(
        ", ".join(sorted(name.removeprefix(f"{FOLDERS[0]}.") for name in each)) for each in found if len(each) > 1
    )


def _running(node: ast.AST) -> Iterable[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        yield from _running(child)


def _reachable(name: str, arrows: Mapping[str, set[str]]) -> set[str]:
    found, rest = set(), [name]
    while rest:
        for each in arrows.get(rest.pop(), ()):
            if each not in found:
                found.add(each)
                rest.append(each)
    return found


def repeats(texts: Iterable[str]) -> int:
    """Number of pairs of files with a common run of equal lines of code."""
    places: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for number, text in enumerate(texts):
        code = [line for each in text.splitlines() if (line := each.strip()) and not _THIN.fullmatch(line)]
        for first in range(len(code) - REPEATED + 1):
            places[tuple(code[first : first + REPEATED])].add(number)
    return len({pair for found in places.values() for pair in _pairs(sorted(found))})


def _pairs(numbers: list[int]) -> list[tuple[int, int]]:
    return [(a, b) for place, a in enumerate(numbers) for b in numbers[place + 1 :]]


def table(columns: Mapping[str, Structure]) -> str:
    """A row per measurement, a column per tree."""
    trees = list(columns.values())
    rows = [["", *columns], ["---"] * (len(columns) + 1)]
    rows.append(["groups of rooms that import each other", *("; ".join(each.circles) or "none" for each in trees)])
    rows.append(["groups of files of a room that import each other", *(str(len(each.file_circles)) for each in trees)])
    for kind, unit in (
        ("file", "lines"),
        ("class", "lines"),
        ("function", "lines of code"),
        ("constructor", "parameters"),
    ):
        cells = [f"{size} ({name})" for size, name in (each.longest[kind] for each in trees)]
        rows.append([f"longest {kind}, {unit}", *cells])
    rows.append(["`getattr` and `hasattr`", *(str(each.looked_up) for each in trees)])
    rows.append(["... that ask whether an object has something", *(str(each.asked) for each in trees)])
    shown = (f"{wrong} of {number:,}" for number, wrong in (each.raised for each in trees))
    rows.append(["errors that do not say what to do", *shown])
    rows.append([f"pairs of files that share {REPEATED} lines of code", *(str(each.repeats) for each in trees)])
    rows.append(["lines", *(f"{sum(each.lines.values()):,}" for each in trees)])
    for name in sorted({name for each in trees for name in each.lines}):
        rows.append([f"... in `{name}`", *(f"{each.lines[name]:,}" if name in each.lines else "" for each in trees)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--against", metavar="COMMIT", help="commit to compare with; also writes the page")
    against = parser.parse_args().against
    trees = {} if against is None else {f"at {against}": measure(files_of(against))}
    made = table(trees | {"here": measure(files_of(None))})
    if against is None:
        print(made)
        return
    before, _, rest = PAGE.read_text("utf-8").partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}\n\n{made}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
