"""Raw documents of a source: unusable ones are reported and counted, where training would refuse the whole source."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from nbg_lightning.data.sources import (
    HuggingFacePart,
    JsonLinesPart,
    ParquetPart,
    Part,
    PythonPart,
    ReasoningGymPart,
    TextPart,
    gzip_lines,
    line_number,
    open_parquet,
)

Problem = Literal["empty", "binary", "encoding", "too_long", "malformed"]
"""Reasons why a document is unusable: only whitespace; not text; not UTF-8; above the size limit; a line that is not a
JSON object with a text in the field."""
FIXED = "encoding_fixed"

_CONTROL = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MAX_CONTROL_SHARE = 0.01  # text with terminal escape sequences stays below
_MAX_REPLACED_SHARE = 0.1  # above this it is not text in a slightly broken encoding
_JSON_ESCAPES = 6  # maximum bytes in JSON for one byte of text


@dataclass(frozen=True)
class Limits:
    """Limits of a document.

    Args:
        max_bytes: maximum size in UTF-8; larger documents are dropped.
        broken_encoding: ``drop`` documents that are not UTF-8, or ``replace`` invalid bytes by U+FFFD, if these are
            at most a tenth of the text.

    Raises:
        ValueError: the limit admits nothing.
    """

    max_bytes: int = 10_000_000
    broken_encoding: Literal["drop", "replace"] = "drop"

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes is invalid: {self.max_bytes}; give at least 1")
        if self.broken_encoding not in ("drop", "replace"):
            raise ValueError(f"broken_encoding is invalid: {self.broken_encoding!r}; choose 'drop' or 'replace'")

    def to_dict(self) -> dict[str, Any]:
        """The limits as JSON."""
        return asdict(self)


class RawDocument(NamedTuple):
    """A document, or the reason why it is unusable.

    Attributes:
        place: its location for display: a path, line or row.
        text: empty if there is a problem.
        problem: see `Problem`.
        fixed: whether characters were replaced.
    """

    place: str
    text: str
    problem: Problem | None = None
    fixed: bool = False


def document_id(text: str) -> str:
    """Hex digest of the text, which identifies a document in every build."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def check_document(place: str, data: bytes | str, limits: Limits) -> RawDocument:
    """Validate a document given as bytes or text.

    Example:
        >>> check_document("a.txt", b"caf\\xe9", Limits()).problem
        'encoding'
        >>> check_document("a.txt", b"a long line, then caf\\xe9", Limits(broken_encoding="replace")).text[-4:]
        'caf�'
    """
    fixed = False
    if isinstance(data, str):
        if not data.isascii() and (surrogate := re.search("[\ud800-\udfff]", data)):
            if limits.broken_encoding == "drop":
                return RawDocument(place, "", "encoding")
            data, fixed = re.sub("[\ud800-\udfff]", "�", data), surrogate is not None
        data = data.encode()
    if len(data) > limits.max_bytes:
        return RawDocument(place, "", "too_long")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16 has a zero byte for each Latin letter
        return RawDocument(place, "", "encoding")
    if b"\0" in data or len(_CONTROL.findall(data)) > _MAX_CONTROL_SHARE * len(data):
        return RawDocument(place, "", "binary")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("utf-8-sig", "replace")
        if limits.broken_encoding == "drop" or text.count("�") > _MAX_REPLACED_SHARE * len(text):
            return RawDocument(place, "", "encoding")
        fixed = True
    if not text or text.isspace():
        return RawDocument(place, "", "empty")
    return RawDocument(place, text, None, fixed)


def read_part(part: Part, limits: Limits) -> Iterator[RawDocument]:
    """The documents of one part of a source in order, including unusable ones.

    Raises:
        ValueError, OSError: a whole file is unreadable, such as damaged gzip or Parquet.
    """
    if isinstance(part, JsonLinesPart):
        yield from _json_lines(part, limits)
    elif isinstance(part, ParquetPart):
        yield from _parquet(part, limits)
    elif isinstance(part, TextPart):
        for path in part.paths:
            if os.path.getsize(path) > limits.max_bytes:
                yield RawDocument(path, "", "too_long")
                continue
            with open(path, "rb") as file:
                yield check_document(path, file.read(), limits)
    elif isinstance(part, PythonPart):
        for module in part.modules:
            if os.path.getsize(module[1]) > limits.max_bytes:
                yield RawDocument(module[1], "", "too_long")
                continue
            try:
                (text,) = PythonPart(part.size, [module], part.content).documents()
            except ValueError:  # not in its declared encoding
                yield RawDocument(module[1], "", "encoding")
                continue
            yield check_document(module[1], text, limits)
    else:
        for number, text in enumerate(part.documents()):
            yield check_document(f"{type(part).__name__} {_name(part)}:{number}", text or "", limits)


def _name(part: Part) -> str:
    """A name for a part whose documents have no location in a file."""
    if isinstance(part, HuggingFacePart):
        return f"{part.name_or_folder} from {part.start}"
    return f"{part.task} from {part.start}" if isinstance(part, ReasoningGymPart) else ""


def _json_lines(part: JsonLinesPart, limits: Limits) -> Iterator[RawDocument]:
    longest = _JSON_ESCAPES * limits.max_bytes + (1 << 16)  # room for other fields
    for path, start, stop in part.slices:
        lines = gzip_lines(path) if path.endswith(".gz") else _bounded_lines(path, start, stop, longest)
        for position, line in lines:
            place = f"{path}:byte {position}"
            if len(line) > longest:
                yield RawDocument(place, "", "too_long")
            elif line.strip():
                yield _json_line(place, line, part.text_field, limits)


def _bounded_lines(path: str, start: int, stop: int, longest: int) -> Iterator[tuple[int, bytes]]:
    """(position, line) of the lines that begin in a range; lines that are too long are truncated."""
    with open(path, "rb") as file:
        if start:
            file.seek(start - 1)
            _skip_line(file, longest)
        position = file.tell()
        while position < stop and (line := file.readline(longest + 1)):
            yield position, line
            if not line.endswith(b"\n"):
                _skip_line(file, longest)
            position = file.tell()


def _skip_line(file: Any, block: int) -> None:
    while (rest := file.readline(block)) and not rest.endswith(b"\n"):
        pass


def _json_line(place: str, line: bytes, field: str, limits: Limits) -> RawDocument:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        if limits.broken_encoding == "drop":
            return RawDocument(place, "", "encoding")
        try:
            record = json.loads(line.decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError):
            return RawDocument(place, "", "malformed")
        text = record.get(field) if isinstance(record, dict) else None
        if isinstance(text, str) and text.count("�") > _MAX_REPLACED_SHARE * len(text):
            return RawDocument(place, "", "encoding")
        if isinstance(text, str):
            return check_document(place, text, limits)._replace(fixed=True)
        return RawDocument(place, "", "malformed")
    except (ValueError, RecursionError):
        return RawDocument(place, "", "malformed")
    if not isinstance(record, dict) or field not in record:
        return RawDocument(place, "", "malformed")
    text = record[field]
    if text is None:
        return RawDocument(place, "", "empty")
    return check_document(place, text, limits) if isinstance(text, str) else RawDocument(place, "", "malformed")


def _parquet(part: ParquetPart, limits: Limits) -> Iterator[RawDocument]:
    import pyarrow

    for path, index in part.row_groups:
        with open_parquet(path) as file:
            number = 0
            try:
                for batch in file.iter_batches(batch_size=64, row_groups=[index], columns=[part.text_field]):
                    column = batch.column(0)
                    if pyarrow.types.is_dictionary(column.type):
                        column = column.dictionary_decode()
                    if not pyarrow.types.is_null(column.type):  # as bytes: strings need not be UTF-8
                        column = column.cast(pyarrow.large_binary())
                    for value in column:
                        data = value.as_py()
                        yield check_document(f"{path}:row group {index}, row {number}", data or b"", limits)
                        number += 1
            except (OSError, pyarrow.ArrowInvalid) as error:  # raised by pyarrow for damaged pages
                if isinstance(error, OSError) and error.errno:
                    raise
                raise ValueError(f"{path}: row group {index} cannot be read ({error}); replace the file") from None


def readable_place(place: str) -> str:
    """The location with its line number, which requires reading the file up to there."""
    found = re.fullmatch(r"(.*):byte (\d+)", place)
    return place if found is None else f"{found[1]}:{line_number(found[1], int(found[2]))}"
