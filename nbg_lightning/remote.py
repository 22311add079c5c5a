"""Files behind URLs (``s3://``, ``gs://``, ``hf://``, ``https://``), found and read through fsspec.

A file is read in ranges of some MB, each of which is retried if the connection is lost. A store's metadata of an object
(its ETag or modification time) identifies its content.
"""

from __future__ import annotations

import io
import itertools
import re
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from typing import IO, Any, TypeVar

from nbg_lightning import log
from nbg_lightning.error_line import first_line

RANGE_BYTES = 8 << 20  # per request: large enough for latency to be small compared with the transfer
RETRY_SECONDS = 120.0  # during which a failed range is retried
_FEWEST_REQUESTS = 4  # even if the machine was suspended meanwhile
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # seconds between two requests
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_VERSION_KEYS = (
    "ETag",
    "etag",
    "checksum",
    "md5Hash",
    "content_md5",
    "sha",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
)
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "'nbg-lightning[s3]'"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    "hf": "huggingface_hub",
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    "oci": "ocifs",
}
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, ValueError)  # retrying would not help

T = TypeVar("T")


def is_url(place: str) -> bool:
    """Whether a text is a URL rather than a path."""
    return _URL.match(place) is not None


def open_store(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        ValueError: an unknown kind of URL, a missing package, or invalid settings; with what to do.
    """
    from fsspec.core import url_to_fs

    try:
        store, path = url_to_fs(url)
    except ImportError as error:
        raise ValueError(
            f"{url} needs a missing package: {first_line(error)}; type: pip install {_package_of(url)}"
        ) from None
    except Exception as error:
        raise ValueError(
            f"{url} is invalid: {first_line(error)}; give a URL that fsspec knows, such as s3://bucket/name"
        ) from None
    return store, path


def _package_of(url: str) -> str:
    """The package to install for a kind of store."""
    return _PACKAGES.get(url.partition("://")[0].lower(), "the package that it names")


def find_urls(url: str, suffixes: tuple[str, ...], exclude: Iterable[str] = ()) -> list[str]:
    """The URLs that a URL refers to, sorted: a file, a pattern, or a folder without hidden files.

    Args:
        url: the URL as given by the user.
        suffixes: suffixes of files in a folder.
        exclude: shell patterns of paths below the folder to skip.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the store cannot be read; with the reason.
    """
    store, path = open_store(url)
    patterns = [each if each.startswith(("*", "/")) else f"/{each}" for each in exclude]

    def wanted(found: str) -> bool:
        below = found.removeprefix(path.rstrip("/"))
        names = [name for name in below.split("/") if name]
        is_hidden = any(name.startswith(".") for name in names)
        return found.endswith(suffixes) and not is_hidden and not any(fnmatch(below, each) for each in patterns)

    def listed() -> list[str]:
        store.invalidate_cache()
        if any(character in path for character in "*?["):
            return [found for found, about in store.glob(path, detail=True).items() if about["type"] == "file"]
        if store.isfile(path):
            return [path]
        return [found for found in store.find(path) if wanted(found)]

    found = sorted(asked(url, listed))
    if not found:
        raise FileNotFoundError(f"there is no file at {url}; check the URL, and that it may be listed")
    return [store.unstrip_protocol(each) for each in found]


def about_url(url: str) -> tuple[int, str]:
    """Size in bytes of a file, and an identifier of its content.

    Raises:
        FileNotFoundError: there is none.
        ValueError: its store does not report a size.
    """
    store, path = open_store(url)
    about = asked(url, lambda: store.info(path))
    if not isinstance(about.get("size"), int):
        raise ValueError(f"{url} is invalid: its server does not report a size; download the file, and give its path")
    version = next((str(about[key]) for key in _VERSION_KEYS if about.get(key)), "")
    return about["size"], version


def open_url(url: str, wanted: int | None = None) -> IO[bytes]:
    """Open a file for reading from any position.

    Args:
        url: URL of the file.
        wanted: approximate number of bytes that will be read, which limits the size of ranges. By default many.

    Raises:
        FileNotFoundError: there is none.
        OSError: while reading: a range could not be read within `RETRY_SECONDS`.
        ValueError: while reading: it has changed since it was opened, or its server does not support ranges.
    """
    return io.BufferedReader(_RangeReader(url), min(wanted or RANGE_BYTES, RANGE_BYTES))


class _RangeReader(io.RawIOBase):
    def __init__(self, url: str):
        self.url = url
        self._size, self._version = about_url(url)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        end = min(self._place + len(buffer), self._size)
        if self._place >= end:
            return 0
        data = read_range(self.url, self._place, end, self._version)
        buffer[: len(data)] = data
        self._place = end
        return len(data)


def read_range(url: str, begin: int, end: int, version: str) -> bytes:
    """Bytes ``begin .. end - 1`` of a file, all of them.

    Args:
        url: URL of the file.
        begin: index of the first byte.
        end: index after the last byte.
        version: identifier of its content when it was first read, see `about_url`; empty if a store has none.

    Raises:
        OSError: they could not be read within `RETRY_SECONDS`.
        ValueError: the file has changed, or its server returns other bytes than requested.
    """
    store, path = open_store(url)
    data: bytes = asked(url, lambda: store.cat_file(path, start=begin, end=end))
    if len(data) != end - begin:
        store.invalidate_cache()
        if about_url(url)[1] != version:
            raise ValueError(f"{url} has changed while it was read; run again")
        raise ValueError(
            f"{url} is invalid: {len(data):,} bytes came where {end - begin:,} were asked for; its server gives no ranges: "
            "download the file, and give its path"
        )
    return data


def read_url(url: str) -> bytes:
    """All bytes of a URL; raises as `read_range`, and FileNotFoundError where there is nothing."""
    size, version = about_url(url)
    return read_range(url, 0, size, version)


def asked(url: str, request: Callable[[], T], done: str = "read") -> T:
    """The response to a request, which is retried while the connection fails.

    Args:
        url: the URL, for messages.
        request: sends the request to the store.
        done: what it does with the URL, as a participle.

    Raises:
        OSError: there was no response within `RETRY_SECONDS`.
        FileNotFoundError, PermissionError, ValueError: the request was rejected, and a retry would not help.
    """
    last = time.monotonic() + RETRY_SECONDS
    pause = _FIRST_PAUSE
    for attempt in itertools.count(1):
        try:
            return request()
        except _FINAL as error:
            raise type(error)(f"{url}: {first_line(error)}; check the URL, and the credentials of its store") from None
        except Exception as error:  # stores raise many kinds
            if "credentials" in first_line(error).lower():
                raise ValueError(
                    f"{url} needs credentials: {first_line(error)}; log in, or set its store's variables"
                ) from None
            if attempt >= _FEWEST_REQUESTS and time.monotonic() + pause > last:
                raise OSError(
                    f"{url} could not be {done} for {RETRY_SECONDS:g} s ({first_line(error)}); try again when its store answers"
                ) from error
            log.warn(f"{url}: {first_line(error)}; retrying")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    raise AssertionError("requests are not counted to an end")
