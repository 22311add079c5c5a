"""Messages to child processes, also of a process with more than 1,024 open files."""

import fcntl
import os
import resource
import socket
import time

import pytest

from nbg_lightning.scoring.frames import read_frame, write_frame


@pytest.fixture(params=[3, 1024, 1100], ids=["low", "first above select's", "high"])
def pair(request):
    """Two ends whose descriptors are at least this number."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 1200), limits[1]))
    ends = socket.socketpair()
    numbers = [fcntl.fcntl(end, fcntl.F_DUPFD, request.param) for end in ends]
    for end in ends:
        end.close()
    for number in numbers:
        os.set_blocking(number, False)
    yield numbers
    for number in numbers:
        try:
            os.close(number)
        except OSError:  # the test closed it
            continue
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_message_arrives(pair):
    one, other = pair
    write_frame(one, b"x" * 10_000, time.monotonic() + 20)
    assert read_frame(other, time.monotonic() + 20) == b"x" * 10_000
    write_frame(other, b"", None)
    assert read_frame(one, None) == b""


def test_nothing_to_read_and_nobody_who_reads_are_timeouts(pair):
    one, other = pair
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        read_frame(one, begin + 0.1)
    with pytest.raises(TimeoutError):
        write_frame(one, b"x" * 10_000_000, time.monotonic() + 0.1)
    with pytest.raises(TimeoutError):
        read_frame(other, begin)  # has passed; the message is not whole
    assert time.monotonic() >= begin + 0.2


def test_a_closed_end_is_an_end(pair):
    one, other = pair
    write_frame(one, b"whole", None)
    os.write(one, b"\x05")
    os.close(one)
    assert read_frame(other, None) == b"whole"
    with pytest.raises(EOFError):
        read_frame(other, None)
    with pytest.raises(OSError, match="Broken pipe"):
        write_frame(other, b"x" * 10, time.monotonic() + 20)
