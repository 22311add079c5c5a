"""A teacher's targets on disk: of every trained token its likeliest ids, their log-probs, and the mass of all others.

``FOLDER/`` is one cache, of one teacher, tokenizer, template, data set, k and temperature::

    cache.json      what it is of, written first
    targets.bin     one record a sequence: reference log-probs, tail, top-k log-probs, top-k ids
    index.bin       one entry of fixed size a sequence: its key, where its record lies, how long it is, a checksum
    complete.json   counts, written last of all

A record is on the disk before its entry is written, so a process that is killed at any moment leaves whole records with
entries, perhaps a torn tail without, which the next writer cuts off: nothing is lost, and nothing is there twice.

Ids take 2 bytes where the vocabulary has no more than 65,536, else 3; log-probs are float16. At k = 64 a token takes 258 or
322 bytes, and 4 more with a reference.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from nbg_lightning.data.durable import write_sealed
from nbg_lightning.data.folder_lock import folder_lock
from nbg_lightning.digests import digest, read_sealed

FORMAT = "nbg_lightning teacher cache 1"
ABOUT, TARGETS, INDEX, COMPLETE = "cache.json", "targets.bin", "index.bin", "complete.json"
KEY_BYTES = 16
_ENTRY = np.dtype([("key", "V16"), ("begin", "<u8"), ("tokens", "<u4"), ("checksum", "<u4")])
_LOWEST = float(np.finfo(np.float16).min)  # of a probability of 0: its logarithm must stay a number
_FLUSH_BYTES = 1 << 24  # records wait in memory for their common sync
_SHOWN = 16  # hex digits of a hash in messages


@dataclass(frozen=True)
class CacheIdentity:
    """What a cache is of; two caches of one identity hold the same numbers.

    Attributes:
        teacher: fingerprint of its weights, or a server's address and model.
        reference: fingerprint of the reference's weights, or None.
        tokenizer: fingerprint of the tokenizer.
        template: hash of the chat format and its settings.
        data: hash of all sequences.
        k: ids of a token.
        temperature: what the teacher's logits were divided by.
        vocab_size: ids over which the teacher's probabilities are normalised.
        dtype: what teacher and reference were computed in; ``server`` where only the server knows.
    """

    teacher: str
    reference: str | None
    tokenizer: str
    template: str
    data: str
    k: int
    temperature: float
    vocab_size: int
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.vocab_size:
            raise ValueError(f"k={self.k} must be at least 1 and at most the vocabulary of {self.vocab_size}")
        if not self.temperature > 0:
            raise ValueError(f"the teacher's temperature must be positive, not {self.temperature}")

    @property
    def key(self) -> str:
        """Hex digest of all of it: the name of the cache."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def differences(self, **expected: Any) -> list[str]:
        """What is otherwise here than expected, for people."""
        own = dataclasses.asdict(self)
        if unknown := sorted(set(expected) - set(own)):
            raise TypeError(f"a cache's identity has no {', '.join(unknown)}")
        return [
            f"{name} {_shown(own[name])} there, {_shown(value)} here"
            for name, value in expected.items()
            if own[name] != value
        ]


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 2 * _SHOWN or "/" in text else text[:_SHOWN]


class CachedTargets(NamedTuple):
    """The targets of a sequence, one row for each trained token, in order.

    Attributes:
        ids: the teacher's likeliest tokens, likeliest first, ``[n, k]`` uint16 or uint32.
        log_probs: their log-probabilities ``[n, k]`` float32, finite.
        tail: logarithm of the probability of all other tokens together ``[n]`` float32, finite. With it, each row's
            probabilities sum to 1.
        reference: the reference model's log-probability of the token itself ``[n]`` float32, or None.
    """

    ids: np.ndarray
    log_probs: np.ndarray
    tail: np.ndarray
    reference: np.ndarray | None


class _Layout:
    """How a record lies in the file."""

    def __init__(self, identity: CacheIdentity):
        self.k = identity.k
        self.id_bytes = 2 if identity.vocab_size <= 1 << 16 else 3 if identity.vocab_size <= 1 << 24 else 4
        self.reference_bytes = 0 if identity.reference is None else 4
        self.token_bytes = self.reference_bytes + 2 + self.k * (2 + self.id_bytes)

    def record(self, ids: np.ndarray, log_probs: np.ndarray, tail: np.ndarray, reference: np.ndarray | None) -> bytes:
        narrow = np.ascontiguousarray(ids, "<u4").view(np.uint8).reshape(*ids.shape, 4)[..., : self.id_bytes]
        parts = [b"" if reference is None else reference.astype("<f4").tobytes()]
        parts += [np.maximum(x, _LOWEST).astype("<f2").tobytes() for x in (tail, log_probs)]
        return b"".join([*parts, narrow.tobytes()])

    def targets(self, record: np.ndarray, tokens: int) -> CachedTargets:
        at = tokens * self.reference_bytes
        reference = record[:at].view("<f4").copy() if at else None
        tail = record[at : at + 2 * tokens].view("<f2").astype(np.float32)
        at += 2 * tokens
        log_probs = record[at : at + 2 * tokens * self.k].view("<f2").astype(np.float32).reshape(tokens, self.k)
        at += 2 * tokens * self.k
        if self.id_bytes == 2:
            ids = record[at:].view("<u2").reshape(tokens, self.k)
        else:
            wide = np.zeros((tokens, self.k, 4), np.uint8)
            wide[..., : self.id_bytes] = record[at:].reshape(tokens, self.k, self.id_bytes)
            ids = wide.view("<u4")[..., 0]
        # Half precision has moved the sum away from 1 by some 1e-4: a distribution again.
        peak = np.maximum(log_probs.max(axis=1), tail)
        total = np.exp(log_probs - peak[:, None]).sum(axis=1) + np.exp(tail - peak)
        normalizer = peak + np.log(total)
        return CachedTargets(ids, log_probs - normalizer[:, None], tail - normalizer, reference)


class TeacherCache:
    """A finished cache, read through a memory map; it pickles as its folder, for loaders' workers.

    Args:
        folder: as `nbg build-cache` says at its end.

    Attributes:
        identity: what it is of.
        about: where teacher, reference and data were, for people.
        num_sequences, num_tokens: how many it has.

    Raises:
        FileNotFoundError: there is no cache.
        ValueError: it is not finished, or broken.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()
        self.identity, self.about = read_identity(self.folder)
        self._layout = _Layout(self.identity)
        if not (self.folder / COMPLETE).is_file():
            raise ValueError(f"the cache {self.folder} is not finished: run the same nbg build-cache again, it goes on")
        counts = read_counts(self.folder)
        self.num_sequences: int = counts["sequences"]
        self.num_tokens: int = counts["tokens"]
        self._index_digest: str | None = counts.get("index")
        sizes = self.num_sequences * _ENTRY.itemsize, self.num_tokens * self._layout.token_bytes
        for name, size in zip((INDEX, TARGETS), sizes, strict=True):
            file = self.folder / name
            if not file.is_file() or file.stat().st_size != size:
                raise ValueError(f"{file} has not the {size:,} bytes it was finished with: build the cache again")

    def __reduce__(self) -> tuple[Any, ...]:
        return TeacherCache, (self.folder,)

    def __len__(self) -> int:
        return self.num_sequences

    def __contains__(self, key: bytes) -> bool:
        return self._find(key) is not None

    @property
    def bytes_per_token(self) -> float:
        """Of targets and index together."""
        size = self.num_sequences * _ENTRY.itemsize + self.num_tokens * self._layout.token_bytes
        return size / max(1, self.num_tokens)

    @cached_property
    def _entries(self) -> np.ndarray:
        """All entries, by the first half of their keys."""
        data = (self.folder / INDEX).read_bytes()
        if self._index_digest is not None and digest(data) != self._index_digest:
            raise ValueError(f"{self.folder / INDEX} is damaged: its digest is another; {_AGAIN}")
        entries = np.frombuffer(data, _ENTRY)
        return entries[np.argsort(_halves(entries["key"]), kind="stable")]

    @cached_property
    def _first_halves(self) -> np.ndarray:
        return _halves(self._entries["key"])

    @cached_property
    def _targets(self) -> np.ndarray:
        if not self.num_tokens:
            return np.empty(0, np.uint8)
        return np.memmap(self.folder / TARGETS, np.uint8, "r").view(np.ndarray)

    def _find(self, key: bytes) -> int | None:
        half = np.frombuffer(key, "<u8")[0]
        place = int(np.searchsorted(self._first_halves, half))
        while place < len(self._first_halves) and self._first_halves[place] == half:
            if self._entries["key"][place].tobytes() == key:
                return place
            place += 1
        return None

    def num_trained(self, key: bytes) -> int | None:
        """Trained tokens of a sequence, or None if it is not here."""
        place = self._find(key)
        return None if place is None else int(self._entries["tokens"][place])

    def lookup(self, key: bytes) -> CachedTargets | None:
        """The targets of a sequence, or None if it is not here.

        Args:
            key: `nbg_lightning.data.pairs.sequence_key` of its ids and trained mask.

        Raises:
            ValueError: the record is damaged.
        """
        place = self._find(key)
        if place is None:
            return None
        entry = self._entries[place]
        begin, tokens = int(entry["begin"]), int(entry["tokens"])
        record = self._targets[begin : begin + tokens * self._layout.token_bytes]
        if zlib.crc32(record.tobytes()) != int(entry["checksum"]):
            raise ValueError(f"{self.folder / TARGETS} is damaged at byte {begin:,}: build the cache again")
        targets = self._layout.targets(record, tokens)
        if tokens and int(targets.ids.max()) >= self.identity.vocab_size:
            raise ValueError(
                f"{self.folder / TARGETS} is invalid: the sequence {key.hex()} at byte {begin:,} has the id "
                f"{int(targets.ids.max())}, beyond the vocabulary of {self.identity.vocab_size:,}; {_AGAIN}"
            )
        return targets

    def check(self, **expected: Any) -> None:
        """Refuse a cache of something else.

        Args:
            **expected: fields of `CacheIdentity` with the values they must have.

        Raises:
            ValueError: naming what differs.
        """
        if other := self.identity.differences(**expected):
            raise ValueError(f"the cache {self.folder} is of something else: {'; '.join(other)}; {_REBUILD}")


_REBUILD = "build one for this run with nbg build-cache"
_AGAIN = "delete the cache and build it again"
_SEALED = "sealed"  # in the cache.json of a cache whose JSON files end with their digests


def read_counts(folder: Path) -> dict[str, Any]:
    """What the writer said when it finished a cache; with a digest of the index, if it is not of an older version.

    Raises:
        ValueError: it is damaged.
    """
    sealed = _SEALED in read_sealed(folder / ABOUT, _AGAIN, required=lambda value: _SEALED in value)[0]
    counts, _ = read_sealed(folder / COMPLETE, _AGAIN, required=lambda value: sealed or "index" in value)
    if not all(isinstance(counts.get(name), int) for name in ("sequences", "tokens")):
        raise ValueError(f"{folder / COMPLETE} is damaged: it has no counts; {_AGAIN}")
    return counts


def _halves(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY_BYTES)[:, :8].copy().view("<u8")[:, 0]


def read_identity(folder: Path) -> tuple[CacheIdentity, dict[str, Any]]:
    """What a cache is of, finished or not, and where that was.

    Raises:
        FileNotFoundError, ValueError: there is none, or one of another format.
    """
    file = folder / ABOUT
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is no teacher cache (it has no {ABOUT}): build one with nbg build-cache")
    whole, _ = read_sealed(file, _AGAIN, required=lambda value: _SEALED in value)
    try:
        if whole["format"] != FORMAT:
            raise ValueError(f"its format is {whole['format']!r}")
        return CacheIdentity(**whole["identity"]), whole["about"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not of this version of the library ({error}): build the cache again") from error


def open_cache(folder: str | Path, holding: Iterable[bytes] = (), **expected: Any) -> TeacherCache:
    """The cache in a folder, or the one among the caches in it, that is of what is expected.

    Args:
        folder: a cache, or what ``nbg build-cache --out`` was given.
        holding: keys of sequences; of several caches those count that have them.
        **expected: fields of `CacheIdentity` with the values they must have.

    Raises:
        FileNotFoundError: there is no cache.
        ValueError: none is of what is expected, or several are.
    """
    root = Path(folder).expanduser()
    if (root / ABOUT).is_file() or not root.is_dir():
        found = TeacherCache(root)
        found.check(**expected)
        return found
    caches = sorted(file.parent for file in root.glob(f"*/{ABOUT}"))
    if not caches:
        raise FileNotFoundError(f"there is no teacher cache in {root}: build one with nbg build-cache")
    fitting = [cache for cache in caches if not read_identity(cache)[0].differences(**expected)]
    if len(fitting) > 1 and (keys := list(holding)):
        opened = [TeacherCache(cache) for cache in fitting if (cache / COMPLETE).is_file()]
        fitting = [cache.folder for cache in opened if all(key in cache for key in keys)] or fitting
    if len(fitting) > 1:
        raise ValueError(f"{root} has {len(fitting)} caches that fit: name one of {', '.join(c.name for c in fitting)}")
    if not fitting:
        newest = max(caches, key=lambda cache: (cache / ABOUT).stat().st_mtime)
        other = "; ".join(read_identity(newest)[0].differences(**expected))
        raise ValueError(f"no cache in {root} is of this run (the newest, {newest.name}: {other}); {_REBUILD}")
    return TeacherCache(fitting[0])


class CacheWriter:
    """Appends sequences to a cache, and goes on where a killed one stopped; use it in a ``with`` block.

    Args:
        folder: of the cache; it is made if it is not there.
        identity: what the cache is of.
        about: where that was, for people.

    Attributes:
        num_sequences, num_tokens: how many are safe on the disk.

    Raises:
        ValueError: on entering: the folder has a cache of something else.
        FolderInUse: on entering: another process fills it.
    """

    def __init__(self, folder: str | Path, identity: CacheIdentity, about: dict[str, Any] | None = None):
        self.folder, self.identity, self.about = Path(folder).expanduser(), identity, about or {}
        self._layout = _Layout(identity)
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
                self.folder / ABOUT, {"format": FORMAT, _SEALED: True, "identity": identity, "about": self.about}
            )
        self._targets = _appendable(self.folder / TARGETS)
        self._index = _appendable(self.folder / INDEX)
        self._recover()

    def _recover(self) -> None:
        """Keep the records whose entries are whole, and cut off the rest."""
        assert self._targets is not None and self._index is not None
        raw = (self.folder / INDEX).read_bytes()
        entries = np.frombuffer(raw[: len(raw) // _ENTRY.itemsize * _ENTRY.itemsize], _ENTRY)
        ends = np.cumsum(entries["tokens"].astype(np.int64)) * self._layout.token_bytes
        begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
        size = (self.folder / TARGETS).stat().st_size
        good = (begins == entries["begin"].astype(np.int64)) & (ends <= size) & (entries["tokens"] > 0)
        count = len(entries) if good.all() else int(np.argmin(good))
        with open(self.folder / TARGETS, "rb") as targets:  # after a power failure the last ones may be torn
            while count and not _intact(targets, int(begins[count - 1]), int(ends[count - 1]), entries[count - 1]):
                count -= 1
        self._keys = {entry.tobytes() for entry in entries["key"][:count]}
        self.num_sequences = count
        self.num_tokens = int(entries["tokens"][:count].sum())
        self._targets.truncate(self.num_tokens * self._layout.token_bytes)
        self._index.truncate(count * _ENTRY.itemsize)
        if self.complete and read_counts(self.folder)["sequences"] != count:
            (self.folder / COMPLETE).unlink()  # a disk has lost some of it

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
        """Whether an earlier writer has finished it."""
        return (self.folder / COMPLETE).is_file()

    def append(
        self,
        key: bytes,
        ids: np.ndarray,
        log_probs: np.ndarray,
        tail: np.ndarray,
        reference: np.ndarray | None = None,
    ) -> None:
        """Add a sequence; one that is there already is left as it is. See `CachedTargets` for the arrays.

        Raises:
            ValueError: the cache is finished; arrays of other sizes, ids outside the vocabulary, or numbers that are none.
        """
        if key in self._keys:
            return
        if self.complete:
            raise ValueError(f"the cache {self.folder} is finished, and takes nothing more")
        self._check(ids, log_probs, tail, reference)
        record = self._layout.record(ids, log_probs, tail, reference)
        entry = np.zeros(1, _ENTRY)
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
            raise ValueError(f"targets of {ids.shape} ids and {log_probs.shape} log-probs, where {shape} are expected")
        if (reference is None) != (self.identity.reference is None) or (
            reference is not None and len(reference) != len(tail)
        ):
            raise ValueError("reference log-probs are there for all tokens of a cache with a reference, or for none")
        if ids.min() < 0 or ids.max() >= self.identity.vocab_size:
            outside = int(ids.max()) if ids.max() >= self.identity.vocab_size else int(ids.min())
            raise ValueError(f"the teacher's id {outside} is not in the vocabulary of {self.identity.vocab_size}")
        numbers = {"teacher": (log_probs, tail), "reference": () if reference is None else (reference,)}
        for whose, arrays in numbers.items():
            for array in arrays:
                if np.isnan(array).any() or (array > 1e-3).any():
                    raise ValueError(f"the {whose}'s log-probs are not finite or positive: check its weights and dtype")
        if reference is not None and not np.isfinite(reference).all():
            raise ValueError("the reference's log-probs are not finite: check its weights and dtype")

    def flush(self) -> None:
        """Make safe what was appended: records first, then their entries."""
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
        """All sequences are there: the cache may be read from now on."""
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
            f"{folder} cannot be written ({error.strerror}): free space, and run the same command again"
        ) from error


def _intact(targets: IO[bytes], begin: int, end: int, entry: np.void) -> bool:
    targets.seek(begin)
    return zlib.crc32(targets.read(end - begin)) == int(entry["checksum"])
