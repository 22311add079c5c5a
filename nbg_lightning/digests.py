"""Digests of file blocks, which detect damage: a flipped bit, truncation, a swapped file. They are not signatures.

xxh3 processes about 20 GB/s on one core, so verification is cheap compared with reading. A JSON document is sealed by a
last line with the digest of every byte before it.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import xxhash

from nbg_lightning.error_line import first_line
from nbg_lightning.json_lines import json_line

BLOCK_BYTES = 1 << 22
_HEX = 16  # characters of a digest
_SEAL = re.compile(rb'"seal": "xxh3:([0-9a-f]{16})"\n?\}\n\Z')
_LONGEST_SEAL = 64


def digest(data: Any) -> str:
    """Hex digest (xxh3, 64 bits) of bytes.

    Example:
        >>> digest(b"a checkpoint")
        'e3f8f0bae8c57265'
    """
    return xxhash.xxh3_64_hexdigest(data)


def require_regular(file: Path) -> None:
    """Raise for files that would block or never end: a pipe, a device, a folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a regular file.
    """
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{file} is invalid: not a regular file; replace it")


# -- blocks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileDigest:
    """Size of a file and the digest of each of its blocks, the last of which may be shorter."""

    num_bytes: int
    blocks: tuple[str, ...]
    block_bytes: int = BLOCK_BYTES

    @classmethod
    def of(cls, data: Any, block_bytes: int = BLOCK_BYTES) -> FileDigest:
        """Digest of bytes in memory."""
        view = memoryview(data).cast("B")
        parts = (view[begin : begin + block_bytes] for begin in range(0, len(view), block_bytes))
        return cls(len(view), tuple(digest(part) for part in parts), block_bytes)

    def to_json(self) -> dict[str, Any]:
        return {"bytes": self.num_bytes, "block_bytes": self.block_bytes, "blocks": "".join(self.blocks)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FileDigest:
        """Raises KeyError, TypeError or ValueError for something else."""
        num_bytes, block_bytes, text = value["bytes"], value["block_bytes"], value["blocks"]
        count = len(text) // _HEX
        if num_bytes < 0 or block_bytes < 1 or len(text) % _HEX or count != -(-num_bytes // block_bytes):
            raise ValueError("its blocks do not cover the file")
        return cls(num_bytes, tuple(text[i * _HEX : (i + 1) * _HEX] for i in range(count)), block_bytes)


class HashingStream(io.RawIOBase):
    """A file that is written sequentially while its blocks are hashed.

    Args:
        file: a path, created or truncated; or a file that is open for writing.
        block_bytes: size of a block.
    """

    def __init__(self, file: str | Path | IO[bytes], block_bytes: int = BLOCK_BYTES):
        super().__init__()
        self._file: Any = open(file, "wb") if isinstance(file, (str, Path)) else file  # noqa: SIM115
        self._block_bytes = block_bytes
        self._num_bytes = 0
        self._blocks: list[str] = []
        self._hash = xxhash.xxh3_64()

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._file.write(view)
        begin = 0
        while begin < len(view):
            left = self._block_bytes - self._num_bytes % self._block_bytes
            part = view[begin : begin + left]
            self._hash.update(part)
            begin += len(part)
            self._num_bytes += len(part)
            if len(part) == left:
                self._blocks.append(self._hash.hexdigest())
                self._hash.reset()
        return len(view)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._num_bytes

    def fileno(self) -> int:
        return self._file.fileno()

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:  # the disk is full, so that even the buffer cannot be written
            if isinstance(self._file, io.BufferedWriter):
                self._file.raw.close()
            raise
        finally:
            super().close()

    @property
    def digest(self) -> FileDigest:
        """Digest of the bytes written so far."""
        last = () if self._num_bytes % self._block_bytes == 0 else (self._hash.hexdigest(),)
        return FileDigest(self._num_bytes, (*self._blocks, *last), self._block_bytes)


class SizedReader(io.RawIOBase):
    """A seekable byte stream of known length; subclasses define `readinto`, which advances the position.

    Args:
        length: number of bytes.
    """

    def __init__(self, length: int):
        super().__init__()
        self._length, self._position = length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position


class CheckedFile(SizedReader):
    """A file whose blocks are verified against their digests when they are first read.

    Args:
        file: file to read.
        expected: its digest.
        advice: what to do about a damaged file, the end of the message.

    Raises:
        ValueError: the file's size, or on reading a block of it, its content, is not what was written.
    """

    def __init__(self, file: Any, expected: FileDigest, advice: str):
        super().__init__(expected.num_bytes)
        self._path, self._expected, self._advice = file, expected, advice
        self._file, size = self._opened()
        if size != expected.num_bytes:
            self._file.close()
            raise ValueError(
                f"{file} is damaged: it has {size:,} bytes instead of {expected.num_bytes:,}; {self._advice}"
            )
        self._checked = bytearray(len(expected.blocks))

    def _opened(self) -> tuple[Any, int]:
        """The open file and its size."""
        require_regular(self._path)
        file = open(self._path, "rb", buffering=0)  # noqa: SIM115
        return file, os.fstat(file.fileno()).st_size

    def readinto(self, buffer: Any) -> int:
        out = memoryview(buffer).cast("B")
        begin, end = self._position, min(self._position + len(out), self._expected.num_bytes)
        size = self._expected.block_bytes
        at = begin
        while at < end:
            number = at // size
            stop = min(end, (number + 1) * size)
            self._read(number, at, out[at - begin : stop - begin])
            at = stop
        self._position = max(begin, end)
        return max(0, end - begin)

    def _read(self, number: int, begin: int, out: memoryview) -> None:
        """Bytes of one block, which is checked the first time."""
        first = number * self._expected.block_bytes
        length = min(self._expected.block_bytes, self._expected.num_bytes - first)
        if self._checked[number]:
            self._fill(begin, out)
            return
        block = out if len(out) == length else memoryview(bytearray(length))
        self._fill(first, block)
        if digest(block) != self._expected.blocks[number]:
            raise ValueError(
                f"{self._path} is damaged between bytes {first:,} and {first + length:,}: its digest does not match; "
                f"{self._advice}"
            )
        self._checked[number] = 1
        if block is not out:
            out[:] = block[begin - first : begin - first + len(out)]

    def _fill(self, begin: int, out: memoryview) -> None:
        done = 0
        while done < len(out):
            count = os.preadv(self._file.fileno(), [out[done:]], begin + done)
            if not count:
                raise ValueError(f"{self._path} is damaged: it has become shorter; {self._advice}")
            done += count

    def check(self) -> None:
        """Verify all blocks.

        Raises:
            ValueError: a block is not what was written.
        """
        for number in range(len(self._checked)):
            self._read(number, number * self._expected.block_bytes, memoryview(bytearray(1)))

    def close(self) -> None:
        try:
            self._file.close()
        finally:
            super().close()


class Readable(Protocol):
    """A path, or what is read as one."""

    def read_bytes(self) -> bytes: ...


# -- sealed JSON -------------------------------------------------------------------------------------------------------


def seal(value: dict[str, Any], indent: int | None = 1) -> str:
    """A JSON object as text that ends with the digest of all before it.

    Example:
        >>> print(seal({"tokens": 3}, indent=None), end="")
        {"tokens": 3, "seal": "xxh3:eed7134661fffba5"}
    """
    body = json.dumps(value, indent=indent).removesuffix("}").rstrip()
    comma = "," if value else ""
    gap = " " if indent is None else "\n" + " " * indent
    body = f"{body}{comma}{gap}"
    end = "}" if indent is None else "\n}"
    return f'{body}"seal": "xxh3:{digest(body.encode())}"{end}\n'


def sealed_line(value: dict[str, Any]) -> bytes:
    """As `json_line`, sealed: a record of a file that grows line by line.

    Example:
        >>> sealed_line({"text": "Größe"}).decode()
        '{"text": "Größe", "seal": "xxh3:3eb35759321a7a70"}\\n'
    """
    body = json_line(value).removesuffix(b"}\n") + (b", " if value else b"")
    return body + f'"seal": "xxh3:{digest(body)}"}}\n'.encode()


def unseal_line(line: bytes) -> Any:
    """Parse a line of `sealed_line`, or an unsealed one, as in older files.

    Raises:
        ValueError: it is not JSON, or has changed since it was sealed.
    """
    line = line.rstrip(b"\r\n") + b"\n"
    if is_sealed(line):
        return unseal(line)
    if any(mark in line[-_LONGEST_SEAL:] for mark in (b'"seal"', b'"xxh3:')):  # damage to a seal leaves one of them
        raise ValueError("its seal is damaged")
    return json.loads(line)


def is_sealed(data: bytes) -> bool:
    """Whether bytes end as a sealed object does."""
    return _SEAL.search(data[-_LONGEST_SEAL:]) is not None


def unseal(data: bytes) -> dict[str, Any]:
    """The object of a sealed text.

    Raises:
        ValueError: it is not sealed, or has changed since.
    """
    found = _SEAL.search(data[-_LONGEST_SEAL:])
    if found is None:
        raise ValueError("it does not end with its seal")
    whole = max(0, len(data) - _LONGEST_SEAL)
    if digest(data[: whole + found.start()]) != found[1].decode():
        raise ValueError("its content does not have the digest of its seal")
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    del value["seal"]
    return value


def read_sealed(file: Readable, advice: str, required: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Any], bool]:
    """A JSON object from a file, and whether it was sealed.

    Args:
        file: to read.
        advice: what to do about a damaged file, the end of the message.
        required: whether such an object must be sealed: those of older formats are not.

    Raises:
        ValueError: it is damaged.
        FileNotFoundError: it is not there.
    """
    return parse_sealed(file.read_bytes(), str(file), advice, required)


def parse_sealed(
    data: bytes, where: str, advice: str, required: Callable[[dict[str, Any]], bool]
) -> tuple[dict[str, Any], bool]:
    """As `read_sealed`, of bytes that were read from somewhere."""
    try:
        if is_sealed(data):
            return unseal(data), True
        value = json.loads(data)
        if not isinstance(value, dict) or required(value):
            raise ValueError("it does not end with its seal")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is damaged: {first_line(error)}; {advice}") from None
    return value, False
