"""Random corruption of stored bytes, to test its detection."""

from __future__ import annotations

from random import Random


def damaged(data: bytes, draw: Random) -> bytes:
    """The bytes with a flipped bit, a zeroed block, a truncated end or an appended byte; always different from the input."""
    place = draw.randrange(len(data))
    ways = [
        data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :],
        data[:place] + bytes(len(data[place : place + 64])) + data[place + 64 :],
        data[:place],
        data + draw.randbytes(1 + draw.randrange(20)),
    ]
    return draw.choice([way for way in ways if way != data])
