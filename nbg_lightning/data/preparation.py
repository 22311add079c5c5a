"""Preparation of one source into a folder: its parts, the records of finished ones, and finally the manifests."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from nbg_lightning.chat.fast_encoder import EnginesDiffer, is_installed
from nbg_lightning.data.durable import locked, remove_leftovers, write_json, write_sealed
from nbg_lightning.data.encode_part import SPLITS, PartJob, encode_part, part_stem
from nbg_lightning.data.encoder import Encoder, TokenizerEngine
from nbg_lightning.data.folder_lock import folder_lock
from nbg_lightning.data.progress import Meter, say
from nbg_lightning.data.shards import DIGESTS, MANIFEST, OFFSET_DTYPE, SEALED, content_fingerprint
from nbg_lightning.data.share import Share
from nbg_lightning.data.sources import Part
from nbg_lightning.data.token_width import TokenWidth
from nbg_lightning.data.tokenizer import one_thread
from nbg_lightning.data.worker_pool import WorkerPool
from nbg_lightning.digests import read_sealed
from nbg_lightning.jobs import EngineName, run_jobs
from nbg_lightning.quantities import count_text, size_text

HASH_RANGE = 1 << 64
FAST_BYTES = 16 << 20  # smaller sources are finished before fastokens has been compared with tokenizers
ENGINES_DIFFER = "engines-differ.json"
SETTINGS = "source.json"
SHARE_LOCK = ".part-"  # with the share's number; a lock in the folder once a machine has begun its share
COUNTED = ("documents", "bytes", "tokens")
NEW_BYTES_PER_TEXT_BYTE = 0.7  # two-byte ids of about three characters each: an estimate for the message of a full disk

_log = logging.getLogger(__name__)


@functools.cache
def _say_slow() -> None:
    """Log once how to make it faster."""
    _log.info("fastokens is not installed: with it, most tokenizers prepare text some ten times faster")


@dataclass(frozen=True)
class Workers:
    """Settings of the workers that prepare sources.

    Args:
        processes: number of processes on this machine; 0 to work in this one. On Ray: concurrent tasks.
        engine: ``local``: processes on this machine; ``ray``: a cluster whose machines all see the folders under the
            same paths.
        progress: show progress on stderr.
    """

    processes: int
    engine: EngineName = "local"
    progress: bool = True


class Preparation:
    """Prepares one unfinished folder.

    Args:
        name: name of the source.
        parts: returns the source's parts, which requires reading.
        encoder: encodes documents to ids.
        folder: ``root/NAME-KEY``.
        settings: the settings that KEY is a hash of, with ``validation_fraction`` and ``seed``.
        workers: settings of the workers.
    """

    def __init__(
        self,
        name: str,
        parts: Callable[[], Sequence[Part]],
        encoder: Encoder,
        folder: Path,
        settings: dict[str, Any],
        workers: Workers,
    ) -> None:
        self.name = name
        self._parts = parts
        self.encoder = encoder
        self.folder = folder
        self.settings = settings
        self.workers = workers
        self.threshold = int(settings["validation_fraction"] * HASH_RANGE)
        self.records: dict[int, dict[str, Any]] = {}
        self.engine: TokenizerEngine = "tokenizers"
        self.distrusted = False  # whether parts made by fastokens are encoded again

    @functools.cached_property
    def parts(self) -> Sequence[Part]:
        """The source's parts, in the order of its text."""
        return self._parts()

    @property
    def is_finished(self) -> bool:
        """Whether the folder is finished: the manifest of the training split is written last."""
        return (self.folder / "train" / MANIFEST).is_file()

    def run(self) -> None:
        """Do all remaining work; the caller holds the folder's lock.

        Raises:
            FolderInUse: another machine works on its share.
        """
        everything = range(len(self.parts))
        with ExitStack() as held:
            for lock in sorted(self.folder.glob(f"{SHARE_LOCK}*")):
                held.enter_context(folder_lock(self.folder, "prepares", lock.name))
            with self._told_when_full(everything):
                self._begin()
                self._encode(everything)
                self._join()

    def run_share(self, share: Share) -> bool:
        """Encode the parts of a share, and write the manifests if all others are finished.

        Returns:
            Whether the folder is finished.

        Raises:
            FolderInUse: another process works on this share.
            ValueError: a share of this source was prepared with other settings.
        """
        mine = share.of(range(len(self.parts)))
        with self._told_when_full(mine):
            with ExitStack() as held:
                with locked(self.folder):
                    if self.is_finished:
                        return True
                    self._refuse_other_settings()
                    lock = f"{SHARE_LOCK}{share.number}-of-{share.machines}"
                    held.enter_context(folder_lock(self.folder, f"prepares part {share}", lock))
                    self._begin()
                self._encode(mine)
            with locked(self.folder):
                if self.is_finished:
                    return True
                self._load_records(range(len(self.parts)))
                if left := len(self.parts) - len(self.records):
                    if self.workers.progress:
                        say(
                            f"{self.name}: part {share} is done; {left:,} of {len(self.parts):,} parts are left to others"
                        )
                    return False
                self._join()
        return True

    def _begin(self) -> None:
        for sub_folder in ("parts", *SPLITS):
            (self.folder / sub_folder).mkdir(parents=True, exist_ok=True)
        write_json(self.folder / SETTINGS, self.settings)

    def _encode(self, indices: Sequence[int]) -> None:
        """Encode those of these parts that are not finished."""
        self._remove_leftovers(indices)
        self.engine = self._choose_engine()
        self._load_records(indices, tell=True)
        try:
            self._do([i for i in indices if i not in self.records], self.threshold)
        except EnginesDiffer as error:
            self._fall_back(error)
            self._do([i for i in indices if i not in self.records], self.threshold)

    def _join(self) -> None:
        """Finalize the splits, once the hashes of all parts are known, and write the manifests."""
        threshold = self._final_threshold(self.threshold)
        self._do([i for i, r in self.records.items() if _stale(r, threshold)], threshold)
        self._finish()
        for lock in self.folder.glob(f"{SHARE_LOCK}*"):
            lock.unlink()

    def _refuse_other_settings(self) -> None:
        """Refuse other settings: machines that share a source with different settings would wait for each other's parts."""
        for other in self.folder.parent.glob(f"{self.name}-*"):
            if other == self.folder or not re.fullmatch(r"[0-9a-f]{16}", other.name[len(self.name) + 1 :]):
                continue
            if (other / "train" / MANIFEST).is_file() or not any(other.glob(f"{SHARE_LOCK}*")):
                continue
            theirs = json.loads((other / SETTINGS).read_text()) if (other / SETTINGS).is_file() else {}
            differing = [key for key in self.settings if theirs.get(key) != self.settings[key]]
            raise ValueError(
                f"{', '.join(differing) or 'settings'} is invalid: {other} has parts that were prepared with another value; "
                "give all machines the same files and config, or delete that folder"
            )

    @contextmanager
    def _told_when_full(self, indices: Sequence[int]) -> Iterator[None]:
        """Add the required space to the error of a full disk."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._remove_leftovers(indices)
                self._disk_full(error)
            raise

    def _choose_engine(self) -> TokenizerEngine:
        """fastokens for a large source, unless it is known to give other ids."""
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
        """Encode the source with `tokenizers` from here on, in later runs too; parts made by fastokens are discarded."""
        _log.warning("source %r is encoded by tokenizers, from its beginning: %s", self.name, error)
        write_json(self.folder / ENGINES_DIFFER, {"source": self.name, "why": str(error)})
        self.engine, self.distrusted = "tokenizers", True
        self.records = {index: record for index, record in self.records.items() if self._trusted(record)}

    def _trusted(self, record: dict[str, Any]) -> bool:
        """Whether a part can be reused: ids of this width, by a trusted engine."""
        if record["dtype"] != TokenWidth.of(self.encoder.vocab_size).name:
            return False  # of an earlier version, which stored three-byte ids in four bytes
        return not self.distrusted or record.get("engine", "tokenizers") == "tokenizers"

    def _remove_leftovers(self, indices: Sequence[int]) -> None:
        stems = {part_stem(index) for index in indices}
        for sub_folder in ("parts", *SPLITS):
            remove_leftovers(self.folder / sub_folder, stems)

    def _load_records(self, indices: Sequence[int], tell: bool = False) -> None:
        """Find which of these parts are finished."""
        self.distrusted |= (self.folder / ENGINES_DIFFER).exists()
        self.records = {}
        for index in indices:
            file = self.folder / "parts" / f"{part_stem(index)}.json"
            if file.is_file():
                try:
                    record, _ = read_sealed(file, "it is made again", required=lambda record: False)
                except ValueError as error:
                    _log.warning("%s", error)
                    continue
                if self._trusted(record) and _files_whole(self.folder, record):
                    self.records[index] = record
        if tell and self.records and self.workers.progress:
            say(f"{self.name}: going on; {len(self.records)} of {len(indices)} parts are done")

    def _do(self, indices: list[int], threshold: int) -> None:
        seed = self.settings["seed"]
        jobs = [PartJob(i, self.parts[i], self.folder, threshold, seed, self.engine) for i in indices]
        if not jobs:
            return
        processes = self.workers.processes
        with Meter(self.name, sum(job.part.size for job in jobs), self.workers.progress) as meter:
            if self.workers.engine == "ray":
                encode = functools.partial(_encode_on_ray, self.encoder)
                for position, record in run_jobs(encode, jobs, "ray", processes):
                    if isinstance(record, EnginesDiffer):
                        raise record
                    self.records[jobs[position].index] = record
                    meter.advance(*(sum(record[split][what] for split in SPLITS) for what in COUNTED))
            elif processes == 0 or len(jobs) == 1:
                with one_thread():
                    for job in jobs:
                        self.records[job.index] = encode_part(job, self.encoder, meter.advance)
            else:
                with WorkerPool(min(processes, len(jobs)), self.encoder) as pool:
                    for index, record in pool.run(jobs, meter.advance):
                        self.records[index] = record

    def _final_threshold(self, threshold: int) -> int:
        """The threshold that leaves documents on both sides, once all hashes are known."""
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
                f"validation_fraction {self.settings['validation_fraction']} leaves no training document; lower it or "
                "give more text"
            )
        return max(threshold, lowest + 1)

    def _summary(self) -> dict[str, Any]:
        return self.encoder.summary([self.records[i]["counts"] for i in range(len(self.parts))])

    def _finish(self) -> None:
        records = [self.records[i] for i in range(len(self.parts))]
        summary = self._summary()
        for split in reversed(SPLITS):  # the training manifest is written last, and marks the folder as finished
            parts = [r[split] for r in records if r[split]["documents"]]
            if not parts and split == "validation":
                continue
            dtype = TokenWidth.of(self.encoder.vocab_size).name
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
            if self.workers.progress:
                say(
                    f"{self.name}/{split}: {count_text(manifest['documents'], 'document')}, "
                    f"{size_text(manifest['bytes'])}, {count_text(manifest['tokens'], 'token')}"
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


def _encode_on_ray(encoder: Encoder, job: PartJob) -> dict[str, Any] | EnginesDiffer:
    """Encode a part on another machine; errors that are handled by type are returned as values."""
    with one_thread():
        try:
            return encode_part(job, encoder, lambda *counts: None)
        except EnginesDiffer as error:
            return EnginesDiffer(str(error))


def _stale(record: dict[str, Any], threshold: int) -> bool:
    """Whether the part might come out differently with this threshold."""
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
                f"{stem}.tokens": part["tokens"] * TokenWidth.named(record["dtype"]).size,
                f"{stem}.documents": part["documents"] * OFFSET_DTYPE.itemsize,
            }
            if "weight_values" in part:
                expected[f"{stem}.weights"] = part["tokens"]
            if DIGESTS in part and not os.path.isfile(f"{stem}.{DIGESTS}"):
                return False
            if any(not os.path.isfile(f) or os.path.getsize(f) != size for f, size in expected.items()):
                return False
    return True
