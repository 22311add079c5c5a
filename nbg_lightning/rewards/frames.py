"""Messages to and from a child process, each as eight bytes of length and its content, with a clock."""

from __future__ import annotations

import os
import select
import struct
import time

_HEADER = struct.Struct("<Q")


def write_frame(descriptor: int, content: bytes, end: float) -> None:
    """Write a message.

    Args:
        descriptor: does not block.
        content: of the message.
        end: when to give up, on the monotonic clock.

    Raises:
        TimeoutError: nobody read it in time.
        OSError: the other end is closed.
    """
    rest = memoryview(_HEADER.pack(len(content)) + content)
    while rest:
        if not select.select([], [descriptor], [], max(0.0, end - time.monotonic()))[1]:
            raise TimeoutError
        rest = rest[os.write(descriptor, rest) :]


def read_frame(descriptor: int, end: float) -> bytes:
    """Read a message.

    Args:
        descriptor: to read from.
        end: when to give up, on the monotonic clock.

    Raises:
        TimeoutError: it was not there in time.
        EOFError: the other end is closed.
    """

    def exactly(count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError
            part = os.read(descriptor, count - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    return exactly(*_HEADER.unpack(exactly(_HEADER.size)))
