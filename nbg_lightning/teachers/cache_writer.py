"""Writing a teacher cache sequence by sequence, safely against kills at any time."""

from __future__ import annotations

import dataclasses
import os
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from nbg_lightning.data.durable import write_sealed
from nbg_lightning.data.folder_lock import folder_lock
from nbg_lightning.digests import digest
from nbg_lightning.teachers.cache import TeacherCache
from nbg_lightning.teachers.cache_format import (
    ABOUT,
    COMPLETE,
    ENTRY,
    FORMAT,
    INDEX,
    SEALED,
    TARGETS,
    CacheIdentity,
    Layout,
    read_counts,
    read_identity,
)

_FLUSH_BYTES = 1 << 24  # records wait in memory for their common sync


class CacheWriter:
    """Appends sequences to a cache, and continues where an interrupted writer stopped; use it in a ``with`` block.

    Args:
        folder: folder of the cache; created if missing.
        identity: identity of the cache.
        about: provenance.

    Attributes:
        num_sequences, num_tokens: amounts that are safely on disk.

    Raises:
        ValueError: on entering: the folder has a cache with another identity.
        FolderInUse: on entering: another process is writing it.
    """

    def __init__(self, folder: str | Path, identity: CacheIdentity, about: dict[str, Any] | None = None):
        self.folder, self.identity, self.about = Path(folder).expanduser(), identity, about or {}
        self._layout = Layout(identity)
        self.num_sequences = self.num_tokens = 0
        self._keys: set[bytes] = set()
        self._waiting: list[tuple[np.ndarray, bytes]] = []
        self._waiting_bytes = 0
        self._targets: IO[bytes] | None = None
        self._index: IO[bytes] | None = None
        self._lock = ExitStack()

    def __enter__(self) -> CacheWriter:
        self._lock.enter_context(folder_lock(self.folder, "fills a teacher cache"))
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / ABOUT).is_file():
            there, _ = read_identity(self.folder)
            if other := there.differences(**dataclasses.asdict(self.identity)):
                raise ValueError(
                    f"{self.folder} is the cache of something else: {'; '.join(other)}; choose another folder"
                )
        else:
            identity = dataclasses.asdict(self.identity)
            write_sealed(
                self.folder / ABOUT, {"format": FORMAT, SEALED: True, "identity": identity, "about": self.about}
            )
        self._targets = _appendable(self.folder / TARGETS)
        self._index = _appendable(self.folder / INDEX)
        self._recover()

    def _recover(self) -> None:
        """Keep the records with complete entries, and truncate the rest."""
        assert self._targets is not None and self._index is not None
        raw = (self.folder / INDEX).read_bytes()
        entries = np.frombuffer(raw[: len(raw) // ENTRY.itemsize * ENTRY.itemsize], ENTRY)
        ends = np.cumsum(entries["tokens"].astype(np.int64)) * self._layout.token_bytes
        begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
        size = (self.folder / TARGETS).stat().st_size
        good = (begins == entries["begin"].astype(np.int64)) & (ends <= size) & (entries["tokens"] > 0)
        count = len(entries) if good.all() else int(np.argmin(good))
        with open(self.folder / TARGETS, "rb") as targets:  # after a power failure the last ones may be incomplete
            while count and not _intact(targets, int(begins[count - 1]), int(ends[count - 1]), entries[count - 1]):
                count -= 1
        self._keys = {entry.tobytes() for entry in entries["key"][:count]}
        self.num_sequences = count
        self.num_tokens = int(entries["tokens"][:count].sum())
        self._targets.truncate(self.num_tokens * self._layout.token_bytes)
        self._index.truncate(count * ENTRY.itemsize)
        if self.complete and read_counts(self.folder)["sequences"] != count:
            (self.folder / COMPLETE).unlink()  # data was lost on disk

    def __exit__(self, *_: object) -> None:
        for stream in (self._targets, self._index):
            if stream is not None:
                stream.close()
        self._targets = self._index = None
        self._lock.close()

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    @property
    def complete(self) -> bool:
        """Whether an earlier writer has finished the cache."""
        return (self.folder / COMPLETE).is_file()

    def append(
        self,
        key: bytes,
        ids: np.ndarray,
        log_probs: np.ndarray,
        tail: np.ndarray,
        reference: np.ndarray | None = None,
    ) -> None:
        """Add a sequence, unless it is there already. See `CachedTargets` for the arrays.

        Raises:
            ValueError: the cache is finished; arrays of the wrong size, ids outside the vocabulary, or non-finite values.
        """
        if key in self._keys:
            return
        if self.complete:
            raise ValueError(f"the cache {self.folder} is finished, and takes nothing more; choose another folder")
        self._check(ids, log_probs, tail, reference)
        record = self._layout.record(ids, log_probs, tail, reference)
        entry = np.zeros(1, ENTRY)
        entry["key"] = np.frombuffer(key, "V16")
        entry["tokens"], entry["checksum"] = len(tail), zlib.crc32(record)
        self._keys.add(key)
        self._waiting.append((entry, record))
        self._waiting_bytes += len(record)
        if self._waiting_bytes > _FLUSH_BYTES:
            self.flush()

    def _check(self, ids: np.ndarray, log_probs: np.ndarray, tail: np.ndarray, reference: np.ndarray | None) -> None:
        shape = len(tail), self.identity.k
        if not len(tail) or ids.shape != shape or log_probs.shape != shape:
            raise ValueError(f"targets are invalid: {ids.shape} ids and {log_probs.shape} log-probs; expected {shape}")
        if (reference is None) != (self.identity.reference is None) or (
            reference is not None and len(reference) != len(tail)
        ):
            raise ValueError(
                "reference log-probs are missing, or given to a cache without a reference; give them for all tokens, or for none"
            )
        if ids.min() < 0 or ids.max() >= self.identity.vocab_size:
            outside = int(ids.max()) if ids.max() >= self.identity.vocab_size else int(ids.min())
            raise ValueError(
                f"the teacher's id {outside} is not in the vocabulary of {self.identity.vocab_size}; take a teacher "
                "with this tokenizer"
            )
        numbers = {"teacher": (log_probs, tail), "reference": () if reference is None else (reference,)}
        for whose, arrays in numbers.items():
            for array in arrays:
                if np.isnan(array).any() or (array > 1e-3).any():
                    raise ValueError(f"the {whose}'s log-probs are not finite or positive; check its weights and dtype")
        if reference is not None and not np.isfinite(reference).all():
            raise ValueError("the reference's log-probs are not finite; check its weights and dtype")

    def flush(self) -> None:
        """Sync appended data to disk: records first, then their entries."""
        if not self._waiting:
            return
        assert self._targets is not None and self._index is not None
        entries = np.concatenate([entry for entry, _ in self._waiting])
        sizes = entries["tokens"].astype(np.uint64)
        before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(sizes)[:-1]]) + np.uint64(self.num_tokens)
        entries["begin"] = before * np.uint64(self._layout.token_bytes)
        _append(self._targets, b"".join(record for _, record in self._waiting), self.folder)
        _append(self._index, entries.tobytes(), self.folder)
        self.num_sequences += len(entries)
        self.num_tokens += int(sizes.sum())
        self._waiting, self._waiting_bytes = [], 0

    def finish(self) -> TeacherCache:
        """Mark the cache as complete, so that it can be read."""
        self.flush()
        index = digest((self.folder / INDEX).read_bytes())
        counts = {"sequences": self.num_sequences, "tokens": self.num_tokens, "index": index}
        write_sealed(self.folder / COMPLETE, counts)
        return TeacherCache(self.folder)


def _appendable(file: Path) -> IO[bytes]:
    return open(file, "ab", buffering=0)


def _append(stream: IO[bytes], data: bytes, folder: Path) -> None:
    view = memoryview(data)
    try:
        while len(view):
            view = view[stream.write(view) :]
        os.fsync(stream.fileno())
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error.strerror}); free space, and run the same command again"
        ) from error


def _intact(targets: IO[bytes], begin: int, end: int, entry: np.void) -> bool:
    targets.seek(begin)
    return zlib.crc32(targets.read(end - begin)) == int(entry["checksum"])
