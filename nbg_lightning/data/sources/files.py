"""Finding and opening the files of a path, folder, glob pattern or URL."""

from __future__ import annotations

import glob
import gzip
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from nbg_lightning.remote import about_url, find_urls, is_url, open_url

_NOT_A_FILE = "a link to nothing, a pipe or a device"


def find_files(path: str, suffixes: tuple[str, ...], exclude: Iterable[str] = ()) -> list[str]:
    """The files at `path`, sorted: a file, a pattern, or a folder without hidden files; as paths or URLs.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a URL whose store cannot be read.
    """
    if is_url(path):
        return find_urls(path, suffixes, exclude)
    if not path.strip():
        raise FileNotFoundError(
            f"path is invalid: {path!r}; give a file, a pattern or a folder ('.' is the working folder)"
        )
    return [str(file) for file in _find_paths(path, suffixes, exclude)]


def _find_paths(path: str, suffixes: tuple[str, ...], exclude: Iterable[str]) -> list[Path]:
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if root.is_dir():
        files = walk(root, suffixes, exclude)
        if not files:
            raise FileNotFoundError(f"folder {path!r} has no file ending in {' or '.join(suffixes)}; check the path")
        return files
    if glob.has_magic(path):
        files = sorted(Path(f) for f in glob.glob(str(root), recursive=True) if os.path.isfile(f))
        files = [f for f in files if not _excluded(f.as_posix(), exclude)]
        if not files:
            raise FileNotFoundError(f"no file matches the pattern {path!r}; check it (working folder: {os.getcwd()})")
        return files
    if os.path.lexists(root):
        raise FileNotFoundError(f"{path!r} is {_NOT_A_FILE}; give a file (write the output of a pipe to a file)")
    raise FileNotFoundError(f"{path!r} does not exist; check the path (working folder: {os.getcwd()})")


def walk(root: Path, suffixes: tuple[str, ...], exclude: Iterable[str]) -> list[Path]:
    whole_folders = [pattern for pattern in exclude if pattern.endswith("/*")]  # these need not be traversed
    found = []
    seen = set()  # symbolic links may lead back to a parent folder
    for folder, subfolders, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (place := (status.st_dev, status.st_ino)) in seen:
            subfolders.clear()
            continue
        seen.add(place)
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        subfolders[:] = [
            sub
            for sub in subfolders
            if not (sub.startswith(".") or sub == "__pycache__" or _excluded(f"{prefix}{sub}/", whole_folders))
        ]
        for name in names:
            if name.endswith(suffixes) and not name.startswith(".") and not _excluded(prefix + name, exclude):
                found.append(prefix + name)
                _check_regular(root / prefix / name)
    return [root / relative for relative in sorted(found)]


def _check_regular(file: Path) -> None:
    try:
        regular = stat.S_ISREG(file.stat().st_mode)
    except OSError:
        regular = False
    if not regular:
        raise FileNotFoundError(f"'{file}' is {_NOT_A_FILE}; remove it, or put a file there")


def _excluded(relative: str, patterns: Iterable[str]) -> bool:
    """Match shell patterns against the path below the root; ``*`` crosses folders: ``*/tests/*`` matches any tests folder."""
    return any(fnmatch(f"/{relative}", p if p.startswith(("*", "/")) else f"/{p}") for p in patterns)


def file_size(place: str) -> int:
    """Size in bytes of a file at a path or URL."""
    return about_url(place)[0] if is_url(place) else os.stat(place).st_size


def file_identity(places: Iterable[str | Path]) -> list[list[Any]]:
    """Identity of files: location, size, and modification time or the store's content tag."""
    return [_identity(str(place)) for place in places]


def _identity(place: str) -> list[Any]:
    if is_url(place):
        return [place, *about_url(place)]
    about = os.stat(place)
    return [str(Path(place).resolve()), about.st_size, about.st_mtime_ns]


def open_file(place: str, wanted: int | None = None) -> IO[bytes]:
    """Open a file at a path or URL for reading.

    Args:
        place: location of the file.
        wanted: approximate number of bytes to be read; by default many.
    """
    return open_url(place, wanted) if is_url(place) else open(place, "rb")


@contextmanager
def open_text(place: str) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """The bytes of a file at a path or URL; gzip files (``.gz``) are decompressed."""
    with open_file(place) as file:
        if not place.endswith(".gz"):
            yield file
            return
        with gzip.open(file, "rb") as unpacked:
            yield unpacked
