"""Validation of ``torch.save`` files from untrusted sources, so that a few bytes cannot claim much memory or time.

``torch.load(weights_only=True)`` executes nothing, but it allocates a byte array or a tensor of any size that a pickle declares,
decompresses members, and hashes nested tuples without limit. An archive passes here if its members are uncompressed, its
pickle contains plain data (`PickleReader`), each call is one that such files need, and no tensor has more elements than the
archive has bytes.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from typing import IO, Any

from nbg_lightning.core.plain_pickle import PickledName, PickledObject, PickleReader
from nbg_lightning.digests import SizedReader

_PICKLE = "data.pkl"
_DEEPEST = 100
_MOST_REPEATED = 10_000_000  # elements, counting references each time


class FilePart(SizedReader):
    """A range of bytes of an open file, as a file; closing it leaves that file open.

    Args:
        file: the underlying file; no other code may seek in it meanwhile.
        begin: the first byte.
        length: number of bytes.
    """

    def __init__(self, file: IO[bytes], begin: int, length: int):
        super().__init__(length)
        self._file, self._begin = file, begin

    def readinto(self, buffer: Any) -> int:
        out = memoryview(buffer).cast("B")[: max(0, self._length - self._position)]
        self._file.seek(self._begin + self._position)
        count = self._file.readinto(out)  # type: ignore[attr-defined]  # every binary file has it; BinaryIO does not declare it
        self._position += count
        return int(count)

    def read(self, size: int | None = -1) -> bytes:
        """Read bytes. Overridden, since torch's reader hides an error of `readinto` in the inherited `read`."""
        left = max(0, self._length - self._position)
        out = bytearray(left if size is None or size < 0 else min(size, left))
        return bytes(out[: self.readinto(out)])


def check_archive(stream: IO[bytes]) -> None:
    """Refuse an archive that would take more memory than its bytes.

    Args:
        stream: the archive, from its beginning; it is rewound afterwards.

    Raises:
        ValueError: naming what is wrong.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    try:
        with zipfile.ZipFile(stream) as archive:
            data = _pickle_of(archive, size)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError(f"it is no archive of torch.save: {error}") from None
    finally:
        stream.seek(0)
    calls = _Calls(size)
    value = PickleReader(data, make=calls.make, stored=lambda key: PickledObject(PickledName("storage", ""), ())).read()
    _check_extent(value, max(_MOST_REPEATED, 10 * len(data)))


def _pickle_of(archive: zipfile.ZipFile, size: int) -> bytes:
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if unpacked > size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError(f"it unpacks to {unpacked:,} bytes, more than it has")
    names = [member.filename.lower() for member in members]  # torch finds members regardless of case
    if len(set(names)) != len(names):
        raise ValueError("two of its members have one name")
    pickles = [m for m, name in zip(members, names, strict=True) if name.rpartition("/")[2] == _PICKLE]
    if len(pickles) != 1:
        raise ValueError(f"it has {len(pickles)} members called {_PICKLE}, not one")
    return archive.read(pickles[0])


class _Calls:
    """Validates the calls of a pickle without making them.

    Args:
        size: size of the archive in bytes.
    """

    def __init__(self, size: int):
        self._size = size

    def make(self, name: Any, arguments: tuple[Any, ...]) -> PickledObject:
        check = _CALLS.get(str(name)) if isinstance(name, PickledName) else None
        if check is not None:
            check(self, arguments)
        elif not isinstance(name, PickledName) or name.module.split(".")[0] == "torch":
            raise ValueError(f"it calls {name if isinstance(name, PickledName) else 'what is no class'}")
        return PickledObject(name, arguments)  # torch refuses other names with a message that names them

    def anything(self, arguments: tuple[Any, ...]) -> None:
        """Accept any arguments: these calls allocate nothing."""

    def data_only(self, arguments: tuple[Any, ...]) -> None:
        """Accept data only: a number would be a length to allocate."""
        if arguments and isinstance(arguments[0], (int, float)):
            raise ValueError(f"it has a byte array of {arguments[0]:,} bytes without their values")

    def tensor(self, arguments: tuple[Any, ...]) -> None:
        """Check ``storage, offset, size, stride, ...``: a stride of 0 repeats a value without limit."""
        size = arguments[2]
        if isinstance(size, PickledObject):
            (size,) = size.arguments
        if type(size) is not tuple or not all(type(each) is int and 0 <= each < 1 << 62 for each in size):
            raise ValueError("a tensor's size is not a tuple of counts")
        if math.prod(size) > self._size:
            raise ValueError(f"it declares a tensor of {math.prod(size):,} elements and has {self._size:,} bytes")

    def typed(self, arguments: tuple[Any, ...]) -> None:
        """Check ``function, type, arguments, state``: the call of another function."""
        self.make(arguments[0], arguments[2])


_CALLS: dict[str, Callable[[_Calls, tuple[Any, ...]], None]] = {
    **{f"torch._utils._rebuild_{name}": _Calls.tensor for name in ("tensor", "tensor_v2", "tensor_v3", "qtensor")},
    **{
        f"torch._utils._rebuild_{name}": _Calls.anything
        for name in (
            "parameter",
            "parameter_with_state",
            "sparse_tensor",
            "nested_tensor",
            "meta_tensor_no_storage",
            "device_tensor_from_cpu_tensor",
        )
    },
    "torch._tensor._rebuild_from_type_v2": _Calls.typed,
    "torch.serialization._get_layout": _Calls.anything,
    "torch.Size": _Calls.anything,
    "torch.device": _Calls.anything,
    "builtins.bytearray": _Calls.data_only,
    "__builtin__.bytearray": _Calls.data_only,  # its name in protocol 2
}


def _check_extent(value: Any, most: int) -> None:
    """Refuse values that are nested too deeply, or large only because parts are repeated by reference."""
    extents: dict[int, tuple[int, int]] = {}  # by identity: total elements, depth
    open_ones: set[int] = set()
    stack = [(value, False)]
    while stack:
        node, is_done = stack.pop()
        parts = _parts(node)
        if parts is None or id(node) in extents:
            continue
        if is_done:
            found = [extents.get(id(part), (1, 0)) for part in parts]
            extents[id(node)] = extent = 1 + sum(n for n, _ in found), 1 + max((d for _, d in found), default=0)
            open_ones.discard(id(node))
            if extent[0] > most or extent[1] > _DEEPEST:
                raise ValueError(f"its values are nested {extent[1]} deep, {extent[0]:,} with those that are repeated")
            continue
        if id(node) in open_ones:
            raise ValueError("one of its values holds itself")
        open_ones.add(id(node))
        stack.append((node, True))
        stack.extend((part, False) for part in parts)


def _parts(node: Any) -> list[Any] | None:
    if isinstance(node, PickledObject):
        return [*node.arguments, node.state, node.items]
    if isinstance(node, dict):
        return [*node.keys(), *node.values()]
    return list(node) if type(node) in (list, tuple) else None
