"""Files of a sharded checkpoint: written with digests, and read as data, whoever wrote them.

A checkpoint is a folder of torch.distributed.checkpoint::

    .metadata        which tensor lies where: a pickle, of which only the classes of `_CLASSES` are read, as plain records
    __0_0.distcp     tensors and values of a rank; each is read by `torch.load` with ``weights_only=True``
    meta.pt          loops, callbacks and the model's shape, read likewise
    digests.json     digests of the blocks of all of these; sealed

Each rank hashes what it writes while it writes it, the first rank collects the digests. A block is checked when it is first
read. Digests tell damage; against a stranger's bad will stands that nothing in the files is ever called.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint._nested_dict import set_element
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystem, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.digests import CheckedFile, FileDigest, HashingStream, read_sealed, require_regular, seal
from nbg_lightning.error_line import first_line

META, METADATA, DIGESTS = "meta.pt", ".metadata", "digests.json"
FORMAT = "nbg_lightning checkpoint digests 1"
_MARK = "digests"  # in meta.pt: its checkpoint has a digests.json
_DIGEST_OF = "digest of "  # begins the index of what a rank reports beside its tensors
_ADVICE = "take another checkpoint of its run"
_DCP = "torch.distributed.checkpoint"
# All that a .metadata names, and which class it must be of where the record is used.
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
_DTYPES = {name for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_FORBIDDEN = re.compile(r"(?:Unsupported (?:global|class)|Trying to \w+)[^\n]*?(?:GLOBAL )?([\w.]+\.\w+)")


# -- writing -----------------------------------------------------------------------------------------------------------


class _HashingFileSystem(FileSystem):
    """Hashes what it writes."""

    def __init__(self) -> None:
        self.digests: dict[str, FileDigest] = {}

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Generator[io.IOBase, None, None]:
        assert mode == "wb", "a writer reads nothing"
        with HashingStream(path) as stream:
            yield stream
            self.digests[Path(path).name] = stream.digest


class DigestingWriter(dcp.FileSystemWriter):
    """Writes as its base does; after it the first rank knows the digests of all files.

    Attributes:
        digests: by file name, on the first rank.
    """

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.fs = self._hashing = _HashingFileSystem()
        self.digests: dict[str, FileDigest] = {}

    @override
    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results = super().write_data(plan, planner).wait()
        # With the results of the tensors, so that they take the same way to the first rank, from a background thread too.
        own = [WriteResult(MetadataIndex(_DIGEST_OF + name), 0, found) for name, found in self._hashing.digests.items()]
        future: Future[list[WriteResult]] = Future()
        future.set_result([*results, *own])
        return future

    @override
    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        tensors = [[each for each in rank if not isinstance(each.storage_data, FileDigest)] for rank in results]
        super().finish(metadata, tensors)
        self.digests = {
            each.index.fqn.removeprefix(_DIGEST_OF): each.storage_data
            for rank in results
            for each in rank
            if isinstance(each.storage_data, FileDigest)
        }
        self.digests[METADATA] = self._hashing.digests[f"{METADATA}.tmp"]


def write_checkpoint(folder: Path, state: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write a checkpoint; all ranks together.

    Args:
        folder: of the checkpoint; on a disk that all ranks share.
        state: what is spread over ranks: tensors, and plain values.
        meta: what the first rank writes: plain values and tensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = DigestingWriter(folder)
    dcp.save(state, storage_writer=writer)
    if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return
    with HashingStream(folder / META) as stream:
        torch.save({**meta, _MARK: FORMAT}, cast(IO[bytes], stream))
    files = {**writer.digests, META: stream.digest}
    content = {"format": FORMAT, "files": {name: files[name].to_json() for name in sorted(files)}}
    (folder / DIGESTS).write_text(seal(content), "utf-8")


# -- reading -----------------------------------------------------------------------------------------------------------


class CheckpointFiles:
    """The files of a checkpoint that anybody may have written.

    Args:
        folder: the checkpoint.

    Raises:
        ValueError: its digests are damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._digests = self._read_digests()

    def _read_digests(self) -> dict[str, FileDigest] | None:
        file = self.folder / DIGESTS
        if not file.exists():
            return None
        require_regular(file)
        content, _ = read_sealed(file, _ADVICE, required=lambda value: True)
        try:
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
            return {name: FileDigest.from_json(value) for name, value in content["files"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{file} is damaged: {first_line(error)}; {_ADVICE}") from None

    def open(self, name: str) -> IO[bytes]:
        """A file, whose blocks are checked as they are read.

        Raises:
            ValueError: it is damaged, or no file of this checkpoint.
            FileNotFoundError: it is missing.
        """
        file = self.folder / name
        require_regular(file)
        if self._digests is None:
            return open(file, "rb")
        if name not in self._digests:
            raise ValueError(f"{file} is invalid: {DIGESTS} does not list it; {_ADVICE}")
        return cast(IO[bytes], CheckedFile(file, self._digests[name], _ADVICE))

    def check(self) -> None:
        """Read all files and compare them with their digests.

        Raises:
            ValueError: one is damaged; it is named.
            FileNotFoundError: one is missing.
        """
        for name, expected in (self._digests or {}).items():
            with CheckedFile(self.folder / name, expected, _ADVICE) as file:
                file.check()

    def meta(self) -> dict[str, Any]:
        """What ``meta.pt`` holds.

        Raises:
            ValueError: it is damaged, or holds more than plain data.
            FileNotFoundError: it is missing.
        """
        file = self.folder / META
        with self.open(META) as stream:
            meta = load_plain(io.BytesIO(stream.read()), str(file))
        if not isinstance(meta, dict):
            raise ValueError(f"{file} is invalid: a {type(meta).__name__}, not a dict; {_ADVICE}")
        if meta.pop(_MARK, None) is not None and self._digests is None:
            raise ValueError(f"{self.folder / DIGESTS} is missing; {_ADVICE}")
        if self._digests is None:
            _say_unchecked(self.folder)
        return meta

    def metadata(self) -> Metadata:
        """What ``.metadata`` says of tensors and where they lie; nothing that it names is called.

        Raises:
            ValueError: it is damaged, or is anything else than a checkpoint's metadata.
            FileNotFoundError: it is missing.
        """
        file = self.folder / METADATA
        with self.open(METADATA) as stream:
            data = stream.read()
        try:
            return _Records(data).metadata(self.folder)
        except _NotAllowed as error:
            raise ValueError(
                f"{file} is invalid: it names {error}, which no checkpoint needs; do not use files of this origin"
            ) from None
        except Exception as error:  # a broken pickle raises many kinds
            raise ValueError(f"{file} cannot be read ({first_line(error)}); {_ADVICE}") from None

    def load(self, state: dict[str, Any], alone: bool = False) -> None:
        """Read values in place.

        Args:
            state: what to read, by the names it was written under; tensors are filled.
            alone: this rank reads for itself; else all do it together.

        Raises:
            CheckpointException: of all ranks' errors, where they read together.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # that is meant
            dcp.load(state, storage_reader=_Reader(self), planner=_PlainPlanner(self.folder), no_dist=alone)


class _CheckedFileSystem(FileSystem):
    def __init__(self, files: CheckpointFiles):
        self._files = files

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Generator[io.IOBase, None, None]:
        assert mode == "rb", "a reader writes nothing"
        with self._files.open(Path(path).name) as stream:
            yield cast(io.IOBase, stream)


class _Reader(dcp.FileSystemReader):
    """Reads what has been checked, as plain data."""

    def __init__(self, files: CheckpointFiles):
        super().__init__(files.folder)
        self.fs = _CheckedFileSystem(files)
        self._files = files

    @override
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._files.metadata()

    @override
    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        try:
            return super().read_data(plan, planner)
        except pickle.UnpicklingError as error:
            raise ValueError(_refusal(f"a tensor in {self._files.folder}", error)) from None


class _PlainPlanner(DefaultLoadPlanner):
    """Takes values that are no tensors as plain data; torch's own planner would run what they name."""

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder

    @override
    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        name = read_item.dest_index.fqn
        set_element(self.original_state_dict, self.mappings[name], load_plain(value, f"{name} in {self._folder}"))


def load_plain(stream: IO[bytes], where: str) -> Any:
    """What `torch.save` wrote, if it is tensors and plain values; anything else is refused without being called.

    Args:
        stream: a file.
        where: for the message.

    Raises:
        ValueError: it is damaged, or names a class or function.
    """
    try:
        _check_packing(stream)
        return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle raises many kinds
        raise ValueError(_refusal(where, error)) from None


def _check_packing(stream: IO[bytes]) -> None:
    """Refuse an archive that unpacks to more bytes than it has: `torch.save` compresses nothing."""
    if zipfile.is_zipfile(stream):
        unpacked = sum(member.file_size for member in zipfile.ZipFile(stream).infolist())
        if unpacked > stream.seek(0, io.SEEK_END):
            raise ValueError(f"it unpacks to {unpacked:,} bytes, more than it has")
    stream.seek(0)


def _refusal(where: str, error: BaseException) -> str:
    if found := _FORBIDDEN.search(str(error)):
        return f"{where} is invalid: it names {found[1]}, which no checkpoint needs; do not use files of this origin"
    # What torch advises for such files is to trust them.
    reason = "not plain data" if "weights_only" in str(error) else first_line(error)
    return f"{where} cannot be read ({reason}); {_ADVICE}"


@lru_cache(maxsize=64)
def _say_unchecked(folder: Path) -> None:
    """Once for each checkpoint."""
    log.info(f"{folder} was written without digests: damage in it cannot be seen")


# -- the metadata's pickle ---------------------------------------------------------------------------------------------


class _NotAllowed(Exception):
    """A name that the metadata of a checkpoint must not have."""


class _Record:
    """Stands for an object of the pickle: what it was called with, and its state. It has no behaviour."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: IO[bytes]):
        super().__init__(stream)
        self._classes: dict[str, Any] = {}

    @override
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return vars(torch)[name]
        if (module, name) not in _CLASSES:
            raise _NotAllowed(f"{module}.{name}")
        if name == "OrderedDict":
            return dict
        # A class of this pickle alone: whatever is done to it goes with it.
        return self._classes.setdefault(name, type(name, (_Record,), {}))


class _Records:
    """Makes a checkpoint's metadata from the records of its pickle, and refuses all that is of another form."""

    def __init__(self, data: bytes):
        self._root = _Unpickler(io.BytesIO(data)).load()
        self._chunks_left = len(
            data
        )  # one that is written has more than a byte; one that is repeated by reference has not

    def metadata(self, folder: Path) -> Metadata:
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
            raise ValueError(f"a tensor has the dtype {dtype!r:.40}")
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
    def _place(record: Any, folder: Path) -> _StorageInfo:
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
    return type(record).__name__ if isinstance(record, _Record) else ""


def _state(record: Any, name: str) -> Any:
    """The state of a record that must be of a class."""
    if _name(record) != name:
        raise ValueError(f"a {type(record).__name__} where a {name} belongs")
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
        raise ValueError(f"a {type(record).__name__} where a Size belongs")
    sizes = _of(record.arguments[0], tuple) if record.arguments else ()
    if not all(type(size) is int and 0 <= size < 1 << 62 for size in sizes):
        raise ValueError("a size that is not a tuple of counts")
    return torch.Size(sizes)


def _path(value: Any) -> tuple[str | int, ...]:
    steps = _of(value, tuple)
    if not all(type(step) in (str, int) for step in steps):
        raise ValueError("a path of the state that is not of names and numbers")
    return steps
