"""Preparation of sources: tokenized once into folders, in parallel, and safe to kill at any time.

``root/NAME-KEY/`` belongs to one combination of source, tokenizer and options (KEY is their hash)::

        source.json        the settings that KEY is a hash of, for reference
        engines-differ.json   why fastokens may not encode it, if so
        parts/             one small record per finished part, from which an interrupted preparation resumes
        train/             token files and manifest.json, which is written last (see shards.py)
        validation/        the same, if there is validation text

Every file is written under a temporary name, flushed to disk and renamed, and a part is finished when its record exists. The
result does not depend on the number of workers, on interruptions, or on the tokenizer engine: large sources are encoded by
fastokens if it gives the ids of `tokenizers`, and if it ever does not, the whole source is encoded again.

A document is validation text if a hash of its text, keyed by the seed, is below ``validation_fraction``, so that
copies of a document are always on the same side. If no document of a (small) source is, the ones with the lowest hash
become validation text, so that every source with two different documents has some.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nbg_lightning.data.durable import content_key, locked
from nbg_lightning.data.encoder import Encoder, TextEncoder
from nbg_lightning.data.preparation import Preparation, Workers
from nbg_lightning.data.shards import MANIFEST, TokenizedSource
from nbg_lightning.data.share import Share
from nbg_lightning.data.sources import Source, naming
from nbg_lightning.data.stored_files import DataStore, StoredFiles
from nbg_lightning.data.tokenizer import TokenizerConfig
from nbg_lightning.data.tokenizer_folder import tokenizer_folder
from nbg_lightning.data.upload import upload
from nbg_lightning.jobs import EngineName
from nbg_lightning.worker_process import usable_cores

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedSource:
    """Folders of one prepared source, for `TokenizedSource`.

    Args:
        train: Training documents.
        validation: Held-out documents; None if ``validation_fraction`` is 0 or the source has only one
            distinct document.
    """

    train: Path | StoredFiles
    validation: Path | StoredFiles | None


@dataclass(frozen=True)
class PreparedData:
    """All sources of a run and the tokenizer they share."""

    tokenizer: Path
    sources: dict[str, PreparedSource]


@dataclass(frozen=True)
class PreparationSettings:
    """Settings of the preparation, for all sources of a run. See `prepare_all`.

    Args:
        root: folder for all files.
        validation_fraction: share of documents held out, in [0, 1).
        seed: determines which documents are held out.
        num_workers: processes; None for one per available core, 0 to work in this process.
        progress: show progress on stderr.
        engine: ``local``, or ``ray`` for a cluster whose machines see the folders under the same paths.
        store: URL store of prepared sources; missing ones are prepared below ``root`` and uploaded.
    """

    root: str | Path
    validation_fraction: float = 0.002
    seed: int = 0
    num_workers: int | None = None
    progress: bool = True
    engine: EngineName = "local"
    store: DataStore | None = None


def prepare_all(
    sources: dict[str, Source],
    tokenizer: TokenizerConfig,
    root: str | Path,
    validation_fraction: float = 0.002,
    seed: int = 0,
    num_workers: int | None = None,
    progress: bool = True,
    check_sizes: bool = True,
) -> PreparedData:
    """Train the tokenizer if configured, then prepare every source; existing results are reused.

    Args:
        sources: Name to source; names become folder names.
        tokenizer: Settings of the tokenizer.
        root: Folder for all files.
        validation_fraction: Share of documents held out, in [0, 1).
        seed: Determines which documents are held out.
        num_workers: Processes; None for one per available core, 0 to work in this process.
        progress: Show progress on stderr: a bar on a terminal, otherwise a line every ten seconds.
        check_sizes: Check the sizes of existing files; False if another process on the machine does.

    Raises:
        ValueError: A source, the tokenizer or an option is invalid; the message names cause and fix.
        FileNotFoundError: A path does not exist.
        OSError: The disk is full; finished parts are kept, and the next run resumes from there.
        RuntimeError: A worker died or hangs.
    """
    if not sources:
        raise ValueError("there are no sources to prepare; name at least one")
    for name in sources:
        _check_name(name)
    folder = tokenizer_folder(sources, tokenizer, Path(root), progress)
    prepared = {
        name: prepare_source(name, source, folder, root, validation_fraction, seed, num_workers, progress, check_sizes)
        for name, source in sources.items()
    }
    return PreparedData(folder, prepared)


def prepare_source(
    name: str,
    source: Source,
    tokenizer_folder: str | Path,
    out_root: str | Path,
    validation_fraction: float = 0.002,
    seed: int = 0,
    num_workers: int | None = None,
    progress: bool = True,
    check_sizes: bool = True,
) -> PreparedSource:
    """Tokenize one source of text into ``out_root/NAME-KEY``, unless it exists. See `prepare_all`."""
    settings = PreparationSettings(out_root, validation_fraction, seed, num_workers, progress)
    return prepare_encoded(name, source, TextEncoder(tokenizer_folder), settings, check_sizes)


def prepare_encoded(
    name: str, source: Source, encoder: Encoder, settings: PreparationSettings, check_sizes: bool = True
) -> PreparedSource:
    """Encode one source into ``ROOT/NAME-KEY``, unless it exists. See `prepare_all`."""
    with naming(name):
        work = _preparation(name, source, encoder, settings)
        if settings.store is not None and (found := stored_source(work.folder.name, settings.store)):
            return found
        if not work.is_finished:
            with locked(work.folder):
                if not work.is_finished:
                    work.run()
        if settings.store is not None:
            return _copied(work.folder, settings.store, settings.progress)
        return _opened(work.folder, encoder.reader, check_sizes)


def stored_source(name: str, store: DataStore) -> PreparedSource | None:
    """A finished source in a store, by its folder name; None if there is none."""
    train, validation = store.files(name, "train"), store.files(name, "validation")
    if not train.exists(MANIFEST):
        return None
    return PreparedSource(train, validation if validation.exists(MANIFEST) else None)


def _copied(folder: Path, store: DataStore, progress: bool) -> PreparedSource:
    """The source in the store, once it has been uploaded."""
    with locked(folder):
        upload(folder, store, progress)
    found = stored_source(folder.name, store)
    assert found is not None, "its manifests have just been written"
    return found


def prepare_share(name: str, source: Source, encoder: Encoder, settings: PreparationSettings, share: Share) -> bool:
    """Encode this machine's share of a source's parts; the last machine completes the folder.

    All machines must see the source's files and the folder under the same paths. The result is the same as on one machine.

    Returns:
        Whether the folder is finished.

    Raises:
        FolderInUse: another process works on this share.
        ValueError: another machine's share was prepared with other settings; and as `prepare_all`.
    """
    with naming(name):
        work = _preparation(name, source, encoder, settings)
        if settings.store is not None and stored_source(work.folder.name, settings.store):
            return True
        finished = work.is_finished or work.run_share(share)
        if finished and settings.store is not None:
            _copied(work.folder, settings.store, settings.progress)
        return finished


def _preparation(name: str, source: Source, encoder: Encoder, settings: PreparationSettings) -> Preparation:
    workers = Workers(_checked_workers(settings.num_workers), settings.engine, settings.progress)
    _check_name(name)
    if not 0 <= settings.validation_fraction < 1:
        raise ValueError(
            f"validation_fraction is invalid: {settings.validation_fraction}; choose a number in [0, 1), such as 0.002"
        )
    what = {
        "source": source.identity(),
        "validation_fraction": settings.validation_fraction,
        "seed": settings.seed,
        **encoder.identity(),
    }
    folder = Path(settings.root) / f"{name}-{content_key(what)}"
    return Preparation(name, source.parts, encoder, folder, what, workers)


def _checked_workers(num_workers: int | None) -> int:
    if num_workers is None:
        return usable_cores()
    if num_workers < 0:
        raise ValueError(f"num_workers is invalid: {num_workers}; choose 0 or more")
    return num_workers


def _opened(folder: Path, reader: type[TokenizedSource], check_sizes: bool) -> PreparedSource:
    """The finished folder, after checking file sizes against the manifests."""
    validation = folder / "validation"
    found = PreparedSource(folder / "train", validation if (validation / MANIFEST).is_file() else None)
    if not reader(found.train, check_sizes).is_checked:
        _say_unchecked(folder)
    if found.validation:
        reader(found.validation, check_sizes)
    return found


@cache
def _say_unchecked(folder: Path) -> None:
    """Warn once per source."""
    _log.warning("%s was prepared without digests: damage in it cannot be seen; delete it to prepare it anew", folder)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(f"source name {name!r} cannot be a folder name; use letters, digits, '_', '-' and '.'")
