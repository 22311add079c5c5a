"""The folder of a checkpoint: when it is complete, how it is renamed into place, and how an interrupted replacement is completed.

A checkpoint is written to ``NAME.partial``. If ``NAME`` is free, it is renamed. If there is an older checkpoint ``NAME``::

        NAME         -> NAME.old     from here, NAME is missing: `settle` renames either the new or the old files to it
        NAME.partial -> NAME         from here, both exist, and NAME is the valid one
    NAME.old is removed

A process killed in between loses nothing: the next reader of ``NAME`` calls `settle` first.

Object stores behind a URL have no rename: there a checkpoint is written under its final name, and is complete when it has its
digests, which are written last and removed first.
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
    """Names of the complete checkpoints in a folder and in its ``checkpoints`` subfolder, oldest first."""
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
    """Resolve a run's folder, or ``last`` in it, to its newest checkpoint; any other place is returned as it is.

    Args:
        place: a checkpoint, ``runs/NAME``, ``runs/NAME/last``, ``runs/NAME/checkpoints``; or a Hugging Face folder or hub name,
            which is not inspected.

    Raises:
        ValueError: ``last`` of a folder without a complete checkpoint.
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
    return str(place)  # whoever opens it reports what is missing


def local_or_url(place: str | PathOrUrl) -> PathOrUrl:
    """A path with ``~`` expanded, or a URL."""
    found = place_of(place)
    return found.expanduser() if isinstance(found, Path) else found


@overload
def newest_below(folder: Path) -> Path | None: ...
@overload
def newest_below(folder: PathOrUrl) -> PathOrUrl | None: ...
def newest_below(folder: PathOrUrl) -> PathOrUrl | None:
    """The newest complete checkpoint of a run's folder, after settling interrupted replacements; None if there is none."""
    for each in (folder, folder / "checkpoints"):
        settle_all(each)
    found = checkpoints_below(folder)
    return folder / max(found, key=_step) if found else None


def newest_checkpoint(place: str | PathOrUrl) -> PathOrUrl:
    """Resolve a place as `checkpoint_at` does, and require a checkpoint.

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
    """The folder that a checkpoint is written to before it is renamed."""
    return _beside(path, PARTIAL)


def written_at(path: PathOrUrl) -> PathOrUrl:
    """Where a checkpoint is written: on a disk to a partial folder, behind a URL under its final name."""
    return path if isinstance(path, UrlPath) else partial_folder(path)


def remove(path: PathOrUrl) -> None:
    """Remove a checkpoint or a partial one; while it is being removed it is never taken for a complete one."""
    if isinstance(path, Path):
        shutil.rmtree(path, ignore_errors=True)
        return
    (path / DIGESTS).remove()
    path.remove()


def move(path: PathOrUrl, target: PathOrUrl) -> None:
    """Rename a checkpoint; behind a URL its digests are the first to be removed and the last to be copied."""
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
    """Make room for a new checkpoint; called by the first rank."""
    if isinstance(path, UrlPath):
        remove(path)
        return
    settle(path)
    shutil.rmtree(partial_folder(path), ignore_errors=True)
    if not path.exists():
        shutil.rmtree(_beside(path, OLD), ignore_errors=True)  # it could not be settled, so it is not a checkpoint


def replace(path: PathOrUrl) -> None:
    """Rename a written checkpoint into place, and then remove an older one of that name.

    Called by the first rank.
    """
    if isinstance(path, UrlPath):
        return  # it has been written under its name
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
    """Complete an interrupted replacement of a checkpoint, so that its name exists again.

    The new files take the name if their digests show that they are complete; otherwise the old ones are restored. Any rank or
    process may call this at any time: the first one does the work, the others wait for it.

    Args:
        path: the checkpoint, which need not exist.
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
    """Remove partial checkpoints of killed processes from a folder that has been settled.

    Args:
        folder: the folder of checkpoints.
        prefix: prefix of their names.
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
    """Rename the new or the old files into place; only one process at a time does this."""
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
    """Whether all files match their digests."""
    if not (folder / DIGESTS).is_file():
        return False
    try:
        from nbg_lightning.core.checkpoint import (
            CheckpointFiles,  # imports torch, which takes seconds; most folders do not need it
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
    """Hold the lock for renaming in a folder; the lock of a killed process is released."""
    with (folder / _LOCK).open("a") as stream:
        with suppress(OSError):  # file systems without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
