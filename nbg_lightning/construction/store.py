"""A build's folder: crash-safe records by key in append-only JSON lines, and the manifest of what they depend on.

::

        manifest.json   everything that determines the output; a folder is never continued with other settings
        NAME.jsonl      records by key (`KeyedLines`), from which an interrupted build resumes
        OUTPUT.jsonl    written to a temporary file and renamed when complete (`Store.write_lines`), in input order
        report.json     counts of kept and dropped items, with reasons

One write contains all records of a call, and is flushed to disk before anything depends on it. A line torn by a kill is
truncated when the file is opened again; its records are generated again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from nbg_lightning.construction.former_names import FORMER_MANIFEST, report_with_current_names, with_current_names
from nbg_lightning.data.durable import atomic, write_atomic
from nbg_lightning.data.folder_lock import folder_lock
from nbg_lightning.json_lines import json_line

JsonRecord = dict[str, Any]
MANIFEST, REPORT = "manifest.json", "report.json"
_MISSING = object()


class KeyedLines:
    """An append-only file of JSON objects, each with a text under ``key``; if a key was added again, the last record counts.

    Only keys and offsets are in memory, some 150 bytes per record; records are read on access.

    Args:
        file: created with the first record.

    Raises:
        ValueError: a complete line of the file is not such an object.
    """

    def __init__(self, file: str | Path):
        self.file = Path(file)
        self._places: dict[str, tuple[int, int]] = {}
        self._size = 0
        self._appending: IO[bytes] | None = None
        self._reading: IO[bytes] | None = None
        if self.file.is_file():
            self._index()

    def _index(self) -> None:
        with self.file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break  # torn by a kill
                try:
                    key = json.loads(line)["key"]
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{self.file}, line {number} is invalid: no record ({type(error).__name__}); remove the line, and "
                        "the build makes it again"
                    ) from error
                self._places[key] = self._size, len(line)
                self._size += len(line)
        if self._size < self.file.stat().st_size:
            os.truncate(self.file, self._size)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, key: str) -> JsonRecord:
        place, length = self._places[key]
        if self._reading is None:
            self._reading = self.file.open("rb")
        self._reading.seek(place)
        return json.loads(self._reading.read(length))

    def get(self, key: str) -> JsonRecord | None:
        """The record with this key, or None."""
        return self[key] if key in self._places else None

    def add(self, records: Iterable[JsonRecord], replace: bool = False) -> None:
        """Append records in one write, and wait until they are on disk.

        Args:
            records: records, each with its ``key``.
            replace: replace existing records with the same key.

        Raises:
            ValueError: a key exists already, or is given twice.
        """
        places: dict[str, tuple[int, int]] = {}
        content = bytearray()
        for record in records:
            key = record["key"]
            if not replace and (key in self._places or key in places):
                raise ValueError(f"key is invalid: {key!r} is in {self.file} already; give every record its own key")
            line = as_line(record)
            places[key] = self._size + len(content), len(line)
            content += line
        if not content:
            return
        if self._appending is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._appending = self.file.open("ab", buffering=0)
        written = 0
        while written < len(content):
            written += self._appending.write(memoryview(content)[written:]) or 0
        os.fsync(self._appending.fileno())
        self._places |= places
        self._size += len(content)

    def close(self) -> None:
        """Close the file; it is reopened when needed."""
        for stream in (self._appending, self._reading):
            if stream is not None:
                stream.close()
        self._appending = self._reading = None


class Store:
    """The folder of one build; used as a context manager, by one process at a time.

    Args:
        folder: created if it does not exist.
        manifest: everything that determines the output, as JSON: settings, engines, inputs, format versions.

    Raises:
        ValueError: on entering: the folder holds another build; the message names the first difference.
        RuntimeError: on entering: another process builds here.

    Example:
        >>> import tempfile
        >>> with Store(tempfile.mkdtemp(), {"threshold": 7}) as store:
        ...     lines = store.lines("records")
        ...     lines.add([{"key": "a", "score": 8}])
        ...     lines["a"]["score"], "b" in lines
        (8, False)
    """

    def __init__(self, folder: str | Path, manifest: Mapping[str, Any]):
        self.folder = Path(folder).expanduser()
        self.manifest: JsonRecord = json.loads(json.dumps(manifest))
        self._lock = ExitStack()
        self._open = False
        self._lines: dict[str, KeyedLines] = {}

    def __enter__(self) -> Store:
        self._lock.enter_context(folder_lock(self.folder, "builds"))
        try:
            self._check_manifest()
        except BaseException:
            self._lock.close()
            raise
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        for lines in self._lines.values():
            lines.close()
        self._lines.clear()
        self._open = False
        self._lock.close()

    def _check_manifest(self) -> None:
        if not manifest_file(self.folder).is_file():
            write_atomic(self.folder / MANIFEST, json.dumps(self.manifest, indent=1, ensure_ascii=False) + "\n")
        elif (found := _difference(read_manifest(self.folder), self.manifest)) is not None:
            raise ValueError(
                f"{self.folder} is invalid: a build with other settings ({found}); give another folder, or remove this one"
            )

    def lines(self, name: str) -> KeyedLines:
        """The records under a name, which an interrupted build resumes from."""
        if not self._open:
            raise RuntimeError(f"the store of {self.folder} is invalid: not open; use it in a with block")
        if name not in self._lines:
            self._lines[name] = KeyedLines(self.folder / f"{name}.jsonl")
        return self._lines[name]

    def write_lines(self, name: str, rows: Iterable[JsonRecord]) -> Path:
        """Write an output of JSON lines atomically."""
        file = self.folder / f"{name}.jsonl"
        with atomic(file) as stream:
            for row in rows:
                stream.write(as_line(row))
        return file

    def write_report(self, report: Mapping[str, Any]) -> Path:
        """Write ``report.json``."""
        file = self.folder / REPORT
        write_atomic(file, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        return file


def manifest_file(folder: Path) -> Path:
    """The manifest of a build's folder, also under its former name; the file need not exist."""
    former = folder / FORMER_MANIFEST
    return former if former.is_file() and not (folder / MANIFEST).is_file() else folder / MANIFEST


def read_manifest(folder: Path) -> JsonRecord:
    """Read the manifest of a build.

    Raises:
        FileNotFoundError: there is no build.
        ValueError: the file is damaged.
    """
    file = manifest_file(folder)
    try:
        return with_current_names(json.loads(file.read_text("utf-8")))
    except ValueError as error:
        raise ValueError(f"{file} is invalid: not JSON ({error}); give another folder") from error


def read_report(folder: Path) -> JsonRecord:
    """Read the report of a finished build.

    Raises:
        FileNotFoundError: the build is not finished.
        ValueError: the file is damaged.
    """
    file = folder / REPORT
    try:
        return report_with_current_names(json.loads(file.read_text("utf-8")))
    except ValueError as error:
        raise ValueError(f"{file} is invalid: not JSON ({error}); build the folder again") from error


def as_line(record: Mapping[str, Any]) -> bytes:
    """A record as a JSON line; values without a JSON type, such as fractions, are written as text."""
    return json_line(record, default=str)


def _difference(there: Any, here: Any, path: str = "") -> str | None:
    """The first difference of two JSON values, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            inner = _difference(there.get(name, _MISSING), here.get(name, _MISSING), f"{path}.{name}" if path else name)
            if inner is not None:
                return inner
        return None
    if there == here:
        return None

    def shown(value: Any) -> str:
        text = "nothing" if value is _MISSING else json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 60 else text[:60] + "..."

    return f"{path}: {shown(there)} there, {shown(here)} here"
