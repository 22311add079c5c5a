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

import errno
import logging
import os
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from nbg_lightning.chat.fast_encoder import EnginesDiffer, is_installed
from nbg_lightning.data.durable import content_key, locked, remove_leftovers, write_json, write_sealed
from nbg_lightning.data.encode_part import SPLITS, PartJob, encode_part, part_stem
from nbg_lightning.data.encoder import Encoder, TextEncoder, TokenizerEngine
from nbg_lightning.data.progress import Meter, say
from nbg_lightning.data.shards import (
    DIGESTS,
    MANIFEST,
    OFFSET_DTYPE,
    SEALED,
    TokenizedSource,
    content_fingerprint,
    token_dtype,
)
from nbg_lightning.data.sources import Source, naming
from nbg_lightning.data.tokenizer import TokenizerConfig, one_thread
from nbg_lightning.data.tokenizer_folder import tokenizer_folder
from nbg_lightning.data.worker_pool import WorkerPool
from nbg_lightning.digests import read_sealed
from nbg_lightning.worker_process import usable_cores

HASH_RANGE = 1 << 64
FAST_BYTES = 16 << 20  # smaller sources are done before fastokens has been compared with tokenizers
ENGINES_DIFFER = "engines-differ.json"
NEW_BYTES_PER_TEXT_BYTE = 0.7  # two-byte ids of about three characters each: a guess for a full disk's message

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedSource:
    """Folders of one prepared source, for `TokenizedSource`.

    Args:
        train: Training documents.
        validation: Held-out documents; None if ``validation_fraction`` is 0 or the source has only one
            distinct document.
    """

    train: Path
    validation: Path | None


@dataclass(frozen=True)
class PreparedData:
    """All sources of a run with the tokenizer they share."""

    tokenizer: Path
    sources: dict[str, PreparedSource]


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
        raise ValueError("there are no sources to prepare: name at least one")
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
    encoder = TextEncoder(tokenizer_folder)
    return prepare_encoded(
        name, source, encoder, out_root, validation_fraction, seed, num_workers, progress, check_sizes
    )


def prepare_encoded(
    name: str,
    source: Source,
    encoder: Encoder,
    out_root: str | Path,
    validation_fraction: float,
    seed: int,
    num_workers: int | None,
    progress: bool,
    check_sizes: bool = True,
) -> PreparedSource:
    """Encodes one source into ``out_root/NAME-KEY``, unless that has been done. See `prepare_all`."""
    _check_name(name)
    if not 0 <= validation_fraction < 1:
        raise ValueError(
            f"validation_fraction is invalid: {validation_fraction}; choose a number in [0, 1), such as 0.002"
        )
    if num_workers is None:
        num_workers = usable_cores()
    if num_workers < 0:
        raise ValueError(f"num_workers is invalid: {num_workers}; choose 0 or more")
    with naming(name):
        what = {
            "source": source.identity(),
            "validation_fraction": validation_fraction,
            "seed": seed,
            **encoder.identity(),
        }
        folder = Path(out_root) / f"{name}-{content_key(what)}"
        finished = folder / "train" / MANIFEST  # written last
        if not finished.is_file():
            with locked(folder):
                if not finished.is_file():
                    _Preparation(name, source, encoder, folder, validation_fraction, seed, num_workers, progress).run(
                        what
                    )
        return _opened(folder, encoder.reader, check_sizes)


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


@cache
def _say_slow() -> None:
    """Tell once what would make it faster."""
    _log.info("fastokens is not installed: with it, most tokenizers prepare text some ten times faster")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(f"source name {name!r} cannot be a folder name: use letters, digits, '_', '-' and '.'")


class _Preparation:
    """One unfinished folder on its way to a finished one; the caller holds the lock."""

    def __init__(
        self,
        name: str,
        source: Source,
        encoder: Encoder,
        folder: Path,
        validation_fraction: float,
        seed: int,
        num_workers: int,
        progress: bool,
    ) -> None:
        self.name = name
        self.encoder = encoder
        self.folder = folder
        self.validation_fraction = validation_fraction
        self.seed = seed
        self.num_workers = num_workers
        self.progress = progress
        self.parts = source.parts()
        self.records: dict[int, dict[str, Any]] = {}
        self.engine: TokenizerEngine = "tokenizers"
        self.distrusted = False  # whether parts that fastokens made are made again

    def run(self, what: dict[str, Any]) -> None:
        try:
            for sub_folder in ("parts", *SPLITS):
                (self.folder / sub_folder).mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            write_json(self.folder / "source.json", what)
            self.engine = self._choose_engine()
            self._load_records()
            try:
                self._encode_all()
            except EnginesDiffer as error:
                self._fall_back(error)
                self._encode_all()
            self._finish()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._remove_leftovers()
                self._disk_full(error)
            raise

    def _encode_all(self) -> None:
        threshold = int(self.validation_fraction * HASH_RANGE)
        self._do([i for i in range(len(self.parts)) if i not in self.records], threshold)
        threshold = self._final_threshold(threshold)
        self._do([i for i, r in self.records.items() if _stale(r, threshold)], threshold)

    def _choose_engine(self) -> TokenizerEngine:
        """fastokens for a large source, where nothing has shown that it gives other ids."""
        if (self.folder / ENGINES_DIFFER).exists():
            self.distrusted = True
            return "tokenizers"
        if sum(part.size for part in self.parts) < FAST_BYTES:
            return "tokenizers"
        if not is_installed():
            _say_slow()
            return "tokenizers"
        try:
            with one_thread():
                self.encoder.probe()
        except EnginesDiffer as error:
            _log.warning("source %r is encoded by tokenizers, which is slower: %s", self.name, error)
            self.distrusted = True
            return "tokenizers"
        return "fastokens"

    def _fall_back(self, error: EnginesDiffer) -> None:
        """From here on the source is encoded by `tokenizers`, in another run as well; what fastokens made is forgotten."""
        _log.warning("source %r is encoded by tokenizers, from its beginning: %s", self.name, error)
        write_json(self.folder / ENGINES_DIFFER, {"source": self.name, "why": str(error)})
        self.engine, self.distrusted = "tokenizers", True
        self.records = {index: record for index, record in self.records.items() if self._trusted(record)}

    def _trusted(self, record: dict[str, Any]) -> bool:
        return not self.distrusted or record.get("engine", "tokenizers") == "tokenizers"

    def _remove_leftovers(self) -> None:
        for sub_folder in ("parts", *SPLITS):
            remove_leftovers(self.folder / sub_folder)

    def _load_records(self) -> None:
        for index in range(len(self.parts)):
            file = self.folder / "parts" / f"{part_stem(index)}.json"
            if file.is_file():
                try:
                    record, _ = read_sealed(file, "it is made again", required=lambda record: False)
                except ValueError as error:
                    _log.warning("%s", error)
                    continue
                if self._trusted(record) and _files_whole(self.folder, record):
                    self.records[index] = record
        if self.records and self.progress:
            say(f"{self.name}: going on; {len(self.records)} of {len(self.parts)} parts are done")

    def _do(self, indices: list[int], threshold: int) -> None:
        jobs = [PartJob(i, self.parts[i], self.folder, threshold, self.seed, self.engine) for i in indices]
        if not jobs:
            return
        with Meter(self.name, sum(job.part.size for job in jobs), self.progress) as meter:
            if self.num_workers == 0 or len(jobs) == 1:
                with one_thread():
                    for job in jobs:
                        self.records[job.index] = encode_part(job, self.encoder, meter.advance)
            else:
                with WorkerPool(min(self.num_workers, len(jobs)), self.encoder) as pool:
                    for index, record in pool.run(jobs, meter.advance):
                        self.records[index] = record

    def _final_threshold(self, threshold: int) -> int:
        """The threshold that leaves text on both sides, now that all hashes are known."""
        filled = [r for r in self.records.values() if r["lowest"] is not None]
        if not filled:
            raise ValueError(self.encoder.remark(self._summary(), empty=True))
        lowest, highest = min(r["lowest"] for r in filled), max(r["highest"] for r in filled)
        if threshold == 0:
            return 0
        if lowest == highest:
            _log.warning(
                "source %r has one distinct document: it is training text, and there is no validation text",
                self.name,
            )
            return 0
        if highest < threshold:
            raise ValueError(
                f"validation_fraction {self.validation_fraction} leaves no training document: lower it or "
                "give more text"
            )
        return max(threshold, lowest + 1)

    def _summary(self) -> dict[str, Any]:
        return self.encoder.summary([self.records[i]["counts"] for i in range(len(self.parts))])

    def _finish(self) -> None:
        records = [self.records[i] for i in range(len(self.parts))]
        summary = self._summary()
        for split in reversed(SPLITS):  # the training manifest, written last, makes the folder a finished one
            parts = [r[split] for r in records if r[split]["documents"]]
            if not parts and split == "validation":
                continue
            dtype = token_dtype(self.encoder.vocab_size).str
            manifest = {
                "format": self.encoder.reader.format,
                SEALED: True,
                "name": self.name,
                "split": split,
                "dtype": dtype,
                "vocab_size": self.encoder.vocab_size,
                "tokenizer": self.encoder.tokenizer_fingerprint,
                **{count: sum(p[count] for p in parts) for count in ("tokens", "documents", "bytes")},
                "longest_document": max((p["longest_document"] for p in parts), default=0),
                **summary,
                "fingerprint": content_fingerprint(dtype, parts),
                "parts": parts,
            }
            write_sealed(self.folder / split / MANIFEST, manifest)
            if self.progress:
                say(
                    f"{self.name}/{split}: {manifest['documents']:,} documents, "
                    f"{manifest['bytes'] / 1e6:,.1f} MB, {manifest['tokens']:,} tokens"
                    + self.encoder.remark(summary, empty=False)
                )

    def _disk_full(self, error: OSError) -> NoReturn:
        done_text = sum(self.parts[i].size for i in self.records)
        left_text = sum(part.size for part in self.parts) - done_text
        written = sum(f.stat().st_size for split in SPLITS for f in (self.folder / split).glob("part-*"))
        ratio = written / done_text if done_text and written else NEW_BYTES_PER_TEXT_BYTE
        needed = left_text * ratio / 1e6
        free = shutil.disk_usage(self.folder).free / 1e6
        raise OSError(
            error.errno,
            f"no space left for source {self.name!r} in {self.folder}: it needs about {needed:,.1f} MB more, "
            f"and {free:,.1f} MB are free; free some, or choose another folder, and run again "
            f"({len(self.records)} of {len(self.parts)} parts are done and kept)",
        ) from error


def _stale(record: dict[str, Any], threshold: int) -> bool:
    """Tell whether the part might come out differently with this threshold."""
    if record["lowest"] is None:
        return False
    low, high = sorted((record["threshold"], threshold))
    return record["lowest"] < high and record["highest"] >= low and low != high


def _files_whole(folder: Path, record: dict[str, Any]) -> bool:
    for split in SPLITS:
        part = record[split]
        if part["documents"]:
            stem = folder / split / part["file"]
            expected = {
                f"{stem}.tokens": part["tokens"] * np.dtype(record["dtype"]).itemsize,
                f"{stem}.documents": part["documents"] * OFFSET_DTYPE.itemsize,
            }
            if "weight_values" in part:
                expected[f"{stem}.weights"] = part["tokens"]
            if DIGESTS in part and not os.path.isfile(f"{stem}.{DIGESTS}"):
                return False
            if any(not os.path.isfile(f) or os.path.getsize(f) != size for f, size in expected.items()):
                return False
    return True
