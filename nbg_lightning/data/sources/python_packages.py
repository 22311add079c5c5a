"""The text of installed Python packages."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nbg_lightning import syntax
from nbg_lightning.data.sources.files import file_identity, walk
from nbg_lightning.data.sources.source import Part, Source, pack, part_bytes, quoted, short
from nbg_lightning.data.sources.text_folder import TextPart

# Excluded from the standard library: tests and their data, bundled wheels, extension modules.
_STDLIB_EXCLUDE = [
    "site-packages/*",
    "dist-packages/*",
    "test/*",
    "*/test/*",
    "*/tests/*",
    "*/idle_test/*",
    "*/_bundled/*",
]
_PACKAGE_SUFFIXES = {"code": (".py",), "docstrings": (".py",), "documentation": (".rst", ".md", ".txt")}


@dataclass
class PackageSource(Source):
    """Text of installed Python packages: a corpus that every machine already has.

    Args:
        packages: Import names (``numpy``, ``torch.nn``), or ``stdlib`` for Python's standard library without
            its tests. Nothing is imported.
        content: ``code``: the .py files, one document each. ``docstrings``: for each .py file one document with
            the signatures and docstrings of its module, classes and functions (none for a file that this Python cannot
            parse). ``documentation``: the .rst, .md and .txt files.
        exclude: Shell patterns of paths below the package to exclude, such as ``*/tests/*``.
    """

    packages: list[str] | str
    content: Literal["code", "docstrings", "documentation"] = "code"
    exclude: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.packages = [self.packages] if isinstance(self.packages, str) else list(self.packages)
        if not self.packages:
            raise ValueError("PackageSource has no packages; name at least one, such as 'stdlib'")
        if self.content not in _PACKAGE_SUFFIXES:
            raise ValueError(f"content is invalid: {self.content!r}; choose one of {quoted(_PACKAGE_SUFFIXES)}")

    def _files(self) -> list[tuple[str, Path]]:
        """Pairs (module name, file)."""
        return [pair for package in self.packages for pair in _package_files(package, self.content, self.exclude)]

    def identity(self) -> dict[str, Any]:
        # The parser's version decides which files have docstrings.
        python = list(sys.version_info[:2]) if self.content == "docstrings" else None
        return {
            "kind": "PackageSource",
            "content": self.content,
            "python": python,
            "files": file_identity(f for _, f in self._files()),
        }

    def parts(self) -> list[Part]:
        sizes = [((module, str(f)), f.stat().st_size) for module, f in self._files()]
        packed = pack(sizes, part_bytes(sum(size for _, size in sizes)))
        if self.content == "documentation":
            return [TextPart(size, [path for _, path in group]) for group, size in packed]
        return [PythonPart(size, group, self.content) for group, size in packed]


def _package_files(package: str, content: str, exclude: list[str]) -> list[tuple[str, Path]]:
    suffixes = _PACKAGE_SUFFIXES[content]
    if package == "stdlib":
        roots, exclude, prefix = [Path(sysconfig.get_paths()["stdlib"])], [*_STDLIB_EXCLUDE, *exclude], ""
    else:
        roots, prefix = _package_roots(package), f"{package}."
    files: list[tuple[str, Path]] = []
    for root in roots:
        if root.is_file():
            files += [(package, root)] if root.name.endswith(suffixes) else []
            continue
        for file in walk(root, suffixes, exclude):
            module = prefix + ".".join(file.relative_to(root).with_suffix("").parts)
            files.append((module.removesuffix(".__init__"), file))
    if not files:
        raise ValueError(
            f"package {package!r} has no {content} ({', '.join(suffixes)} files) left to read; choose another content"
        )
    return files


def _package_roots(package: str) -> list[Path]:
    top, *inner = package.split(".")
    # Top level only: finding the spec of a submodule would import its parents.
    spec = importlib.util.find_spec(top)
    missing = f"package {package!r} is not installed: install it, and give its import name (sklearn, not scikit-learn)"
    if spec is None:
        raise ValueError(missing)
    roots = [Path(location) for location in spec.submodule_search_locations or []]
    if not roots and spec.origin and Path(spec.origin).is_file():
        roots = [Path(spec.origin)]
    if inner:
        below = [root.joinpath(*inner) for root in roots]
        roots = [r for r in (*below, *(b.with_suffix(".py") for b in below)) if r.exists()]
    if not roots:
        raise ValueError(missing)
    return roots


@dataclass
class PythonPart(Part):
    """Python files (module name, path): their code, or their docstrings."""

    modules: list[tuple[str, str]]
    content: str

    def documents(self) -> Iterator[str]:
        for module, path in self.modules:
            try:
                with tokenize.open(path) as file:  # respects the file's encoding declaration
                    code = file.read()
            except (SyntaxError, UnicodeDecodeError) as error:
                raise ValueError(
                    f"{path}: not readable Python source ({short(error)}); leave it out with exclude"
                ) from None
            yield code if self.content == "code" else docstrings(module, code)


def docstrings(module: str, code: str) -> str:
    """Readable text of a Python file's docstrings under their signatures; empty if there are none.

    >>> print(docstrings("shapes", 'def area(side: float):\\n    "Area of a square."'))
    shapes.area(side: float)
    <BLANKLINE>
        Area of a square.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = syntax.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    blocks: list[str] = []
    _collect_docstrings(tree, module, "Module " + module, blocks)
    return "\n\n".join(blocks)


def _collect_docstrings(node: ast.AST, name: str, heading: str, blocks: list[str]) -> None:
    text = (
        ast.get_docstring(node)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        else None
    )
    if text and text.strip():
        indented = "\n".join(f"    {line}".rstrip() for line in inspect.cleandoc(text).splitlines())
        blocks.append(f"{heading}\n\n{indented}")
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            inner = f"{name}.{child.name}"
            bases = ", ".join(ast.unparse(b) for b in (*child.bases, *child.keywords))
            _collect_docstrings(child, inner, f"class {inner}({bases})" if bases else f"class {inner}", blocks)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{name}.{child.name}"
            result = f" -> {ast.unparse(child.returns)}" if child.returns else ""
            _collect_docstrings(child, inner, f"{inner}({ast.unparse(child.args)}){result}", blocks)
        elif isinstance(child, ast.If | ast.Try | ast.ExceptHandler | ast.With):  # platform-dependent definitions
            _collect_docstrings(child, name, "", blocks)
