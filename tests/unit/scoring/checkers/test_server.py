"""A child's report before it looked at its answer is distinguished from what follows."""

import os
import subprocess
import sys
import textwrap
import time

import pytest

from nbg_lightning.scoring.checkers.server import LARGEST_VERDICT, follow


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


@pytest.mark.parametrize(
    ("said", "reference", "rest"),
    [
        (b'1.0\n{"value": 0.0}', b"1.0", b'{"value": 0.0}'),
        (b"null\n", b"null", b""),
        (b'{"detail": "no"}', None, b'{"detail": "no"}'),
        (b"", None, b""),
        (b'0.5\n1.0\n{"value": 1.0}', b"0.5", b'1.0\n{"value": 1.0}'),
        (b"\n\n", b"", b"\n"),
    ],
)
def test_the_first_line_is_the_references(pipe, said, reference, rest):
    reader, writer = pipe
    os.write(writer, said)
    os.close(writer)
    assert follow(reader, 1.0) == (reference, rest, False)


def test_clocks_of_reference_and_answer(pipe):
    reader, writer = pipe
    begin = time.monotonic()
    assert follow(reader, 0.2) == (None, b"", True)
    os.write(writer, b"1.0\n{")
    assert follow(reader, 0.2) == (b"1.0", b"", True)
    assert time.monotonic() - begin >= 0.4
    os.close(writer)


def test_a_child_that_says_more_and_more_is_not_followed_for_ever(pipe):
    reader, writer = pipe
    os.set_blocking(writer, False)
    child = os.fork()
    if child == 0:
        os.set_blocking(writer, True)
        try:
            while True:
                os.write(writer, b"x" * 65_536)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        reference, said, timed_out = follow(reader, 30.0)
        assert reference is None and not timed_out and LARGEST_VERDICT < len(said) <= LARGEST_VERDICT + 65_536
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_gathered_memory_holds_what_it_held():
    """In another process, since it is for good."""
    code = """
        from nbg_lightning.scoring.checkers.confinement import gather_memory
        held = [bytes([place % 251]) * 100_003 for place in range(300)]
        small = [str(place) * 3 for place in range(200_000)]
        gather_memory()
        assert all(part == bytes([place % 251]) * 100_003 for place, part in enumerate(held))
        assert all(part == str(place) * 3 for place, part in enumerate(small))
        held.append(bytearray(1 << 24))
        gather_memory()
        print("the same")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.stdout == "the same\n", done.stderr
