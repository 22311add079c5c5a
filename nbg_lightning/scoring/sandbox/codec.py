"""Encoding of plain data as bytes, between the host, the judge and the program. Decoding creates nothing but plain data.

A frame is a length and one value. A value is a tag of one byte and its content; lengths are checked before allocation.
"""

from __future__ import annotations

import os
import struct

from nbg_lightning.scoring.sandbox.plain import make, parts_of

TYPE_CHECKING = False  # importing `typing` takes longer than everything else
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LARGEST_FRAME = 1 << 26  # bytes of a message, and thus of a value
DEEPEST = 100  # nested containers; deeper values are not plain data
CHANGEABLE = (list, dict, set, bytearray)  # their identity and changes are transferred with a call
_CONTAINERS: dict[Any, bytes] = {list: b"l", tuple: b"t", set: b"S", frozenset: b"Z"}
_BASES = (int, float, str, bytes, bytearray, complex, list, tuple, set, frozenset, dict)
_LENGTH = struct.Struct("<I")
_FLOAT = struct.Struct("<d")


class NotPlain(TypeError):
    """A value that cannot be transferred."""


class ValueEncoder:
    """Encodes plain data as bytes.

    Args:
        other: encodes values of any other type. Without it, subclasses become their base type, so that none of their
            behaviour is transferred, and other types are refused.
        given: mutable containers that the other side has: by ``id`` the index that is sent instead of them.
        collect: records the containers that are sent, which then belong to ``given``.
    """

    def __init__(
        self,
        other: Callable[[Any], bytes] | None = None,
        given: dict[int, int] | None = None,
        collect: list[Any] | None = None,
    ):
        self.other, self.given, self.collect = other, {} if given is None else given, collect

    def encode(self, value: Any, depth: int = 0) -> bytes:
        """Encode a value.

        Raises:
            NotPlain: a value of another type, without ``other``.
        """
        if type(value) in CHANGEABLE:
            place = self.given.get(id(value))
            if place is not None:
                return b"A" + _LENGTH.pack(place)
            if self.collect is not None:
                self.given[id(value)] = len(self.collect)
                self.collect.append(value)
        return self.content(value, depth)

    def content(self, value: Any, depth: int = 0) -> bytes:
        """Encode a value, even if it is a container that the other side has."""
        kind = type(value)
        if value is None:
            return b"N"
        if kind is bool:
            return b"T" if value else b"F"
        if kind is int:
            return _sized(b"i", int.to_bytes(value, int.bit_length(value) // 8 + 1, "little", signed=True))
        if kind is str:
            return _sized(b"s", str.encode(value, "utf-8", "surrogatepass"))
        if kind is float:
            return b"f" + _FLOAT.pack(value)
        if kind in (bytes, bytearray):
            return _sized(b"a" if kind is bytearray else b"b", bytes(value))
        if kind is complex:
            return b"c" + _FLOAT.pack(value.real) + _FLOAT.pack(value.imag)
        if depth < DEEPEST:
            tag = _CONTAINERS.get(kind)
            if tag is not None:
                items = [self.encode(item, depth + 1) for item in value]
                return tag + _LENGTH.pack(len(items)) + b"".join(items)
            if kind is dict:
                parts = [self.encode(part, depth + 1) for item in value.items() for part in item]
                return b"d" + _LENGTH.pack(len(parts) // 2) + b"".join(parts)
            special = parts_of(value)
            if special is not None:
                return b"p" + self.content(special[0]) + self.content(special[1], depth + 1)
        return self._other(value, depth)

    def _other(self, value: Any, depth: int) -> bytes:
        if self.other is not None:
            return self.other(value)
        base = base_of(value)
        if base is None or type(value) is base:
            raise NotPlain(f"a {type(value).__name__} is no plain data")
        return self.content(plain_base(value, base), depth)


def _sized(tag: bytes, data: bytes) -> bytes:
    return tag + _LENGTH.pack(len(data)) + data


def base_of(value: Any) -> Any:
    """The plain type that the value's class is or derives from; None if there is none."""
    return next((base for base in _BASES if issubclass(type(value), base)), None)


def plain_base(value: Any, base: Any) -> Any:
    """The value as its base type, without calling its class."""
    convert = _TO_BASE.get(base)
    return base(base.__iter__(value)) if convert is None else convert(value)


_TO_BASE: dict[Any, Callable[[Any], Any]] = {
    int: lambda value: int.__add__(value, 0),
    float: float.__pos__,
    str: str.__str__,
    bytes: lambda value: bytes.__add__(value, b""),
    bytearray: lambda value: bytearray(memoryview(value)),
    complex: complex.__pos__,
    dict: lambda value: dict(dict.items(value)),
}


def encode(value: Any) -> bytes:
    """Encode plain data as bytes.

    Raises:
        NotPlain: a value of another type.
    """
    return ValueEncoder().encode(value)


class _Decoder:
    def __init__(self, data: bytes, other: Callable[[bytes, Callable[[], Any]], Any] | None, given: list[Any] | None):
        self.data, self.other, self.given, self.place = data, other, given, 0
        self.collects = given is not None

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.place:
            raise ValueError("the message ends too early")
        self.place += count
        return self.data[self.place - count : self.place]

    def length(self, smallest: int = 1) -> int:
        count: int = _LENGTH.unpack(self.take(4))[0]
        if count * smallest > len(self.data) - self.place:
            raise ValueError("the message ends too early")
        return count

    def note(self, container: Any) -> Any:
        if self.collects and self.given is not None:
            self.given.append(container)
        return container

    def one(self, depth: int = 0) -> Any:
        if depth > DEEPEST + 8:
            raise ValueError("the message is nested too deeply")
        tag = self.take(1)
        simple = _SIMPLE.get(tag)
        if simple is not None:
            return simple(self)
        if tag == b"a":
            return self.note(bytearray(self.take(self.length())))
        if tag == b"l":
            items = self.note([])
            for _ in range(self.length()):
                items.append(self.one(depth + 1))
            return items
        if tag == b"S":
            members = self.note(set())
            for _ in range(self.length()):
                members.add(self.one(depth + 1))
            return members
        if tag == b"d":
            mapping = self.note({})
            for _ in range(self.length(2)):
                key = self.one(depth + 1)
                mapping[key] = self.one(depth + 1)
            return mapping
        if tag in (b"t", b"Z"):
            return (tuple if tag == b"t" else frozenset)([self.one(depth + 1) for _ in range(self.length())])
        if tag == b"A":
            place = _LENGTH.unpack(self.take(4))[0]
            if self.given is None or place >= len(self.given):
                raise ValueError("the message names what was not given")
            return self.given[place]
        if tag == b"p":
            return make(self.one(depth + 1), self.one(depth + 1))
        if self.other is None:
            raise ValueError(f"unknown tag {tag!r}")
        return self.other(tag, lambda: self.one(depth + 1))


_SIMPLE: dict[bytes, Callable[[_Decoder], Any]] = {
    b"N": lambda decoder: None,
    b"T": lambda decoder: True,
    b"F": lambda decoder: False,
    b"i": lambda decoder: int.from_bytes(decoder.take(decoder.length()), "little", signed=True),
    b"f": lambda decoder: _FLOAT.unpack(decoder.take(8))[0],
    b"s": lambda decoder: decoder.take(decoder.length()).decode("utf-8", "surrogatepass"),
    b"b": lambda decoder: decoder.take(decoder.length()),
    b"c": lambda decoder: complex(_FLOAT.unpack(decoder.take(8))[0], _FLOAT.unpack(decoder.take(8))[0]),
}


def decode(
    data: bytes,
    other: Callable[[bytes, Callable[[], Any]], Any] | None = None,
    given: list[Any] | None = None,
    collect: bool = False,
) -> Any:
    """Decode the bytes of a `ValueEncoder`. Safe for hostile bytes.

    Args:
        data: the bytes.
        other: called with the tag of another value and a function that reads one value; returns the value.
        given: containers that the message may refer to by index.
        collect: append the containers that are read to ``given``.

    Raises:
        ValueError: malformed data. Errors of the types created, such as TypeError and OverflowError, mean the same.
    """
    decoder = _Decoder(data, other, given)
    decoder.collects = collect
    value = decoder.one()
    if decoder.place != len(data):
        raise ValueError("something follows the message")
    return value


def write_frame(descriptor: int, data: bytes) -> None:
    """Write length and bytes."""
    if len(data) > LARGEST_FRAME:
        raise ValueError(f"a message of {len(data):,} bytes")
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_frame(descriptor: int) -> bytes:
    """Read a frame of `write_frame`.

    Raises:
        EOFError: the other side has closed.
        ValueError: more than `LARGEST_FRAME`.
    """

    def exactly(count: int) -> bytes:
        parts = []
        while count:
            part = os.read(descriptor, min(count, 1 << 20))
            if not part:
                raise EOFError("the other side is gone")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    count = _LENGTH.unpack(exactly(4))[0]
    if count > LARGEST_FRAME:
        raise ValueError(f"a message of {count:,} bytes")
    return exactly(count)
