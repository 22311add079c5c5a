"""The folder of a checkpoint: when it is complete, how it takes its name, and how an interrupted replacement ends.

A checkpoint is written into ``NAME.partial``. Where ``NAME`` is free, one rename is all. Where an older one has it::

    NAME         -> NAME.old     after this, NAME is missing: `settle` gives it to the new files or back to the old ones
    NAME.partial -> NAME         after this, both are there, and NAME counts
    NAME.old is removed

A process that is killed in between has lost nothing, and whoever looks for ``NAME`` next calls `settle` first.

Stores behind a URL have no rename: there a checkpoint is written under its name, and is complete when it has its digests, which
are written last and removed first.
"""

from __future__ import annotations

import fcntl
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import overload

from nbg_lightning.core.checkpoint_names import DIGESTS, META, METADATA
from nbg_lightning.url_path import PathOrUrl, UrlPath, place_of

PARTIAL = ".partial"
OLD = ".old"
_LOCK = ".replacing"
_MODEL_FILES = ("config.json", "tokenizer.json")  # of a Hugging Face folder

_log = logging.getLogger(__name__)


def is_complete(path: PathOrUrl) -> bool:
    """Whether a folder is a finished sharded checkpoint."""
    if isinstance(path, UrlPath):
        return (path / DIGESTS).is_file()
    return path.suffix not in (PARTIAL, OLD) and _has_metadata(path)


def checkpoints_below(folder: PathOrUrl) -> list[str]:
    """The complete checkpoints in a folder and in its ``checkpoints``, where a run keeps them: names below it, oldest first."""
    places = (folder, folder / "checkpoints")
    return [
        str(each).removeprefix(f"{folder}/")
        for place in places
        if place.is_dir()
        for each in _sorted(place)
        if is_complete(each)
    ]


def _sorted(folder: PathOrUrl) -> list[PathOrUrl]:
    return sorted(folder.iterdir(), key=str)


def checkpoint_at(place: str | PathOrUrl) -> str:
    """The checkpoint that a place stands for: of a run's folder, and of ``last`` in it, the newest; any other place as it is.

    Args:
        place: a checkpoint, ``runs/NAME``, ``runs/NAME/last``, ``runs/NAME/checkpoints``; or a Hugging Face folder or hub name,
            of which nothing is looked at.

    Raises:
        ValueError: ``last`` of a folder that has no complete checkpoint.
    """
    path = local_or_url(place)
    settle(path)
    is_last = path.name == "last" and not path.exists()
    folder = path.parent if is_last else path
    if not folder.is_dir() or is_complete(folder) or any((folder / name).is_file() for name in _MODEL_FILES):
        return str(place)
    if found := newest_below(folder):
        return str(found)
    if is_last:
        raise ValueError(f"{place} is invalid: {folder} has no complete checkpoint; give a run that has saved one")
    return str(place)  # what is missing in it is said by who opens it


def local_or_url(place: str | PathOrUrl) -> PathOrUrl:
    """A path, with the user's home in place of ``~``, or what a URL names."""
    found = place_of(place)
    return found.expanduser() if isinstance(found, Path) else found


@overload
def newest_below(folder: Path) -> Path | None: ...
@overload
def newest_below(folder: PathOrUrl) -> PathOrUrl | None: ...
def newest_below(folder: PathOrUrl) -> PathOrUrl | None:
    """The newest complete checkpoint of a run's folder, whose interrupted replacements are settled first; None without any."""
    for each in (folder, folder / "checkpoints"):
        settle_all(each)
    found = checkpoints_below(folder)
    return folder / max(found, key=_step) if found else None


def newest_checkpoint(place: str | PathOrUrl) -> PathOrUrl:
    """The checkpoint that a place stands for, as `checkpoint_at`, where it must be one.

    Raises:
        FileNotFoundError: there is none.
    """
    path = place_of(checkpoint_at(place))
    if not is_complete(path):
        raise FileNotFoundError(
            f"{place} is not a complete checkpoint, and there is none in it; give the folder of a run that has saved one"
        )
    return path


def _step(name: str) -> tuple[int, str]:
    number = re.search(r"(\d+)$", name)
    return (int(number[1]) if number else -1, name)


def partial_folder(path: Path) -> Path:
    """Where a checkpoint is written before it takes its name."""
    return _beside(path, PARTIAL)


def written_at(path: PathOrUrl) -> PathOrUrl:
    """Where a checkpoint is written: beside its name on a disk, under it behind a URL."""
    return path if isinstance(path, UrlPath) else partial_folder(path)


def remove(path: PathOrUrl) -> None:
    """Remove a checkpoint, or what has been written of one; half of it never looks like a whole one."""
    if isinstance(path, Path):
        shutil.rmtree(path, ignore_errors=True)
        return
    (path / DIGESTS).remove()
    path.remove()


def move(path: PathOrUrl, target: PathOrUrl) -> None:
    """Give a checkpoint another name; behind a URL its digests are the first to go and the last to come."""
    if isinstance(path, Path):
        place = Path(str(target))
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
        return
    digests = (path / DIGESTS).read_bytes()
    (path / DIGESTS).remove()
    for file in path.iterdir():
        file.move(UrlPath(f"{target}/{file.name}"))
    UrlPath(f"{target}/{DIGESTS}").write_bytes(digests)


def prepare(path: PathOrUrl) -> None:
    """Make room for a checkpoint to be written; the first rank calls it."""
    if isinstance(path, UrlPath):
        remove(path)
        return
    settle(path)
    shutil.rmtree(partial_folder(path), ignore_errors=True)
    if not path.exists():
        shutil.rmtree(_beside(path, OLD), ignore_errors=True)  # it could not be settled, so it is no checkpoint


def replace(path: PathOrUrl) -> None:
    """Let the checkpoint that was written take its name; an older one of that name goes only after.

    The first rank calls it.
    """
    if isinstance(path, UrlPath):
        return  # it has been written there
    old = _beside(path, OLD)
    shutil.rmtree(old, ignore_errors=True)
    if not path.exists():
        partial_folder(path).rename(path)
        return
    with _renaming(path.parent):
        path.rename(old)
        partial_folder(path).rename(path)
    shutil.rmtree(old, ignore_errors=True)


def settle(path: str | PathOrUrl) -> None:
    """End an interrupted replacement of a checkpoint, so that its name is there again.

    The new files take the name if they are whole, by their digests; else the old ones have it back. Any rank or process may
    call this at any time: the first one does it, the others wait until it is done.

    Args:
        path: of the checkpoint, whether it exists or not.
    """
    path = place_of(path)
    if isinstance(path, UrlPath) or path.exists() or not _beside(path, OLD).is_dir():
        return
    try:
        with _renaming(path.parent):
            if not path.exists():
                _choose(path)
    except OSError as error:
        _log.warning(f"warning: a replacement of {path} was interrupted, and cannot be ended: {error.strerror}")


def settle_all(folder: str | PathOrUrl) -> None:
    """`settle` every checkpoint of a folder."""
    folder = place_of(folder)
    for old in [] if isinstance(folder, UrlPath) else sorted(folder.glob(f"*{OLD}")):
        settle(old.with_suffix(""))


def remove_leftovers(folder: str | PathOrUrl, prefix: str) -> None:
    """Remove what processes that were killed while they saved have left in a folder that has been settled.

    Args:
        folder: of checkpoints.
        prefix: of their names.
    """
    folder = place_of(folder)
    if isinstance(folder, UrlPath):
        for each in folder.glob(f"{prefix}*"):
            if not is_complete(each):
                remove(each)
        return
    for partial in folder.glob(f"{prefix}*{PARTIAL}"):
        shutil.rmtree(partial)
    for old in folder.glob(f"{prefix}*{OLD}"):
        if is_complete(old.with_suffix("")):
            shutil.rmtree(old)


def _choose(path: Path) -> None:
    """Give the name to the new files or to the old ones; this process alone renames."""
    old, partial = _beside(path, OLD), partial_folder(path)
    if _is_whole(partial):
        partial.rename(path)
        chosen = "the new files are whole and have its name"
    elif _has_metadata(old):
        old.rename(path)
        chosen = "the new files are not whole, and the old ones have its name again"
    else:
        return
    _log.warning(f"warning: a replacement of {path} was interrupted: {chosen}")


def _is_whole(folder: Path) -> bool:
    """Whether all files are there, as their digests say."""
    if not (folder / DIGESTS).is_file():
        return False
    try:
        from nbg_lightning.core.checkpoint import (
            CheckpointFiles,  # torch takes seconds, and most folders need no look inside
        )

        files = CheckpointFiles(folder)
        files.check()
        files.meta()
        files.metadata()
    except (OSError, ValueError):
        return False
    return True


def _has_metadata(folder: Path) -> bool:
    return (folder / META).is_file() and (folder / METADATA).is_file()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


@contextmanager
def _renaming(folder: Path) -> Iterator[None]:
    """One process at a time renames in a folder; a killed one's lock goes with it."""
    with (folder / _LOCK).open("a") as stream:
        with suppress(OSError):  # file systems without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
