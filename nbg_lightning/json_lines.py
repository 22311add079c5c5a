"""JSON lines: one value per line; only a line feed ends a line.

Model outputs contain other characters that Python's `splitlines` treats as line ends (U+2028, U+2029, U+0085, form feed),
and lone surrogates, which UTF-8 cannot represent. Those are written as JSON escapes, ``\\ud83d``: lines are always valid
UTF-8, and round trips are exact.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from nbg_lightning.error_line import first_line

LONGEST_LINE_BYTES = 1 << 28  # a text of 256 MB is no sample; a compressed file of zeros may be a terabyte


def json_line(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """A value as a line.

    Example:
        >>> json_line({"text": "one\\u2028line, half a pair \\ud83d"})
        b'{"text": "one\\xe2\\x80\\xa8line, half a pair \\\\ud83d"}\\n'
    """
    return json.dumps(value, ensure_ascii=False, default=default).encode("utf-8", "backslashreplace") + b"\n"


def byte_lines(stream: IO[bytes] | gzip.GzipFile, where: str, longest: int = LONGEST_LINE_BYTES) -> Iterator[bytes]:
    """Lines including their ends.

    Raises:
        ValueError: a line is longer than the limit; its number is named.
    """
    number = 0
    while line := stream.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise ValueError(f"{where}, line {number} is longer than {longest:,} bytes; split it, or remove it")
        yield line


def read_json_lines(
    path: str | Path, torn: Callable[[int, str], None] | None = None, longest: int = LONGEST_LINE_BYTES
) -> Iterator[tuple[int, Any]]:
    """The values of a file, plain or gzipped, with their line numbers; blank lines are skipped.

    Args:
        path: the file.
        torn: called with number and reason for lines that are not JSON; by default they are errors.
        longest: maximum bytes of a line.

    Raises:
        ValueError: a line is not JSON, or too long.
    """
    path = Path(path)
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        for number, line in enumerate(byte_lines(stream, str(path), longest), start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogatepass"))
            except (ValueError, RecursionError) as error:
                reason = f"not JSON ({first_line(error)})"
                if torn is None:
                    raise ValueError(f"{path}, line {number} is {reason}; fix or remove it") from None
                torn(number, reason)
                continue
            yield number, value
