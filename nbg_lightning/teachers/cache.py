"""Reading a teacher cache in training: see `nbg_lightning.teachers.cache_format` for its files."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.data.tokenizer import Tokenizer, load_tokenizer
from nbg_lightning.digests import digest
from nbg_lightning.error_line import first_line
from nbg_lightning.teachers.cache_format import (
    ABOUT,
    AGAIN,
    COMPLETE,
    ENTRY,
    INDEX,
    REBUILD,
    TARGETS,
    TOKENIZER,
    CachedTargets,
    Layout,
    first_halves,
    read_counts,
    read_identity,
)


class TeacherCache:
    """A finished cache, read through a memory map; it pickles as its folder, for dataloader workers.

    Args:
        folder: the folder that `nbg build-cache` prints at its end.

    Attributes:
        identity: identity of its contents.
        about: provenance of teacher, reference and data.
        num_sequences, num_tokens: size of the cache.

    Raises:
        FileNotFoundError: there is no cache.
        ValueError: it is not finished, or broken.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).expanduser()
        self.identity, self.about = read_identity(self.folder)
        self._layout = Layout(self.identity)
        if not (self.folder / COMPLETE).is_file():
            raise ValueError(f"the cache {self.folder} is not finished; run the same nbg build-cache again, it goes on")
        counts = read_counts(self.folder)
        self.num_sequences: int = counts["sequences"]
        self.num_tokens: int = counts["tokens"]
        self._index_digest: str | None = counts.get("index")
        sizes = self.num_sequences * ENTRY.itemsize, self.num_tokens * self._layout.token_bytes
        for name, size in zip((INDEX, TARGETS), sizes, strict=True):
            file = self.folder / name
            if not file.is_file() or file.stat().st_size != size:
                raise ValueError(f"{file} has not the {size:,} bytes it was finished with; build the cache again")

    def __reduce__(self) -> tuple[Any, ...]:
        return TeacherCache, (self.folder,)

    def __len__(self) -> int:
        return self.num_sequences

    def __contains__(self, key: bytes) -> bool:
        return self._find(key) is not None

    @property
    def bytes_per_token(self) -> float:
        """Bytes per token, of targets and index together."""
        size = self.num_sequences * ENTRY.itemsize + self.num_tokens * self._layout.token_bytes
        return size / max(1, self.num_tokens)

    @cached_property
    def teacher_tokenizer(self) -> Tokenizer | None:
        """The teacher's tokenizer, if its ids differ from the data's.

        Raises:
            ValueError: it is missing, or another one.
        """
        if self.identity.teacher_tokenizer is None:
            return None
        folder = self.folder / TOKENIZER
        try:
            found = load_tokenizer(str(folder))
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} is no tokenizer ({first_line(error)}); {AGAIN}") from error
        if found.fingerprint != self.identity.teacher_tokenizer:
            raise ValueError(f"{folder} is invalid: it is not the tokenizer of the cache's teacher; {AGAIN}")
        return found

    @cached_property
    def _entries(self) -> np.ndarray:
        """All entries, by the first half of their keys."""
        data = (self.folder / INDEX).read_bytes()
        if self._index_digest is not None and digest(data) != self._index_digest:
            raise ValueError(f"{self.folder / INDEX} is damaged: its digest does not match; {AGAIN}")
        entries = np.frombuffer(data, ENTRY)
        return entries[np.argsort(first_halves(entries["key"]), kind="stable")]

    @cached_property
    def _first_halves(self) -> np.ndarray:
        return first_halves(self._entries["key"])

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
        """Number of trained tokens of a sequence; None if it is not cached."""
        place = self._find(key)
        return None if place is None else int(self._entries["tokens"][place])

    def lookup(self, key: bytes) -> CachedTargets | None:
        """The targets of a sequence; None if it is not cached.

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
            raise ValueError(f"{self.folder / TARGETS} is damaged at byte {begin:,}; build the cache again")
        targets = self._layout.targets(record, tokens)
        if tokens and int(targets.ids.max()) >= self.identity.vocab_size:
            raise ValueError(
                f"{self.folder / TARGETS} is invalid: the sequence {key.hex()} at byte {begin:,} has the id "
                f"{int(targets.ids.max())}, beyond the vocabulary of {self.identity.vocab_size:,}; {AGAIN}"
            )
        return targets

    def check(self, **expected: Any) -> None:
        """Raise if the cache has another identity.

        Args:
            **expected: fields of `CacheIdentity` with their required values.

        Raises:
            ValueError: naming what differs.
        """
        if other := self.identity.differences(**expected):
            raise ValueError(f"the cache {self.folder} is of something else: {'; '.join(other)}; {REBUILD}")


def open_cache(folder: str | Path, holding: Iterable[bytes] = (), **expected: Any) -> TeacherCache:
    """The cache in a folder, or the matching one of several caches in it.

    Args:
        folder: a cache, or the argument of ``nbg build-cache --out``.
        holding: keys of sequences; of several caches, only those that contain them are considered.
        **expected: fields of `CacheIdentity` with their required values.

    Raises:
        FileNotFoundError: there is no cache.
        ValueError: none matches, or several do.
    """
    root = Path(folder).expanduser()
    if (root / ABOUT).is_file() or not root.is_dir():
        found = TeacherCache(root)
        found.check(**expected)
        return found
    caches = sorted(file.parent for file in root.glob(f"*/{ABOUT}"))
    if not caches:
        raise FileNotFoundError(f"there is no teacher cache in {root}; build one with nbg build-cache")
    fitting = [cache for cache in caches if not read_identity(cache)[0].differences(**expected)]
    if len(fitting) > 1 and (keys := list(holding)):
        opened = [TeacherCache(cache) for cache in fitting if (cache / COMPLETE).is_file()]
        fitting = [cache.folder for cache in opened if all(key in cache for key in keys)] or fitting
    if len(fitting) > 1:
        raise ValueError(f"{root} has {len(fitting)} caches that fit; name one of {', '.join(c.name for c in fitting)}")
    if not fitting:
        newest = max(caches, key=lambda cache: (cache / ABOUT).stat().st_mtime)
        other = "; ".join(read_identity(newest)[0].differences(**expected))
        raise ValueError(f"no cache in {root} is of this run (the newest, {newest.name}: {other}); {REBUILD}")
    return TeacherCache(fitting[0])
