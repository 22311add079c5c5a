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
        if not is_ready(descriptor, select.POLLOUT, end):
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
            if not is_ready(descriptor, select.POLLIN, end):
                raise TimeoutError
            part = os.read(descriptor, count - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    return exactly(*_HEADER.unpack(exactly(_HEADER.size)))


def is_ready(descriptor: int, event: int, end: float | None) -> bool:
    """Wait until a descriptor can be read or written, or its other end is closed.

    Unlike `select.select`, which takes no descriptor above 1,023, it works with any number of open files.

    Args:
        descriptor: the descriptor.
        event: ``select.POLLIN`` or ``select.POLLOUT``; 0 to wait for a closed end alone.
        end: deadline on the monotonic clock; None for no limit.
    """
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(None if end is None else 1000 * max(0.0, end - time.monotonic())))
