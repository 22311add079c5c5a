"""Upload of a prepared folder to a URL, file by file with its manifests last, so that a source is never visible incomplete."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nbg_lightning.data.progress import Progress
from nbg_lightning.data.shards import MANIFEST
from nbg_lightning.data.stored_files import DataStore
from nbg_lightning.remote import asked, open_store

REQUESTS = 8  # concurrent requests
_SPLITS = ("validation", "train")  # the training manifest is uploaded last, and marks the source as finished


def upload(folder: Path, store: DataStore, progress: bool) -> None:
    """Copy a finished ``NAME-KEY`` to a store; files that an interrupted upload has copied are skipped.

    Args:
        folder: a folder with ``train`` and, if there is any, ``validation``.
        store: the store.
        progress: show progress on stderr.

    Raises:
        OSError: the store is not writable.
    """
    root = f"{store.url.rstrip('/')}/{folder.name}"
    parts = [file for split in _SPLITS for file in sorted((folder / split).glob("part-*"))]
    manifests = [file for split in _SPLITS if (file := folder / split / MANIFEST).is_file()]
    there = _sizes(root)
    missing = [file for file in parts if there.get(file.relative_to(folder).as_posix()) != file.stat().st_size]
    with (
        Progress(f"{folder.name} to {store.url}", len(missing), progress, "files") as shown,
        ThreadPoolExecutor(REQUESTS) as pool,
    ):
        for _ in pool.map(lambda file: _put(file, folder, root), missing):
            shown.advance(1)
    for file in manifests:
        _put(file, folder, root)


def _put(file: Path, folder: Path, root: str) -> None:
    url = f"{root}/{file.relative_to(folder).as_posix()}"
    store, path = open_store(url)
    asked(url, lambda: store.put_file(str(file), path), "written")


def _sizes(root: str) -> dict[str, int]:
    """Sizes of the existing files, by their names below the root."""
    store, path = open_store(root)

    def listed() -> dict[str, int]:
        store.invalidate_cache()
        found = store.find(path, detail=True)
        return {name.removeprefix(path.rstrip("/") + "/"): about["size"] for name, about in found.items()}

    try:
        return asked(root, listed)
    except FileNotFoundError:
        return {}
