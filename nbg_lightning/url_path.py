"""Files and folders behind a URL, with the methods of `pathlib.Path` that are used for checkpoints."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from nbg_lightning.digests import CheckedFile, FileDigest, require_regular
from nbg_lightning.remote import about_url, asked, is_url, open_store, read_range, read_url


@dataclass(frozen=True, order=True)
class UrlPath:
    """A file or folder in a store; a folder exists while it is not empty.

    Args:
        url: its URL, without a trailing slash.

    Example:
        >>> (UrlPath("s3://bucket/run") / "step-00000010").name
        'step-00000010'
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> UrlPath:
        return UrlPath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The part after the last slash."""
        return self.url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The suffix of the name, from its last dot on."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> UrlPath:
        """The parent folder."""
        return UrlPath(self.url.rpartition("/")[0])

    def with_name(self, name: str) -> UrlPath:
        """A sibling with another name."""
        return self.parent / name

    def _store(self) -> tuple[Any, str]:
        """Its store, with listings uncached, and the path in it."""
        store, path = open_store(self.url)
        store.invalidate_cache()
        return store, path

    def exists(self) -> bool:
        """Whether it is a file or folder."""
        store, path = self._store()
        return bool(asked(self.url, lambda: store.exists(path)))

    def is_file(self) -> bool:
        """Whether it is a file."""
        store, path = self._store()
        return bool(asked(self.url, lambda: store.isfile(path)))

    def is_dir(self) -> bool:
        """Whether it is a folder, that is, not empty."""
        return next(self.iterdir(), None) is not None

    def iterdir(self) -> Iterator[UrlPath]:
        """The contents of a folder, by name; empty if there is none."""
        store, path = open_store(self.url)
        own = path.rstrip("/")
        try:
            found = asked(self.url, lambda: store.ls(path, detail=False, refresh=True))
        except (FileNotFoundError, NotADirectoryError):
            found = []
        names = {name.rstrip("/").rpartition("/")[2] for name in found if name.rstrip("/") != own}
        return iter([self / name for name in sorted(names)])

    def glob(self, pattern: str) -> Iterator[UrlPath]:
        """The contents of a folder whose names match a pattern."""
        return (each for each in self.iterdir() if fnmatch(each.name, pattern))

    def read_bytes(self) -> bytes:
        """Read a file.

        Raises:
            FileNotFoundError: there is none.
        """
        return read_url(self.url)

    def write_bytes(self, data: bytes) -> None:
        """Write a file, atomically."""
        store, path = open_store(self.url)
        asked(self.url, lambda: store.pipe_file(path, data), "written")

    def open_write(self) -> IO[bytes]:
        """Open a file for sequential writing; it appears once it is closed."""
        store, path = open_store(self.url)
        asked(self.url, lambda: store.makedirs(str(PurePosixPath(path).parent), exist_ok=True), "written")
        return cast(IO[bytes], store.open(path, "wb"))

    def modified(self) -> float:
        """Modification time of a file, in seconds since the epoch."""
        store, path = open_store(self.url)
        found = asked(self.url, lambda: store.modified(path))
        return cast(datetime, found).timestamp()

    def move(self, target: UrlPath) -> None:
        """Rename a file; stores copy it."""
        store, path = open_store(self.url)
        _, there = open_store(target.url)
        asked(self.url, lambda: store.mv(path, there), "moved")

    def remove(self) -> None:
        """Remove a file, or a folder with its contents, if it exists."""
        store, path = self._store()

        def gone() -> None:
            if store.exists(path):
                store.rm(path, recursive=True)

        asked(self.url, gone, "removed")


PathOrUrl = Path | UrlPath


def place_of(place: str | Path | UrlPath) -> PathOrUrl:
    """A `Path`, or a `UrlPath` for a URL."""
    if isinstance(place, (Path, UrlPath)):
        return place
    return UrlPath(place.rstrip("/")) if is_url(place) else Path(place)


class CheckedUrl(CheckedFile):
    """A file behind a URL whose blocks are verified against their digests when they are first read.

    Raises:
        FileNotFoundError: there is none.
        ValueError: as `CheckedFile`.
    """

    def __init__(self, place: UrlPath, expected: FileDigest, advice: str):
        self._url = place.url
        super().__init__(place, expected, advice)

    def _opened(self) -> tuple[Any, int]:
        size, self._version = about_url(self._url)
        return io.BytesIO(), size

    def _fill(self, begin: int, out: memoryview) -> None:
        out[:] = read_range(self._url, begin, begin + len(out), self._version)


def open_checked(place: PathOrUrl, expected: FileDigest, advice: str) -> CheckedFile:
    """Open a file whose blocks are verified as they are read."""
    return CheckedUrl(place, expected, advice) if isinstance(place, UrlPath) else CheckedFile(place, expected, advice)


def require_file(place: PathOrUrl) -> None:
    """Raise for anything but a regular file on a disk; files behind URLs are always regular.

    Raises:
        FileNotFoundError, ValueError: as `require_regular`.
    """
    if isinstance(place, Path):
        require_regular(place)
    elif not place.is_file():
        raise FileNotFoundError(f"{place} is missing; check the URL")
