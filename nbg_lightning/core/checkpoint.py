"""Files of a sharded checkpoint: written with digests, and safe to read from untrusted sources.

A checkpoint is a folder in the format of torch.distributed.checkpoint::

        .metadata        the location of every tensor: a pickle, parsed as plain records of a few allowed classes
        __0_0.distcp     tensors and values of one rank; each is read by `torch.load` with ``weights_only=True``
        meta.pt          loops, callbacks and the model's shape, read in the same way
        digests.json     digests of the blocks of all of these files, with a checksum of its own

Each rank hashes its files while writing them, and the first rank collects the digests. A block is verified when it is first
read. Digests detect corruption; against malicious files, the reader never calls anything that a file names.
"""

from __future__ import annotations

import gc
import io
import pickle
import re
import warnings
from collections.abc import Generator
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
    Metadata,
    MetadataIndex,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future
from typing_extensions import override

from nbg_lightning import log
from nbg_lightning.core.checkpoint_metadata import MetadataRecords, NotAllowed
from nbg_lightning.core.checkpoint_names import DIGESTS, META, METADATA
from nbg_lightning.core.finite import require_finite
from nbg_lightning.core.plain_archive import FilePart, check_archive
from nbg_lightning.digests import FileDigest, HashingStream, read_sealed, seal
from nbg_lightning.error_line import first_line
from nbg_lightning.url_path import PathOrUrl, UrlPath, open_checked, place_of, require_file

FORMAT = "nbg_lightning checkpoint digests 1"
_MARK = "digests"  # key in meta.pt: the checkpoint has a digests.json
_DIGEST_OF = "digest of "  # prefix of the index under which a rank reports digests beside its tensors
ADVICE = "take another checkpoint of its run"
_FORBIDDEN = re.compile(r"(?:Unsupported (?:global|class)|Trying to \w+)[^\n]*?(?:GLOBAL )?([\w.]+\.\w+)")


# -- writing -----------------------------------------------------------------------------------------------------------


class _Places(FileSystem):
    """A `FileSystem` that joins paths for local folders and URLs."""

    @override
    def concat_path(self, path: Any, suffix: str) -> Any:
        return path / suffix


class _HashingFileSystem(_Places):
    """Hashes files while writing them."""

    def __init__(self) -> None:
        self.digests: dict[str, FileDigest] = {}

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Generator[io.IOBase, None, None]:
        assert mode == "wb", "a writer reads nothing"
        with _hashing(path) as stream:
            yield stream
            self.digests[path.name] = stream.digest


class _HashingStore(_HashingFileSystem):
    """The same behind a URL."""

    @override
    def rename(self, path: Any, new_path: Any) -> None:
        path.move(new_path)

    @override
    def mkdir(self, path: Any) -> None:
        """Do nothing: object stores have no empty folders."""

    @override
    def exists(self, path: Any) -> bool:
        return cast(UrlPath, path).exists()

    @override
    def rm_file(self, path: Any) -> None:
        path.remove()


def _hashing(place: PathOrUrl) -> HashingStream:
    return HashingStream(place.open_write() if isinstance(place, UrlPath) else place)


class DigestingWriter(dcp.FileSystemWriter):
    """Writes like its base class; afterwards the first rank has the digests of all files.

    Attributes:
        digests: by file name, on the first rank.
    """

    def __init__(self, folder: PathOrUrl):
        super().__init__(str(folder), sync_files=isinstance(folder, Path))
        self.fs = self._hashing = _HashingFileSystem() if isinstance(folder, Path) else _HashingStore()
        self.path = folder  # type: ignore[assignment] # passed to `fs` alone
        self.digests: dict[str, FileDigest] = {}

    @property
    @override
    def checkpoint_id(self) -> str:
        """The location as text: it is stored in the metadata, where readers accept plain types only."""
        return str(self.path)

    @override
    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results = super().write_data(plan, planner).wait()
        # Sent to the first rank with the results of the tensors, so that this works from a background thread too.
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


def write_checkpoint(folder: PathOrUrl, state: dict[str, Any], meta: dict[str, Any], group: Any = None) -> None:
    """Write a checkpoint; collective over all ranks.

    Args:
        folder: the checkpoint, on a disk shared by all ranks or behind a URL. There the digests are written last and mark
            it as complete.
        state: state spread over the ranks: tensors and plain values.
        meta: state written by the first rank: plain values and tensors.
        group: the process group that coordinates the write; the default group if None.
    """
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
    writer = DigestingWriter(folder)
    with _processes_as_they_are():
        dcp.save(state, storage_writer=writer, process_group=group)
    if torch.distributed.is_initialized() and torch.distributed.get_rank() != 0:
        return
    with _hashing(folder / META) as stream:
        torch.save({**meta, _MARK: FORMAT}, cast(IO[bytes], stream))
    files = {**writer.digests, META: stream.digest}
    content = {"format": FORMAT, "files": {name: files[name].to_json() for name in sorted(files)}}
    (folder / DIGESTS).write_bytes(seal(content).encode())


# -- reading -----------------------------------------------------------------------------------------------------------


class CheckpointFiles:
    """The files of a checkpoint, from any source.

    Args:
        folder: the checkpoint.

    Raises:
        ValueError: its digests are damaged.
    """

    def __init__(self, folder: str | PathOrUrl):
        self.folder = place_of(folder)
        self._digests = self._read_digests()

    def _read_digests(self) -> dict[str, FileDigest] | None:
        file = self.folder / DIGESTS
        if not file.exists():
            return None
        require_file(file)
        content, _ = read_sealed(file, ADVICE, required=lambda value: True)
        try:
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}, not {FORMAT!r}")
            return {name: FileDigest.from_json(value) for name, value in content["files"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{file} is damaged: {first_line(error)}; {ADVICE}") from None

    def open(self, name: str) -> IO[bytes]:
        """Open a file whose blocks are verified as they are read.

        Raises:
            ValueError: it is damaged, or does not belong to this checkpoint.
            FileNotFoundError: it is missing.
        """
        file = self.folder / name
        require_file(file)
        if self._digests is None:
            return open(file, "rb") if isinstance(file, Path) else cast(IO[bytes], io.BytesIO(file.read_bytes()))
        if name not in self._digests:
            raise ValueError(f"{file} is invalid: {DIGESTS} does not list it; {ADVICE}")
        return cast(IO[bytes], open_checked(file, self._digests[name], ADVICE))

    def check(self) -> None:
        """Verify all files against their digests.

        Raises:
            ValueError: a file is damaged; it is named.
            FileNotFoundError: a file is missing.
        """
        for name, expected in (self._digests or {}).items():
            with open_checked(self.folder / name, expected, ADVICE) as file:
                file.check()

    def meta(self) -> dict[str, Any]:
        """The content of ``meta.pt``.

        Raises:
            ValueError: it is damaged, or contains more than plain data.
            FileNotFoundError: it is missing.
        """
        file = self.folder / META
        with self.open(META) as stream:
            meta = load_plain(io.BytesIO(stream.read()), str(file))
        if not isinstance(meta, dict):
            raise ValueError(f"{file} is invalid: a {type(meta).__name__}, not a dict; {ADVICE}")
        if meta.pop(_MARK, None) is not None and self._digests is None:
            raise ValueError(f"{self.folder / DIGESTS} is missing; {ADVICE}")
        if self._digests is None:
            _say_unchecked(self.folder)
        return meta

    def metadata(self) -> Metadata:
        """The content of ``.metadata``: the tensors and their locations. Nothing that it names is called.

        Raises:
            ValueError: it is damaged, or is not the metadata of a checkpoint.
            FileNotFoundError: it is missing.
        """
        file = self.folder / METADATA
        with self.open(METADATA) as stream:
            data = stream.read()
        try:
            with _collection_paused():
                return MetadataRecords(data).metadata(self.folder)
        except NotAllowed as error:
            raise ValueError(
                f"{file} is invalid: it names {error}, which no checkpoint needs; do not use files of this origin"
            ) from None
        except Exception as error:  # a broken pickle raises many types
            raise ValueError(f"{file} cannot be read ({first_line(error)}); {ADVICE}") from None

    def load(self, state: dict[str, Any], alone: bool = False) -> None:
        """Load values in place.

        Args:
            state: the values to read, by the names they were written under; tensors are filled in place.
            alone: read on this rank only; otherwise collective over all ranks.

        Raises:
            CheckpointException: the errors of all ranks, for a collective read.
        """
        with _processes_as_they_are():
            dcp.load(state, storage_reader=_PlainReader(self), planner=_PlainPlanner(self.folder), no_dist=alone)


@contextmanager
def _processes_as_they_are() -> Generator[None, None, None]:
    """Silence torch's warning about a single-process checkpoint, which is intended here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


@contextmanager
def _collection_paused() -> Generator[None, None, None]:
    """Pause garbage collection while many live objects are created: it would take half of the time and find nothing."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


class _CheckedFileSystem(_Places):
    def __init__(self, files: CheckpointFiles):
        self._files = files

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Generator[io.IOBase, None, None]:
        assert mode == "rb", "a reader writes nothing"
        with self._files.open(path.name) as stream:
            yield cast(io.IOBase, stream)


class _PlainReader(dcp.FileSystemReader):
    """Reads verified files as plain data."""

    def __init__(self, files: CheckpointFiles):
        super().__init__(str(files.folder))
        self.fs = _CheckedFileSystem(files)
        self.path = files.folder  # type: ignore[assignment] # passed to `fs` alone
        self._files = files

    @override
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._files.metadata()

    def _slice_file(self, file: IO[bytes], place: _StorageInfo) -> IO[bytes]:
        """The bytes of one value, after checking that they exist and that they do not declare more memory than they take."""
        size = file.seek(0, io.SEEK_END)
        if place.offset + place.length > size:
            raise ValueError(
                f"{self._files.folder / METADATA} is invalid: it places {place.length:,} bytes at {place.offset:,} of "
                f"{place.relative_path}, which has {size:,}; {ADVICE}"
            )
        found = cast(IO[bytes], FilePart(file, place.offset, place.length))
        try:
            check_archive(found)
        except ValueError as error:
            raise ValueError(_refusal(f"a value in {self._files.folder / place.relative_path}", error)) from None
        return found

    @override
    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        try:
            return super().read_data(plan, planner)
        except pickle.UnpicklingError as error:
            raise ValueError(_refusal(f"a tensor in {self._files.folder}", error)) from None


class _PlainPlanner(DefaultLoadPlanner):
    """Accepts finite tensors, and other values as plain data; torch's own planner would unpickle them."""

    def __init__(self, folder: PathOrUrl):
        super().__init__()
        self._folder = folder

    @override
    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        name = read_item.dest_index.fqn
        set_element(self.original_state_dict, self.mappings[name], load_plain(value, f"{name} in {self._folder}"))

    @override
    def commit_tensor(self, read_item: ReadItem, tensor: torch.Tensor) -> None:
        require_finite(read_item.dest_index.fqn, tensor, str(self._folder))


def load_plain(stream: IO[bytes], where: str) -> Any:
    """Load a file of `torch.save` that consists of tensors and plain values; anything else is refused without being called.

    Args:
        stream: the file.
        where: its name in error messages.

    Raises:
        ValueError: it is damaged, or names a class or function.
    """
    try:
        check_archive(stream)
        return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken pickle raises many types
        raise ValueError(_refusal(where, error)) from None


def _refusal(where: str, error: BaseException) -> str:
    if found := _FORBIDDEN.search(str(error)):
        return f"{where} is invalid: it names {found[1]}, which no checkpoint needs; do not use files of this origin"
    if str(error).endswith(ADVICE):  # names the file and the damage already
        return first_line(error)
    # torch's advice for such files is to trust them.
    reason = "not plain data" if "weights_only" in str(error) else first_line(error)
    return f"{where} cannot be read ({reason}); {ADVICE}"


@lru_cache(maxsize=64)
def _say_unchecked(folder: PathOrUrl) -> None:
    """Log once per checkpoint that it has no digests."""
    log.info(f"{folder} was written without digests: damage in it cannot be seen")
