"""Messages to and from a child process, framed by eight bytes of length, with timeouts."""

from __future__ import annotations

import os
import select
import struct
import time

_HEADER = struct.Struct("<Q")


def write_frame(descriptor: int, content: bytes, end: float | None) -> None:
    """Write a message.

    Args:
        descriptor: a non-blocking descriptor.
        content: content of the message.
        end: deadline on the monotonic clock; None for no limit.

    Raises:
        TimeoutError: it was not read in time.
        OSError: the other end is closed.
    """
    rest = memoryview(_HEADER.pack(len(content)) + content)
    while rest:
        if not select.select([], [descriptor], [], _left(end))[1]:
            raise TimeoutError
        rest = rest[os.write(descriptor, rest) :]


def read_frame(descriptor: int, end: float | None) -> bytes:
    """Read a message.

    Args:
        descriptor: the descriptor to read from.
        end: deadline on the monotonic clock; None for no limit.

    Raises:
        TimeoutError: it did not arrive in time.
        EOFError: the other end is closed.
    """

    def exactly(count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            if not select.select([descriptor], [], [], _left(end))[0]:
                raise TimeoutError
            part = os.read(descriptor, count - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    return exactly(*_HEADER.unpack(exactly(_HEADER.size)))


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())
