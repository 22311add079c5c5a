"""Sources to prepared folders: tokenized once, in parallel, and safe to kill at any moment.

``root/NAME-KEY/`` belongs to one source, tokenizer and set of options (KEY is their hash)::

    source.json        what KEY stands for, for people
    engines-differ.json   why fastokens may not encode it, if that was found
    parts/             one small record per finished part: the memory of an interrupted preparation
    train/             token files and, written last of all, manifest.json (see shards.py)
    validation/        the same, if there is validation text

Every file is written under another name, flushed to disk and renamed, and a part counts when its record
exists. The result does not depend on the number of workers, on interruptions, or on which engine encoded: large sources
are encoded by fastokens where it gives the ids of `tokenizers`, and once it does not, all of the source is made again.

A document is validation text if a hash of its text, keyed by the seed, is below ``validation_fraction``:
copies of a document are always on the same side. If no document of a (small) source falls there, the
documents with the lowest hash do, so that every source with two different documents has validation text.
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
    """All sources of a run with the tokenizer they share."""

    tokenizer: Path
    sources: dict[str, PreparedSource]


@dataclass(frozen=True)
class PreparationSettings:
    """How sources are prepared, the same for all of a run. See `prepare_all`.

    Args:
        root: folder for everything that is written.
        validation_fraction: share of documents held out, in [0, 1).
        seed: decides which documents are held out.
        num_workers: processes; None for one per available core, 0 to work in this process.
        progress: show it on stderr.
        engine: ``local``, or ``ray`` for a cluster whose machines see the folders under the same paths.
        store: where sources are kept behind a URL; what is not there yet is prepared below ``root`` and copied.
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
    """Trains the tokenizer if asked to, then prepares every source; what is there already is used again.

    Args:
        sources: Name to source; names become folder names.
        tokenizer: Which tokenizer.
        root: Folder for everything that is written.
        validation_fraction: Share of documents held out, in [0, 1).
        seed: Decides which documents are held out.
        num_workers: Processes; None for one per available core, 0 to work in this process.
        progress: Show progress on stderr: a bar on a terminal, else a line every ten seconds.
        check_sizes: Compare the sizes of files that are there already; False where another process on the machine does.

    Raises:
        ValueError: A source, the tokenizer or an option is invalid; the message names cause and fix.
        FileNotFoundError: A path does not exist.
        OSError: The disk is full; finished parts are kept, and another run goes on from there.
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
    """Tokenizes one source of text into ``out_root/NAME-KEY``, unless that has been done. See `prepare_all`."""
    settings = PreparationSettings(out_root, validation_fraction, seed, num_workers, progress)
    return prepare_encoded(name, source, TextEncoder(tokenizer_folder), settings, check_sizes)


def prepare_encoded(
    name: str, source: Source, encoder: Encoder, settings: PreparationSettings, check_sizes: bool = True
) -> PreparedSource:
    """Encodes one source into ``ROOT/NAME-KEY``, unless that has been done. See `prepare_all`."""
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
    """A finished source in a store, by the name of its folder; None where there is none."""
    train, validation = store.files(name, "train"), store.files(name, "validation")
    if not train.exists(MANIFEST):
        return None
    return PreparedSource(train, validation if validation.exists(MANIFEST) else None)


def _copied(folder: Path, store: DataStore, progress: bool) -> PreparedSource:
    """The source in the store, once it is there."""
    with locked(folder):
        upload(folder, store, progress)
    found = stored_source(folder.name, store)
    assert found is not None, "its manifests have just been written"
    return found


def prepare_share(name: str, source: Source, encoder: Encoder, settings: PreparationSettings, share: Share) -> bool:
    """Encodes this machine's share of a source's parts; the last machine makes the folder a finished one.

    All machines must see the source's files and the folder under the same paths. Files and order are those of one machine.

    Returns:
        Whether the folder is finished.

    Raises:
        FolderInUse: another process does this share.
        ValueError: another machine's share was done with other settings; and as `prepare_all`.
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
    """The finished folder, after comparing file sizes with the manifests."""
    validation = folder / "validation"
    found = PreparedSource(folder / "train", validation if (validation / MANIFEST).is_file() else None)
    if not reader(found.train, check_sizes).is_checked:
        _say_unchecked(folder)
    if found.validation:
        reader(found.validation, check_sizes)
    return found


@cache
def _say_unchecked(folder: Path) -> None:
    """Warn once for each source."""
    _log.warning("%s was prepared without digests: damage in it cannot be seen; delete it to prepare it anew", folder)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(f"source name {name!r} cannot be a folder name; use letters, digits, '_', '-' and '.'")
