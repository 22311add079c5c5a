"""Where training text comes from.

A `Source` names some text and splits itself into parts: small picklable pieces of work (a byte range of a
large file, a handful of small files, some rows) that any process can read on its own. Their order and borders
depend on the source's content only, so that preparing it is parallel, streaming and restartable. A null or
empty text is an empty document: preparation skips and counts it. Duplicates are kept: removing them is the
job of whoever builds the corpus.
"""

from __future__ import annotations

import ast
import glob
import gzip
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import sys
import sysconfig
import tokenize
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from nbg_lightning.schedules import parse_tokens

MIN_PART_BYTES = 1 << 20  # half a second: a small corpus is shared evenly by a few cores
MAX_PART_BYTES = 256 << 20  # two minutes of tokenizing: what a killed preparation loses per worker
PARTS_WANTED = 256
MAX_PART_FILES = 4096
GZIP_RATIO = 3  # text bytes per compressed byte, for progress only


# ---- base


@dataclass
class Part(ABC):
    """One piece of a source's work; picklable, and read by one process from start to end.

    Args:
        size: Estimated bytes of text, for progress and for dividing work.
    """

    size: int

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """The part's texts, always in the same order."""


@dataclass(kw_only=True)
class Source(ABC):
    """Base of everything that gives text; subclasses are flat dataclasses (``class_path``, ``init_args``).

    Args:
        tokens: Declared size ("3B", 12_000, ...), used only for planning before anything has been prepared.
        label: Free text for tables and pictures.
    """

    tokens: int | str | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if self.tokens is not None:
            self.tokens = parse_tokens(self.tokens)

    @abstractmethod
    def parts(self) -> list[Part]:
        """All parts in their fixed order.

        Raises:
            FileNotFoundError: The path, folder or pattern gives no file.
            ValueError: The text cannot be there (unknown field, package not installed, ...).
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """The cache key: options, file paths, sizes and modification times, as JSON-able values."""

    def documents(self) -> Iterator[str]:
        """All texts in order, for looking at a source: ``next(JsonLines("corpus/").documents())``."""
        for part in self.parts():
            yield from part.documents()


def part_bytes(total: int) -> int:
    """Text bytes a part of a source of `total` bytes should have; of the content alone: borders stay."""
    return min(max(total // PARTS_WANTED, MIN_PART_BYTES), MAX_PART_BYTES)


def pack(items: Iterable[tuple[Any, int]], limit: int) -> list[tuple[list[Any], int]]:
    """Groups neighbours until a group holds `limit` bytes or `MAX_PART_FILES` items."""
    groups: list[tuple[list[Any], int]] = []
    group: list[Any] = []
    size = 0
    for item, item_size in items:
        if group and (size + item_size > limit or len(group) == MAX_PART_FILES):
            groups.append((group, size))
            group, size = [], 0
        group.append(item)
        size += item_size
    return [*groups, (group, size)] if group else groups


def find_files(path: str, suffixes: tuple[str, ...], exclude: Iterable[str] = ()) -> list[Path]:
    """The files that `path` stands for, sorted: a file, a pattern, or a folder without its hidden files."""
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if root.is_dir():
        files = _walk(root, suffixes, exclude)
        if not files:
            raise FileNotFoundError(f"folder {path!r} has no file ending in {' or '.join(suffixes)}: check the path")
        return files
    if glob.has_magic(path):
        files = sorted(Path(f) for f in glob.glob(str(root), recursive=True) if os.path.isfile(f))
        files = [f for f in files if not _excluded(f.as_posix(), exclude)]
        if not files:
            raise FileNotFoundError(f"no file matches the pattern {path!r}: check it (working folder: {os.getcwd()})")
        return files
    raise FileNotFoundError(f"{path!r} does not exist: check the path (working folder: {os.getcwd()})")


def _walk(root: Path, suffixes: tuple[str, ...], exclude: Iterable[str]) -> list[Path]:
    whole_folders = [pattern for pattern in exclude if pattern.endswith("/*")]  # need not be entered
    found = []
    seen = set()  # links may lead back to a folder above
    for folder, subfolders, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (place := (status.st_dev, status.st_ino)) in seen:
            subfolders.clear()
            continue
        seen.add(place)
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        subfolders[:] = [
            sub
            for sub in subfolders
            if not (sub.startswith(".") or sub == "__pycache__" or _excluded(f"{prefix}{sub}/", whole_folders))
        ]
        for name in names:
            if name.endswith(suffixes) and not name.startswith(".") and not _excluded(prefix + name, exclude):
                found.append(prefix + name)
    return [root / relative for relative in sorted(found)]


def _excluded(relative: str, patterns: Iterable[str]) -> bool:
    """Shell patterns against the path below the root; ``*`` crosses folders: ``*/tests/*`` is any tests."""
    return any(fnmatch(f"/{relative}", p if p.startswith(("*", "/")) else f"/{p}") for p in patterns)


def file_identity(files: Iterable[Path]) -> list[list[Any]]:
    return [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def _quoted(names: Iterable[Any]) -> str:
    names = [repr(n) for n in names]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def check_text(value: Any, where: Callable[[], str]) -> str:
    """`value` if it is a text that can be written as UTF-8; the empty text for None.

    Args:
        value: What stands in the text's place.
        where: Gives the place, for errors; called only then, since finding a line's number takes reading.

    Raises:
        ValueError: Not a string, or a string with half of a surrogate pair (JSON's ``"\\ud800"``).
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where()}: the text is of type {type(value).__name__}, not a string: use a field of strings")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where()}: the text has half of a surrogate pair at character {error.start}, "
                "which UTF-8 cannot hold: mend or remove it"
            ) from None
    return value


# ---- files


@dataclass
class JsonLines(Source):
    """One JSON object a line, the text in one of its fields.

    Args:
        path: A .jsonl or .jsonl.gz file, a pattern such as ``corpus/*.jsonl``, or a folder (searched
            recursively). Plain files are read in parallel; a .gz file cannot be entered in the middle and is
            one part, so split large ones.
        text_field: Name of the field with the text.
    """

    path: str
    text_field: str = "text"

    def _files(self) -> list[Path]:
        return find_files(self.path, (".jsonl", ".jsonl.gz"))

    def identity(self) -> dict[str, Any]:
        return {"kind": "JsonLines", "text_field": self.text_field, "files": file_identity(self._files())}

    def parts(self) -> list[Part]:
        sizes = [(str(f), f.stat().st_size) for f in self._files()]
        limit = part_bytes(sum(size for _, size in sizes))
        slices: list[tuple[tuple[str, int, int], int]] = []
        for path, size in sizes:
            if path.endswith(".gz"):
                slices.append(((path, 0, size), size * GZIP_RATIO))
            else:
                slices += [((path, a, min(a + limit, size)), min(limit, size - a)) for a in range(0, size, limit)]
        return [JsonLinesPart(size, group, self.text_field) for group, size in pack(slices, limit)]


@dataclass
class JsonLinesPart(Part):
    """Byte ranges (path, start, stop) of JSONL files; a line belongs to the range in which it begins."""

    slices: list[tuple[str, int, int]]
    text_field: str

    def documents(self) -> Iterator[str]:
        for path, position, record in self.records():

            def where(path: str = path, position: int = position) -> str:
                return f"{path}:{line_number(path, position)}"

            if self.text_field not in record:
                raise ValueError(
                    f"{where()}: no field {self.text_field!r}; there are {_quoted(record)}: set text_field to one of them"
                )
            yield check_text(record[self.text_field], where)

    def records(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """(path, position of the line, object) of every line that is not blank."""
        for path, start, stop in self.slices:
            for position, line in _gzip_lines(path) if path.endswith(".gz") else _lines(path, start, stop):
                if line.strip():
                    yield path, position, _json_object(line, path, position, self.text_field)


def _json_object(line: bytes, path: str, position: int, field: str) -> dict[str, Any]:
    def where() -> str:
        return f"{path}:{line_number(path, position)}"

    try:
        record = json.loads(line.decode("utf-8-sig" if position == 0 else "utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where()}: not UTF-8 at byte {error.start} of the line: convert the file to UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{where()}: malformed JSON ({error.msg}): mend or remove this line") from None
    except RecursionError:
        raise ValueError(f"{where()}: JSON nested too deeply to read: mend or remove this line") from None
    if not isinstance(record, dict):
        raise ValueError(
            f'{where()}: a line must be a JSON object like {{"{field}": ...}}, '
            f"not a {type(record).__name__}: mend or remove this line"
        )
    return record


def _lines(path: str, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    with open(path, "rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()  # the rest of the line that begins before this range
        position = file.tell()
        while position < stop and (line := file.readline()):
            yield position, line
            position += len(line)


def _gzip_lines(path: str) -> Iterator[tuple[int, bytes]]:
    position = 0
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                yield position, line
                position += len(line)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}): download or compress it again") from None


def line_number(path: str, position: int) -> int:
    """Line number of the byte at `position` of the (decompressed) text."""
    count, left = 1, position
    with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
        while left and (block := file.read(min(left, 1 << 20))):
            count += block.count(b"\n")
            left -= len(block)
    return count


@dataclass
class Parquet(Source):
    """Parquet files, the text in one column.

    Args:
        path: A .parquet file, a pattern, or a folder (searched recursively).
        text_field: Name of the text column.
    """

    path: str
    text_field: str = "text"

    def _files(self) -> list[Path]:
        return find_files(self.path, (".parquet",))

    def identity(self) -> dict[str, Any]:
        return {"kind": "Parquet", "text_field": self.text_field, "files": file_identity(self._files())}

    def parts(self) -> list[Part]:
        groups: list[tuple[tuple[str, int], int]] = []
        for path in self._files():
            with open_parquet(str(path)) as file:
                _check_text_type(file.schema_arrow, self.text_field, str(path))
                for index in range(file.metadata.num_row_groups):
                    row_group = file.metadata.row_group(index)
                    columns = (row_group.column(c) for c in range(row_group.num_columns))
                    size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema == self.text_field)
                    groups.append(((str(path), index), size))
        packed = pack(groups, part_bytes(sum(size for _, size in groups)))
        return [ParquetPart(size, group, self.text_field) for group, size in packed]


@dataclass
class ParquetPart(Part):
    """Row groups (path, index) of Parquet files."""

    row_groups: list[tuple[str, int]]
    text_field: str

    def documents(self) -> Iterator[str]:
        for path, _, row in self.rows([self.text_field]):
            yield check_text(row[self.text_field], partial(str, path))

    def rows(self, columns: list[str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """(path, row group, values of the columns) of every row."""
        for path, index in self.row_groups:
            with open_parquet(path) as file:
                try:
                    for batch in file.iter_batches(batch_size=1024, row_groups=[index], columns=columns):
                        for row in batch.to_pylist():
                            yield path, index, row
                except (OSError, UnicodeDecodeError) as error:  # pyarrow raises OSError for damaged pages
                    if getattr(error, "errno", None):
                        raise
                    raise ValueError(
                        f"{path}: row group {index} cannot be read ({_one_line(error)}): replace the file"
                    ) from None


def open_parquet(path: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path}: not a whole Parquet file ({_one_line(error)}): replace the file") from None


def _check_text_type(schema: Any, name: str, where: str) -> None:
    """Raises unless the Arrow schema has a column `name` of strings."""
    import pyarrow.types as types

    if name not in schema.names:
        raise ValueError(
            f"{where}: no field {name!r}; there are {_quoted(schema.names)}: set text_field to one of them"
        )
    kind = schema.field(name).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)):
        raise ValueError(
            f"{where}: field {name!r} is of type {kind}, not of strings: set text_field to a field of strings"
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@dataclass
class TextFolder(Source):
    """Text files, each one document.

    Args:
        path: A folder (searched recursively, hidden files left out), a pattern, or one file.
        suffixes: Which files of a folder are text.
        exclude: Shell patterns of paths below the folder to leave out, such as ``*/translations/*``.
    """

    path: str
    suffixes: list[str] = field(default_factory=lambda: [".txt", ".md", ".rst"])
    exclude: list[str] = field(default_factory=list)

    def _files(self) -> list[Path]:
        return find_files(self.path, tuple(self.suffixes), self.exclude)

    def identity(self) -> dict[str, Any]:
        return {"kind": "TextFolder", "files": file_identity(self._files())}

    def parts(self) -> list[Part]:
        sizes = [(str(f), f.stat().st_size) for f in self._files()]
        return [TextPart(size, group) for group, size in pack(sizes, part_bytes(sum(s for _, s in sizes)))]


@dataclass
class TextPart(Part):
    """Whole files, each one document."""

    paths: list[str]

    def documents(self) -> Iterator[str]:
        for path in self.paths:
            try:
                yield Path(path).read_bytes().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}: not UTF-8 at byte {error.start}: convert it to UTF-8, or leave it out with exclude"
                ) from None


# ---- Hugging Face


@dataclass
class HuggingFace(Source):
    """A dataset of the Hugging Face hub, or a folder written by ``Dataset.save_to_disk``.

    Args:
        name_or_folder: Name on the hub, or a local folder.
        split: Split to read; the hub's slices such as ``train[:10%]`` work for what `datasets.load_dataset`
            loads.
        text_field: Name of the text column.
        config_name: Configuration (subset) of a hub dataset.
    """

    name_or_folder: str
    split: str = "train"
    text_field: str = "text"
    config_name: str | None = None

    def identity(self) -> dict[str, Any]:
        dataset = load_dataset(self.name_or_folder, self.split, self.config_name)
        return {
            "kind": "HuggingFace",
            "name_or_folder": self.name_or_folder,
            "split": self.split,
            "config_name": self.config_name,
            "text_field": self.text_field,
            "fingerprint": dataset._fingerprint,
            "num_rows": dataset.num_rows,
            "files": file_identity(sorted({Path(f["filename"]) for f in dataset.cache_files})),
        }

    def parts(self) -> list[Part]:
        dataset = load_dataset(self.name_or_folder, self.split, self.config_name)
        _check_text_type(dataset.features.arrow_schema, self.text_field, f"dataset {self.name_or_folder!r}")
        if dataset.num_rows == 0:
            return []
        row_bytes = max(1, dataset.data.column(self.text_field).nbytes // max(1, dataset.data.num_rows))
        rows = max(1, part_bytes(row_bytes * dataset.num_rows) // row_bytes)
        return [
            HuggingFacePart(
                row_bytes * (min(start + rows, dataset.num_rows) - start),
                self.name_or_folder,
                self.split,
                self.config_name,
                self.text_field,
                dataset._fingerprint,
                start,
                min(start + rows, dataset.num_rows),
            )
            for start in range(0, dataset.num_rows, rows)
        ]


@dataclass
class HuggingFacePart(Part):
    """Rows start..stop-1 of a dataset."""

    name_or_folder: str
    split: str
    config_name: str | None
    text_field: str
    fingerprint: str
    start: int
    stop: int

    def documents(self) -> Iterator[str]:
        for row in self.rows([self.text_field]):
            yield check_text(row[self.text_field], lambda: f"dataset {self.name_or_folder!r}")

    def rows(self, columns: list[str]) -> Iterator[dict[str, Any]]:
        """The values of the columns in every row."""
        dataset = _known_dataset(self.name_or_folder, self.split, self.config_name, self.fingerprint)
        table = dataset.select_columns(columns).with_format(None)
        for start in range(self.start, self.stop, 1024):
            values = table[start : min(start + 1024, self.stop)]
            for row in zip(*(values[column] for column in columns), strict=True):
                yield dict(zip(columns, row, strict=True))


@lru_cache(maxsize=8)
def _known_dataset(name_or_folder: str, split: str, config_name: str | None, fingerprint: str) -> Any:
    """The dataset for the parts of one process, loaded once."""
    dataset = load_dataset(name_or_folder, split, config_name)
    if dataset._fingerprint != fingerprint:
        raise ValueError(f"dataset {name_or_folder!r} changed while it was being read: run again")
    return dataset


def load_dataset(name_or_folder: str, split: str, config_name: str | None) -> Any:
    import datasets

    folder = Path(name_or_folder).expanduser()
    if not ((folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()):
        if name_or_folder.startswith((".", "/", "~")) and not folder.exists():
            raise FileNotFoundError(f"dataset folder {name_or_folder!r} does not exist: check the path")
        try:
            return datasets.load_dataset(str(folder) if folder.exists() else name_or_folder, config_name, split=split)
        except Exception as error:  # the hub client raises many kinds, all for a dataset that cannot be had
            raise ValueError(
                f"dataset {name_or_folder!r} (config {config_name!r}, split {split!r}) cannot be loaded: "
                f"{_one_line(error)}; check the names, or give a folder written by save_to_disk"
            ) from error
    loaded = datasets.load_from_disk(str(folder))
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise ValueError(
                f"dataset folder {name_or_folder!r} has no split {split!r}; there are {_quoted(loaded)}: set split"
            )
        return loaded[split]
    if split not in ("train", str(loaded.split)):
        raise ValueError(
            f"dataset folder {name_or_folder!r} holds one dataset without named splits: leave out split={split!r}"
        )
    return loaded


# ---- Python packages

# Not what people read the standard library for: tests and their data, bundled wheels, extension modules.
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
    """Text of installed Python packages; a corpus that every machine already has.

    Args:
        packages: Import names (``numpy``, ``torch.nn``), or ``stdlib`` for Python's standard library without
            its tests. Nothing is imported.
        content: ``code``: the .py files, each a document. ``docstrings``: for each .py file one document with
            the signatures and docstrings of its module, classes and functions (a file that this Python cannot
            parse has none). ``documentation``: the .rst, .md and .txt files.
        exclude: Shell patterns of paths below the package to leave out, such as ``*/tests/*``.
    """

    packages: list[str] | str
    content: Literal["code", "docstrings", "documentation"] = "code"
    exclude: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.packages = [self.packages] if isinstance(self.packages, str) else list(self.packages)
        if not self.packages:
            raise ValueError("PackageSource has no packages: name at least one, such as 'stdlib'")
        if self.content not in _PACKAGE_SUFFIXES:
            raise ValueError(f"unknown content {self.content!r}: choose one of {_quoted(_PACKAGE_SUFFIXES)}")

    def _files(self) -> list[tuple[str, Path]]:
        """Pairs (module name, file)."""
        return [pair for package in self.packages for pair in _package_files(package, self.content, self.exclude)]

    def identity(self) -> dict[str, Any]:
        # Which files have docstrings depends on what the parser can read.
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
        for file in _walk(root, suffixes, exclude):
            module = prefix + ".".join(file.relative_to(root).with_suffix("").parts)
            files.append((module.removesuffix(".__init__"), file))
    if not files:
        raise ValueError(
            f"package {package!r} has no {content} ({', '.join(suffixes)} files) left to read: choose another content"
        )
    return files


def _package_roots(package: str) -> list[Path]:
    top, *inner = package.split(".")
    # Of the top level only: finding the spec of a submodule would import its parents.
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
                with tokenize.open(path) as file:  # honours the file's coding line
                    code = file.read()
            except (SyntaxError, UnicodeDecodeError) as error:
                raise ValueError(
                    f"{path}: not readable Python source ({_one_line(error)}): leave it out with exclude"
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
            tree = ast.parse(code)
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
        elif isinstance(child, ast.If | ast.Try | ast.ExceptHandler | ast.With):  # depending on the platform
            _collect_docstrings(child, name, "", blocks)


# ---- generated, in memory

# reasoning-gym 0.1.25: items of these depend on Python's hash seed, those of codeio on what was asked before.
_HASH_DEPENDENT_TASKS = {
    "isomorphic_strings",
    "knight_swap",
    "polynomial_multiplication",
    "ransom_note",
    "word_ladder",
}
_UNREPEATABLE_TASKS = {"codeio", "composite"}
_REASONING_PART_ITEMS = 250  # the slowest tasks take 0.1 s an item
_REASONING_ITEM_BYTES = 600


@dataclass
class ReasoningGym(Source):
    """Worked solutions of reasoning-gym tasks: question, reasoning where the task knows it, answer.

    Items without an answer are empty documents, so they are skipped and counted.

    Args:
        tasks: Task names, such as ``gsm_symbolic`` (with worked reasoning) or ``chain_sum``.
        count: Items per task.
        seed: Seed of the generator; another seed gives other items.
        config: Settings per task, ``{chain_sum: {max_terms: 4}}``.
    """

    tasks: list[str]
    count: int
    seed: int = 0
    config: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks or self.count < 1:
            raise ValueError(f"ReasoningGym needs tasks and a positive count, not {self.tasks!r} and {self.count!r}")
        if unknown := set(self.config) - set(self.tasks):
            raise ValueError(
                f"ReasoningGym has a config for {_quoted(sorted(unknown))}, which is not in tasks: add or remove it"
            )
        for task in self.tasks:
            if task in _UNREPEATABLE_TASKS:
                raise ValueError(
                    f"reasoning-gym task {task!r} does not give the same items twice: remove it from tasks"
                )
            if task in _HASH_DEPENDENT_TASKS and not os.environ.get("PYTHONHASHSEED", "random").isdigit():
                raise ValueError(
                    f"reasoning-gym task {task!r} gives other items in each process: remove it from tasks, "
                    "or start Python with PYTHONHASHSEED=0"
                )

    def identity(self) -> dict[str, Any]:
        hashed = os.environ["PYTHONHASHSEED"] if _HASH_DEPENDENT_TASKS & set(self.tasks) else None
        return {
            "kind": "ReasoningGym",
            "version": importlib.metadata.version("reasoning-gym"),
            "tasks": list(self.tasks),
            "count": self.count,
            "seed": self.seed,
            "config": self.config,
            "hash_seed": hashed,
        }

    def parts(self) -> list[Part]:
        for task in self.tasks:
            # A wrong name or setting fails here and not in a worker.
            _create_task(task, 1, self.seed, self.config.get(task, {}))
        return [
            ReasoningGymPart(
                (min(start + _REASONING_PART_ITEMS, self.count) - start) * _REASONING_ITEM_BYTES,
                task,
                self.count,
                self.seed,
                self.config.get(task, {}),
                start,
                min(start + _REASONING_PART_ITEMS, self.count),
            )
            for task in self.tasks
            for start in range(0, self.count, _REASONING_PART_ITEMS)
        ]


@dataclass
class ReasoningGymPart(Part):
    """Items start..stop-1 of one task."""

    task: str
    count: int
    seed: int
    config: dict[str, Any]
    start: int
    stop: int

    def documents(self) -> Iterator[str]:
        for item in self.items():
            yield check_text(_worked_solution(item), lambda: f"reasoning-gym task {self.task!r}")

    def items(self) -> Iterator[dict[str, Any]]:
        """The task's own records."""
        dataset = _create_task(self.task, self.count, self.seed, self.config)
        for index in range(self.start, self.stop):
            yield dataset[index]


def _create_task(task: str, count: int, seed: int, config: dict[str, Any]) -> Any:
    import reasoning_gym

    try:
        return reasoning_gym.create_dataset(task, size=count, seed=seed, **config)
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(
            f"reasoning-gym task {task!r} with config {config!r}: {_one_line(error)}; mend tasks or config"
        ) from error


def _worked_solution(item: dict[str, Any]) -> str:
    if item["answer"] is None:
        return ""
    answer = str(item["answer"]).strip()
    steps = worked_steps(item)
    return "\n\n".join([item["question"].strip(), *([steps] if steps else []), f"Answer: {answer}"])


def worked_steps(item: dict[str, Any]) -> str:
    """The reasoning that a reasoning-gym task gives with its answer; empty where it gives none."""
    lines = (item["metadata"].get("answer_cot") or "").strip().splitlines()
    if lines and lines[-1].startswith("####"):  # "#### 7" repeats the answer
        lines.pop()
    return "\n".join(lines).strip()


@dataclass
class InMemory(Source):
    """Texts at hand, for notebooks and tests.

    Args:
        texts: The documents.
    """

    texts: list[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.texts, str):
            raise ValueError("InMemory needs a list of documents, not one string: write InMemory([text])")
        self.texts = [check_text(text, partial("InMemory text {}".format, i)) for i, text in enumerate(self.texts)]

    def identity(self) -> dict[str, Any]:
        digest = hashlib.blake2b(digest_size=16)
        for text in self.texts:
            data = text.encode("utf-8")
            digest.update(len(data).to_bytes(8, "little") + data)
        return {"kind": "InMemory", "digest": digest.hexdigest()}

    def parts(self) -> list[Part]:
        sizes = [(text, len(text.encode("utf-8"))) for text in self.texts]
        return [InMemoryPart(size, group) for group, size in pack(sizes, part_bytes(sum(s for _, s in sizes)))]


@dataclass
class InMemoryPart(Part):
    """Some texts."""

    texts: list[str]

    def documents(self) -> Iterator[str]:
        yield from self.texts
