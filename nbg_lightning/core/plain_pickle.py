"""Parsing a pickle as data: nothing that it names is imported or called, and nothing is allocated that its bytes do not hold.

Python's own unpickler allocates a memo of 4.7 GB for the five bytes ``r`` and a large index, allocates byte strings by their
declared length, and hashes nested tuples without limit. Here the memo grows one entry at a time, a string is a slice of the
existing bytes, an object is a `PickledObject` with its class and arguments, and keys are plain values. The supported opcodes are
those that ``pickle.dump`` and ``torch.save`` write for such data (protocols 2 to 5); any other is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

_UINT16, _INT32, _UINT32, _UINT64 = (struct.Struct(kind).unpack_from for kind in ("<H", "<i", "<I", "<Q"))
_FLOAT64 = struct.Struct(">d").unpack_from
# Larger integers can be chosen with equal hashes, and a dict of n of them takes n^2 steps.
_LARGEST_KEY = 1 << 32
_MARK = object()


class PickledName(NamedTuple):
    """A class or function named by a pickle."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class PickledObject:
    """Stands for an object in a pickle: the callable, its arguments, and the state set. It has no behaviour."""

    __slots__ = ("arguments", "items", "name", "state")

    def __init__(self, name: Any, arguments: tuple[Any, ...]):
        self.name = name
        self.arguments = arguments
        self.state: Any = None
        self.items: dict[Any, Any] | None = None


class PickleReader:
    """Parses one pickle.

    Args:
        data: its bytes.
        find: creates the stand-in for a named class or function; may refuse it.
        make: creates the stand-in for a call; may refuse it.
        stored: creates the stand-in for a value stored outside of the pickle (``persistent_id``); None refuses them.

    Raises:
        ValueError: not a pickle, or one with more than plain data.
    """

    def __init__(
        self,
        data: bytes,
        find: Callable[[str, str], Any] = PickledName,
        make: Callable[[Any, tuple[Any, ...]], Any] = PickledObject,
        stored: Callable[[Any], Any] | None = None,
    ):
        self._data = data
        self._at = 0
        self._find, self._make, self._stored = find, make, stored
        self._stack: list[Any] = []
        self._memo: list[Any] = []

    def read(self) -> Any:
        """The content of the pickle: plain values, with records in place of objects."""
        data, stack, memo, operations = self._data, self._stack, self._memo, _OPERATIONS
        try:
            while (code := data[self._at]) != _STOP:
                self._at += 1
                # Half of all operations, inlined: function calls would take longer than they do.
                if code == _MEMOIZE:
                    memo.append(stack[-1])
                elif code == _GET:
                    stack.append(memo[data[self._at]])
                    self._at += 1
                else:
                    operations[code](self)
            if len(stack) != 1:
                raise IndexError
            return stack[0]
        except KeyError:
            raise ValueError(
                f"the opcode {data[self._at - 1]:#04x} at byte {self._at - 1} is not of plain data"
            ) from None
        except (IndexError, TypeError, AttributeError, struct.error):
            raise ValueError(f"the pickle is broken at byte {self._at}") from None

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        begin = self._at
        self._at = begin + count
        if self._at > len(self._data):
            raise IndexError
        return self._data[begin : self._at]

    def _unpack(self, unpack: Callable[..., tuple[Any, ...]], size: int) -> Any:
        (value,) = unpack(self._data, self._at)
        self._at += size
        return value

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _line(self) -> str:
        end = self._data.index(b"\n", self._at)
        line = self._data[self._at : end]
        self._at = end + 1
        return line.decode("utf-8")

    # -- values --------------------------------------------------------------------------------------------------------

    def _skip_version(self) -> None:
        self._at += 1

    def _skip_frame(self) -> None:
        self._at += 8

    def _small(self) -> None:
        self._stack.append(self._data[self._at])
        self._at += 1

    def _integer(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._byte()), "little", signed=True))

    def _short_text(self) -> None:
        self._stack.append(self._take(self._byte()).decode("utf-8", "surrogatepass"))

    def _text(self) -> None:
        self._stack.append(self._take(self._unpack(_UINT32, 4)).decode("utf-8", "surrogatepass"))

    def _short_bytes(self) -> None:
        self._stack.append(self._take(self._byte()))

    def _bytes(self) -> None:
        self._stack.append(self._take(self._unpack(_UINT32, 4)))

    # -- containers ----------------------------------------------------------------------------------------------------

    def _above_mark(self) -> list[Any]:
        stack = self._stack
        place = len(stack) - 1
        while stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError
        found = stack[place + 1 :]
        del stack[place:]
        return found

    def _tuple(self) -> None:
        found = self._above_mark()
        self._stack.append(tuple(found))

    def _tuple1(self) -> None:
        self._stack[-1] = (self._stack[-1],)

    def _tuple2(self) -> None:
        last = self._stack.pop()
        self._stack[-1] = (self._stack[-1], last)

    def _tuple3(self) -> None:
        found = tuple(self._stack[-3:])
        del self._stack[-2:]
        self._stack[-1] = found

    def _append(self) -> None:
        value = self._stack.pop()
        _container(self._stack[-1], list).append(value)

    def _appends(self) -> None:
        found = self._above_mark()
        _container(self._stack[-1], list).extend(found)

    def _items(self) -> dict[Any, Any]:
        target = self._stack[-1]
        if isinstance(target, PickledObject):
            if target.items is None:
                target.items = {}
            return target.items
        return _container(target, dict)

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._items()[plain_key(key)] = value

    def _set_items(self) -> None:
        found = self._above_mark()
        target = self._items()
        for place in range(0, len(found), 2):
            target[plain_key(found[place])] = found[place + 1]

    # -- objects -------------------------------------------------------------------------------------------------------

    def _global(self) -> None:
        module = self._line()
        self._stack.append(self._find(module, self._line()))

    def _stack_global(self) -> None:
        name = _container(self._stack.pop(), str)
        self._stack[-1] = self._find(_container(self._stack[-1], str), name)

    def _call(self) -> None:
        arguments = _container(self._stack.pop(), tuple)
        self._stack[-1] = self._make(self._stack[-1], arguments)

    def _build(self) -> None:
        state = self._stack.pop()
        if isinstance(record := self._stack[-1], PickledObject):
            record.state = state

    def _outside(self) -> None:
        if self._stored is None:
            raise KeyError
        self._stack[-1] = self._stored(self._stack[-1])

    # -- memo ----------------------------------------------------------------------------------------------------------

    def _put(self) -> None:
        self._keep(self._byte())

    def _long_put(self) -> None:
        self._keep(self._unpack(_UINT32, 4))

    def _keep(self, index: int) -> None:
        """Store in the memo. Writers count up from 0, so a memo needs no more entries than the pickle has bytes."""
        if index != len(self._memo):
            raise IndexError
        self._memo.append(self._stack[-1])

    def _long_get(self) -> None:
        self._stack.append(self._memo[self._unpack(_UINT32, 4)])


def _container(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


_PLAIN = (str, bytes, float, bool, type(None), complex)


def plain_key(value: Any) -> Any:
    """A value that may be a key of a dict, whose hash is computed at once.

    Raises:
        ValueError: a nested tuple, a number beyond 2^32, or an unhashable value.
    """
    if type(value) is str or _is_plain(value) or isinstance(value, (PickledObject, PickledName)):
        return value
    if type(value) is tuple and all(_is_plain(each) for each in value):
        return value
    raise ValueError(f"a {type(value).__name__} is no key of plain data")


def _is_plain(value: Any) -> bool:
    return type(value) in _PLAIN or (type(value) is int and -_LARGEST_KEY < value < _LARGEST_KEY)


def _push(value: Any) -> Callable[[PickleReader], None]:
    def operation(reader: PickleReader) -> None:
        reader._stack.append(value)

    return operation


def _push_new(kind: Callable[[], Any]) -> Callable[[PickleReader], None]:
    def operation(reader: PickleReader) -> None:
        reader._stack.append(kind())

    return operation


def _push_number(unpack: Callable[..., tuple[Any, ...]], size: int) -> Callable[[PickleReader], None]:
    def operation(reader: PickleReader) -> None:
        reader._stack.append(reader._unpack(unpack, size))

    return operation


_STOP, _MEMOIZE, _GET = ord("."), 0x94, ord("h")
# Handlers by opcode, named as in `pickletools`.
_OPERATIONS: dict[int, Callable[[PickleReader], None]] = {
    0x80: PickleReader._skip_version,
    0x95: PickleReader._skip_frame,
    ord("("): _push(_MARK),
    ord("N"): _push(None),
    0x88: _push(True),
    0x89: _push(False),
    ord("K"): PickleReader._small,
    ord("M"): _push_number(_UINT16, 2),
    ord("J"): _push_number(_INT32, 4),
    0x8A: PickleReader._integer,
    ord("G"): _push_number(_FLOAT64, 8),
    0x8C: PickleReader._short_text,
    ord("X"): PickleReader._text,
    ord("C"): PickleReader._short_bytes,
    ord("B"): PickleReader._bytes,
    ord(")"): _push(()),
    ord("]"): _push_new(list),
    ord("}"): _push_new(dict),
    ord("t"): PickleReader._tuple,
    0x85: PickleReader._tuple1,
    0x86: PickleReader._tuple2,
    0x87: PickleReader._tuple3,
    ord("a"): PickleReader._append,
    ord("e"): PickleReader._appends,
    ord("s"): PickleReader._set_item,
    ord("u"): PickleReader._set_items,
    ord("c"): PickleReader._global,
    0x93: PickleReader._stack_global,
    ord("R"): PickleReader._call,
    0x81: PickleReader._call,
    ord("b"): PickleReader._build,
    ord("Q"): PickleReader._outside,
    ord("q"): PickleReader._put,
    ord("r"): PickleReader._long_put,
    ord("j"): PickleReader._long_get,
}
