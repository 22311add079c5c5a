"""JSON-lines files, plain or gzipped."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nbg_lightning.chat.values import ConversationError
from nbg_lightning.data.sources.files import file_identity, file_size, find_files, open_file, open_text
from nbg_lightning.data.sources.source import Part, Source, check_text, pack, part_bytes, quoted
from nbg_lightning.json_lines import LONGEST_LINE_BYTES, byte_lines
from nbg_lightning.suggestion import did_you_mean

_LINE_BYTES = 1 << 16  # usually enough for the line before a range and its last line
GZIP_RATIO = 3  # text bytes per compressed byte, for progress only


@dataclass
class JsonLines(Source):
    """JSON-lines files with one object per line, whose text is in one field.

    Args:
        path: A .jsonl or .jsonl.gz file, a pattern such as ``corpus/*.jsonl``, a folder (searched recursively), or
            a URL of one of these, such as ``s3://bucket/corpus/*.jsonl.gz``. Plain files are read in parallel; a .gz
            file cannot be read from the middle and forms one part, so split large ones.
        text_field: Name of the field with the text.
    """

    path: str
    text_field: str = "text"

    def _files(self) -> list[str]:
        return find_files(self.path, (".jsonl", ".jsonl.gz"))

    def identity(self) -> dict[str, Any]:
        return {"kind": "JsonLines", "text_field": self.text_field, "files": file_identity(self._files())}

    def parts(self) -> list[Part]:
        sizes = [(file, file_size(file)) for file in self._files()]
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
                    f"{where()}: no field {self.text_field!r}; there are {quoted(record)}: set text_field to one of them"
                    f"{did_you_mean(self.text_field, record)}"
                )
            yield check_text(record[self.text_field], where)

    def records(self) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """(path, position of the line, object) of every non-blank line."""
        for path, position, line in self.lines():
            yield path, position, json_object(line, path, position, self.text_field)

    def lines(self) -> Iterator[tuple[str, int, bytes]]:
        """(path, position, bytes) of every non-blank line."""
        for path, start, stop in self.slices:
            for position, line in gzip_lines(path) if path.endswith(".gz") else _lines(path, start, stop):
                if line.strip():
                    yield path, position, line


def json_object(
    line: bytes, path: str, position: int, field: str, load: Callable[[str], Any] = json.loads
) -> dict[str, Any]:
    """Parse a line as an object.

    Args:
        line: the bytes of the line.
        path: path of its file, for messages.
        position: byte position of the line in the file.
        field: a field that the object should have, for messages.
        load: parses JSON text.

    Raises:
        ValueError: it is not an object, or ``load`` fails; with the line number.
    """

    def where() -> str:
        return f"{path}:{line_number(path, position)}"

    try:
        record = load(line.decode("utf-8-sig" if position == 0 else "utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where()}: not UTF-8 at byte {error.start} of the line; convert the file to UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{where()}: malformed JSON ({error.msg}); fix or remove this line") from None
    except RecursionError:
        raise ValueError(f"{where()}: JSON nested too deeply to read; fix or remove this line") from None
    except ConversationError as error:
        raise ValueError(f"{where()}: {error}; fix or remove this line") from None
    except ValueError:  # an integer that Python refuses to parse
        raise ValueError(f"{where()}: a number has too many digits; fix or remove this line") from None
    if not isinstance(record, dict):
        raise ValueError(
            f'{where()}: a line must be a JSON object like {{"{field}": ...}}, '
            f"not a {type(record).__name__}; fix or remove this line"
        )
    return record


def _lines(path: str, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    with open_file(path, stop - start + _LINE_BYTES) as file:
        if start:
            file.seek(start - 1)
            while (rest := file.readline(LONGEST_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass  # the rest of a line that begins before this range
        position = file.tell()
        lines = byte_lines(file, f"{path} from byte {position:,}")
        while position < stop and (line := next(lines, b"")):
            yield position, line
            position += len(line)


def gzip_lines(path: str) -> Iterator[tuple[int, bytes]]:
    position = 0
    try:
        with open_text(path) as file:
            for line in byte_lines(file, path):
                yield position, line
                position += len(line)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}); download or compress it again") from None


def line_number(path: str, position: int) -> int:
    """Line number of the byte at `position` of the (decompressed) text."""
    count, left = 1, position
    with open_text(path) as file:
        while left and (block := file.read(min(left, 1 << 20))):
            count += block.count(b"\n")
            left -= len(block)
    return count
