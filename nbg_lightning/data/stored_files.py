"""Prepared data behind a URL: fetched in blocks, which are verified and cached on local disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.data.block_cache import BlockCache, open_cache
from nbg_lightning.data.checked_array import BLOCK_BYTES
from nbg_lightning.data.open_parts import OpenParts
from nbg_lightning.data.prepared_files import LocalFiles, PreparedFiles
from nbg_lightning.digests import FileDigest, digest
from nbg_lightning.remote import about_url, is_url, read_range, read_url

OPEN_PARTS = 128  # the digests and document offsets of each are in memory, up to a MB
CACHE_FOLDER = "blocks"
LEAST_BLOCKS = 4  # minimum number of blocks that a cache must hold


@dataclass(frozen=True)
class DataStore:
    """A location of prepared data behind a URL, and the settings for reading it.

    Blocks of files are fetched by range requests, ahead in the order of the samples, verified by their digests, and cached on
    local disk.

    Args:
        url: a folder in a store that fsspec supports: ``s3://bucket/data``, ``gs://...``.
        local: local folder for preparation, tokenizers, and the cache, which all ranks of the machine share.
        cache_gb: maximum size of the cache (10^9 bytes).
        block_mb: size of a block (2^20 bytes): larger ones need fewer requests, smaller ones fetch less per window.

    Raises:
        ValueError: not a URL, or invalid sizes.
    """

    url: str
    local: str = "runs/data"
    cache_gb: float = 50.0
    block_mb: float = 1.0

    def __post_init__(self) -> None:
        if not is_url(self.url):
            raise ValueError(
                f"data_dir.url is invalid: {self.url!r}; give a URL such as s3://bucket/data, or a path as data_dir"
            )
        if is_url(self.local):
            raise ValueError(f"data_dir.local is invalid: {self.local!r}; give a folder of this machine")
        if self.block_bytes < BLOCK_BYTES or self.block_bytes % BLOCK_BYTES:
            raise ValueError(f"data_dir.block_mb is invalid: {self.block_mb}; give a multiple of {BLOCK_BYTES / 2**20}")
        if self.cache_bytes < LEAST_BLOCKS * self.block_bytes:
            raise ValueError(
                f"data_dir.cache_gb is invalid: {self.cache_gb}; give at least {LEAST_BLOCKS * self.block_bytes / 1e9:g}, room "
                f"for {LEAST_BLOCKS} blocks of block_mb"
            )

    @property
    def block_bytes(self) -> int:
        """Size of a block in bytes."""
        return round(self.block_mb * 2**20)

    @property
    def cache_bytes(self) -> int:
        """Maximum size of the cache in bytes."""
        return round(self.cache_gb * 1e9)

    @property
    def cache_folder(self) -> Path:
        """Folder of the cached blocks."""
        return Path(self.local) / CACHE_FOLDER

    def files(self, source: str, split: str) -> StoredFiles:
        """The files of a split of a source, by its folder name; makes no request yet."""
        return StoredFiles(self, f"{source}/{split}")


@dataclass(frozen=True)
class StoredFiles:
    """Files behind a URL, fetched in blocks.

    Args:
        store: the store.
        folder: folder below the store's URL.
    """

    store: DataStore
    folder: str
    is_remote = True

    def kept_parts(self) -> OpenParts:
        return OpenParts(OPEN_PARTS)

    @property
    def work_folder(self) -> Path:
        return Path(self.store.local, self.folder)

    @property
    def advice(self) -> str:
        return f"remove {self.named('').removesuffix('/').rpartition('/')[0]} and prepare it again"

    def named(self, name: str) -> str:
        return f"{self.store.url.rstrip('/')}/{self.folder}/{name}"

    def exists(self, name: str) -> bool:
        """Whether a file of that name exists."""
        try:
            about_url(self.named(name))
        except FileNotFoundError:
            return False
        return True

    @property
    def cache(self) -> BlockCache:
        """The cache of this process."""
        return open_cache(self.store.cache_folder, self.store.cache_bytes)

    def bytes_of(self, name: str, expected: str | None = None) -> bytes:
        def fetch() -> bytes:
            return read_url(self.named(name))

        if expected is None:
            return fetch()
        found = self.cache.get(block_name("whole", expected), fetch)
        if digest(found) != expected:  # the next reader asks the store
            self.cache.remove(block_name("whole", expected))
        return found

    def check_size(self, name: str, expected: int) -> None:
        """Do nothing: a request per file would take minutes; a part's digests include the sizes."""

    def numbers(self, name: str, dtype: Any, expected: FileDigest | None) -> StoredNumbers:
        if expected is None:
            raise ValueError(
                f"{self.named(name)} was prepared without digests, and is not read from a URL; {self.advice}"
            )
        return StoredNumbers(self, name, dtype, expected)


class StoredNumbers:
    """A file of numbers behind a URL; everything read from it is verified, whether fetched or cached.

    Args:
        files: the files of its split.
        name: name of the file.
        dtype: dtype of a number, or of a row of numbers, which then counts as one.
        expected: the file's digest.
    """

    def __init__(self, files: StoredFiles, name: str, dtype: Any, expected: FileDigest):
        self._files, self._name, self._expected = files, name, expected
        self._dtype = np.dtype(dtype)
        self._size = files.store.block_bytes
        if self._size % expected.block_bytes:
            raise ValueError(
                f"data_dir.block_mb is invalid for {files.named(name)}; give a multiple of {expected.block_bytes} bytes"
            )
        self._identity = digest("".join(expected.blocks).encode())

    def __len__(self) -> int:
        return self._expected.num_bytes // self._dtype.itemsize

    @cached_property
    def _all(self) -> np.ndarray:
        return self.read(0, len(self))

    def read(self, begin: int, end: int) -> np.ndarray:
        """Numbers ``begin .. end - 1``, verified.

        Raises:
            OSError: they could not be fetched.
            ValueError: they are damaged.
        """
        first, last = begin * self._dtype.itemsize, end * self._dtype.itemsize
        data = b"".join(
            self._within(number, first, last) for number in range(first // self._size, -(-last // self._size))
        )
        shape = self._dtype.shape
        return np.frombuffer(data, self._dtype.base).reshape(-1, *shape) if shape else np.frombuffer(data, self._dtype)

    def search(self, begin: int, end: int) -> tuple[int, int]:
        """In ascending numbers, the range of those with values ``begin .. end - 1``; fetches all numbers once."""
        low, high = np.searchsorted(self._all, np.array([begin, end], self._dtype))
        return int(low), int(high)

    def check(self, begin: int = 0, end: int | None = None) -> None:
        """Read and verify numbers (default: all), block by block.

        Raises:
            ValueError: they are damaged.
        """
        end = len(self) if end is None else end
        step = max(1, self._size // self._dtype.itemsize)
        for first in range(begin, end, step):
            self.read(first, min(end, first + step))

    def _within(self, number: int, first: int, last: int) -> bytes:
        """The bytes of a block that lie in ``first .. last - 1`` of the file."""
        begin = number * self._size
        end = min(begin + self._size, self._expected.num_bytes)
        low, high = max(first, begin), min(last, end)
        checked = self._expected.block_bytes
        start, stop = low // checked * checked, min(-(-high // checked) * checked, end)
        name = block_name(self._identity, f"{self._size}-{number}")
        found = self._files.cache.get(name, lambda: self._fetch(begin, end), start - begin, stop - begin)
        if self._damaged(found, start, stop) is not None:
            self._files.cache.remove(name)  # damaged on this disk: fetch it from the store once more
            found = self._fetch(begin, end)[start - begin : stop - begin]
        return found[low - start : high - start]

    def _fetch(self, begin: int, end: int) -> bytes:
        """Fetch bytes ``begin .. end - 1`` of the file, verified.

        Raises:
            ValueError: they are damaged.
        """
        url = self._files.named(self._name)
        found = read_range(url, begin, end, "")
        bad = self._damaged(found, begin, end)
        if bad is not None:
            raise ValueError(
                f"{url} is damaged or has changed in block {bad} (bytes {bad * self._expected.block_bytes:,} and on): its digest "
                f"is another; {self._files.advice}"
            )
        return found

    def _damaged(self, found: bytes, begin: int, end: int) -> int | None:
        """The first digest block that differs in the data fetched for bytes ``begin .. end - 1``; None if all match."""
        size, view = self._expected.block_bytes, memoryview(found)
        for number in range(begin // size, -(-end // size)):
            at = number * size - begin
            if digest(view[at : at + size]) != self._expected.blocks[number]:
                return number
        return None


def block_name(*parts: str) -> str:
    """Name of a block in the cache: a hex digest of whatever identifies its content."""
    return digest("\0".join(parts).encode()) + digest("\0".join(reversed(parts)).encode())


def opened(place: str | Path | StoredFiles) -> PreparedFiles:
    """The files at a location."""
    return place if isinstance(place, StoredFiles) else LocalFiles(place)
