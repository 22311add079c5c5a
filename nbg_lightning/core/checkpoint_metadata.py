"""The metadata of a sharded checkpoint: its pickle is parsed as data and converted to torch's classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from nbg_lightning.core.plain_pickle import PickledName, PickledObject, PickleReader
from nbg_lightning.url_path import PathOrUrl

_DCP = "torch.distributed.checkpoint"
# The names in a .metadata file, and the class that each must stand for.
_CLASSES = {
    (f"{_DCP}.metadata", "Metadata"),
    (f"{_DCP}.metadata", "MetadataIndex"),
    (f"{_DCP}.metadata", "TensorStorageMetadata"),
    (f"{_DCP}.metadata", "BytesStorageMetadata"),
    (f"{_DCP}.metadata", "ChunkStorageMetadata"),
    (f"{_DCP}.metadata", "TensorProperties"),
    (f"{_DCP}.metadata", "_MEM_FORMAT_ENCODING"),
    (f"{_DCP}.metadata", "StorageMeta"),
    (f"{_DCP}.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
    ("pathlib", "Path"),
    ("pathlib", "PosixPath"),
    ("pathlib._local", "PosixPath"),
}
_NAMES = {each: PickledName(*each) for each in _CLASSES}
_ORDERED = _NAMES["collections", "OrderedDict"]
_DTYPES = {name for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


class NotAllowed(Exception):
    """A name that is not allowed in the metadata of a checkpoint."""


def _find(module: str, name: str) -> Any:
    if module == "torch" and name in _DTYPES:
        return vars(torch)[name]
    if (module, name) not in _NAMES:
        raise NotAllowed(f"{module}.{name}")
    return _NAMES[module, name]


def _make(name: Any, arguments: tuple[Any, ...]) -> Any:
    return {} if name is _ORDERED else PickledObject(name, arguments)


class MetadataRecords:
    """Builds a checkpoint's metadata from the parsed records of its pickle, and refuses any other structure."""

    def __init__(self, data: bytes):
        self._root = PickleReader(data, _find, _make).read()
        # A record that is written out takes more than a byte; a back-reference does not.
        self._chunks_left = len(data)

    def metadata(self, folder: PathOrUrl) -> Metadata:
        fields = _fields(self._root, "Metadata")
        saved = {_text(name): self._storage(value) for name, value in _dict(fields["state_dict_metadata"]).items()}
        places = {self._index(i): self._place(p, folder) for i, p in _dict(fields["storage_data"]).items()}
        planner = fields.get("planner_data")
        paths = None if planner is None else {_text(k): _path(v) for k, v in _dict(planner).items()}
        version = fields.get("version")
        return Metadata(saved, paths, places, StorageMeta(), None if version is None else _text(version))

    def _storage(self, record: Any) -> TensorStorageMetadata | BytesStorageMetadata:
        if _name(record) == "BytesStorageMetadata":
            return BytesStorageMetadata()
        fields = _fields(record, "TensorStorageMetadata")
        state = _state(fields["properties"], "TensorProperties")
        dtype = state[0] if isinstance(state, tuple) and state else None
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"a tensor has a {type(dtype).__name__} for its dtype")
        chunks = [self._chunk(chunk) for chunk in _of(fields["chunks"], list)]
        return TensorStorageMetadata(TensorProperties(dtype=dtype), _size(fields["size"]), chunks)

    def _chunk(self, record: Any) -> ChunkStorageMetadata:
        self._chunks_left -= 1
        if self._chunks_left < 0:
            raise ValueError("more chunks than its bytes can hold")
        fields = _fields(record, "ChunkStorageMetadata")
        return ChunkStorageMetadata(_size(fields["offsets"]), _size(fields["sizes"]))

    @staticmethod
    def _index(record: Any) -> MetadataIndex:
        fields = _fields(record, "MetadataIndex")
        offset, index = fields.get("offset"), fields.get("index")
        return MetadataIndex(
            _text(fields["fqn"]),
            None if offset is None else _size(offset),
            None if index is None else _of(index, int),
        )

    @staticmethod
    def _place(record: Any, folder: PathOrUrl) -> _StorageInfo:
        fields = _fields(record, "_StorageInfo")
        name, offset, length = _text(fields["relative_path"]), _of(fields["offset"], int), _of(fields["length"], int)
        if Path(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"it names the file {name!r:.80}, outside the checkpoint")
        if offset < 0 or length < 0:
            raise ValueError(f"a place of {name} is {length} bytes at {offset}")
        if fields.get("transform_descriptors"):
            raise ValueError(f"{name} is compressed or encrypted, which this library does not write")
        return _StorageInfo(name, offset, length)


def _name(record: Any) -> str:
    return record.name.name if isinstance(record, PickledObject) and isinstance(record.name, PickledName) else ""


def _state(record: Any, name: str) -> Any:
    """The state of a record, which must be of the given class."""
    if _name(record) != name:
        raise ValueError(f"a {_name(record) or type(record).__name__} where a {name} belongs")
    return record.state


def _fields(record: Any, name: str) -> Mapping[str, Any]:
    state = _state(record, name)
    return _dict(state if state is not None else {})


def _of(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _dict(value: Any) -> dict[Any, Any]:
    return _of(value, dict)


def _text(value: Any) -> str:
    return _of(value, str)


def _size(record: Any) -> torch.Size:
    if _name(record) != "Size" or len(record.arguments) > 1:
        raise ValueError(f"a {_name(record) or type(record).__name__} where a Size belongs")
    sizes = _of(record.arguments[0], tuple) if record.arguments else ()
    if not all(type(size) is int and 0 <= size < 1 << 62 for size in sizes):
        raise ValueError("a size that is not a tuple of counts")
    return torch.Size(sizes)


def _path(value: Any) -> tuple[str | int, ...]:
    steps = _of(value, tuple)
    if not all(type(step) in (str, int) for step in steps):
        raise ValueError("a path of the state that is not of names and numbers")
    return steps
