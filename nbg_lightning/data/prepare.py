"""Sources to prepared folders: tokenized once, in parallel, and safe to kill at any moment.

``root/NAME-KEY/`` belongs to one source, tokenizer and set of options (KEY is their hash)::

    source.json        what KEY stands for, for people
    parts/             one small record per finished part: the memory of an interrupted preparation
    train/             token files and, written last of all, manifest.json (see shards.py)
    validation/        the same, if there is validation text

Every file is written under another name, flushed to disk and renamed, and a part counts when its record
exists. The result does not depend on the number of workers or on interruptions.

A document is validation text if a hash of its text, keyed by the seed, is below ``validation_fraction``:
copies of a document are always on the same side. If no document of a (small) source falls there, the
documents with the lowest hash do, so that every source with two different documents has validation text.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from nbg_lightning.data.encoder import Document, Encoder, TextEncoder
from nbg_lightning.data.shards import (
    MANIFEST,
    OFFSET_DTYPE,
    TokenizedSource,
    content_fingerprint,
    joined_digest,
    token_dtype,
)
from nbg_lightning.data.sources import Part, Source
from nbg_lightning.data.tokenizer import Tokenizer, TokenizerConfig, one_thread, train_bpe
from nbg_lightning.data.worker_process import begin_worker, hidden_main_module

SPLITS = ("train", "validation")
HASH_RANGE = 1 << 64
MAX_WEIGHT_VALUES = 256  # a weight is one byte on disk: the number of its value
REPORT_SECONDS = 0.5  # from a worker
LOG_SECONDS = 10.0  # between plain progress lines
LOCK_SECONDS = 24 * 3600.0  # how long to wait for another process that prepares the same folder
SAY_SECONDS = (
    0.5  # ranks that look at what is prepared wait for each other, but not as long, and that is not worth a line
)
STALL_SECONDS = 3600.0  # no worker has said anything for so long: a file system hangs
NEW_BYTES_PER_TEXT_BYTE = 0.7  # two-byte ids of about three characters each: a guess for a full disk's message

_log = logging.getLogger(__name__)
Report = Callable[[int, int, int], None]  # documents, text bytes and tokens since the last report


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

    Raises:
        ValueError: A source, the tokenizer or an option is bad; the message names cause and mend.
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
        name: prepare_source(name, source, folder, root, validation_fraction, seed, num_workers, progress)
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
) -> PreparedSource:
    """Tokenizes one source of text into ``out_root/NAME-KEY``, unless that has been done. See `prepare_all`."""
    encoder = TextEncoder(tokenizer_folder)
    return prepare_encoded(name, source, encoder, out_root, validation_fraction, seed, num_workers, progress)


def prepare_encoded(
    name: str,
    source: Source,
    encoder: Encoder,
    out_root: str | Path,
    validation_fraction: float,
    seed: int,
    num_workers: int | None,
    progress: bool,
) -> PreparedSource:
    """Encodes one source into ``out_root/NAME-KEY``, unless that has been done. See `prepare_all`."""
    _check_name(name)
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"validation_fraction is {validation_fraction}: choose a number in [0, 1), such as 0.002")
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if num_workers < 0:
        raise ValueError(f"num_workers is {num_workers}: choose 0 or more")
    with _naming(name):
        what = {
            "source": source.identity(),
            "validation_fraction": validation_fraction,
            "seed": seed,
            **encoder.identity(),
        }
        folder = Path(out_root) / f"{name}-{_key(what)}"
        with locked(folder):
            if not (folder / "train" / MANIFEST).is_file():
                _Preparation(name, source, encoder, folder, validation_fraction, seed, num_workers, progress).run(what)
            return _opened(folder, encoder.reader)


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """Puts the source's name into errors about it: a run has many sources."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"source {source!r}: {error}") from error
    except ValueError as error:
        raise ValueError(f"source {source!r}: {error}") from error


def _opened(folder: Path, reader: type[TokenizedSource]) -> PreparedSource:
    """The finished folder, after comparing file sizes with the manifests."""
    validation = folder / "validation"
    found = PreparedSource(folder / "train", validation if (validation / MANIFEST).is_file() else None)
    reader(found.train)
    if found.validation:
        reader(found.validation)
    return found


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(f"source name {name!r} cannot be a folder name: use letters, digits, '_', '-' and '.'")


def _key(what: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=8).hexdigest()


# ---- tokenizer


def tokenizer_folder(sources: dict[str, Source], config: TokenizerConfig, root: Path, progress: bool) -> Path:
    """A local folder with the tokenizer: the user's own, or one under `root`, trained or downloaded once."""
    if config.name_or_path is not None:
        tokenizer = Tokenizer(config.name_or_path)
        if tokenizer.folder:
            return tokenizer.folder
        folder = root / f"tokenizer-{tokenizer.fingerprint[:16]}"
        with locked(folder):
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(dir=root, prefix=".tokenizer-") as temporary:
                    os.replace(tokenizer.save_pretrained(Path(temporary, "tokenizer")), folder)
        return folder
    assert config.train_vocab_size is not None
    assert isinstance(config.train_bytes, int)
    identities = []
    for name, source in sources.items():
        with _naming(name):
            identities.append(source.identity())
    what = {
        "recipe": "byte-level BPE 1",
        "sources": identities,
        "vocab_size": config.train_vocab_size,
        "bytes": config.train_bytes,
    }
    folder = root / f"tokenizer-{_key(what)}"
    with locked(folder):
        if not folder.is_dir():
            texts = sample_texts(sources, config.train_bytes)
            size = sum(len(t.encode()) for t in texts)
            if progress:
                _print(f"training a tokenizer of {config.train_vocab_size:,} ids on {size / 1e6:,.1f} MB")
            train_bpe(texts, config.train_vocab_size, folder)
    return folder


def sample_texts(sources: dict[str, Source], num_bytes: int) -> list[str]:
    """About `num_bytes` of text from all over the sources, even shares; small ones leave room to others."""
    sizes = {}
    for name, source in sources.items():
        with _naming(name):
            sizes[name] = sum(part.size for part in source.parts())
    shares: dict[str, int] = {}
    for name in sorted(sizes, key=sizes.__getitem__):
        even = (num_bytes - sum(shares.values())) // (len(sizes) - len(shares))
        shares[name] = min(sizes[name], even)
    texts = []
    for name, source in sources.items():
        with _naming(name):
            texts += _sample(source, shares[name])
    return texts


def _sample(source: Source, num_bytes: int) -> list[str]:
    """The beginning of every part, `num_bytes` in all."""
    parts = source.parts()
    texts: list[str] = []
    taken = 0
    for index, part in enumerate(parts):
        left = (num_bytes - taken) // (len(parts) - index)
        if left == 0:
            continue
        for text in part.documents():
            data = text.encode("utf-8")
            if len(data) >= left:
                text, data = data[:left].decode("utf-8", "ignore"), data[:left]
            texts.append(text)
            taken += len(data)
            left -= len(data)
            if left == 0:
                break
    return texts


# ---- one source


@dataclass(frozen=True)
class _Job:
    """One part to be done."""

    index: int
    part: Part
    folder: Path
    threshold: int
    seed: int


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

    def run(self, what: dict[str, Any]) -> None:
        try:
            for sub_folder in ("parts", *SPLITS):
                (self.folder / sub_folder).mkdir(parents=True, exist_ok=True)
            self._remove_temporary_files()  # of a killed run
            _write_json(self.folder / "source.json", what)
            self._load_records()
            threshold = int(self.validation_fraction * HASH_RANGE)
            self._do([i for i in range(len(self.parts)) if i not in self.records], threshold)
            threshold = self._final_threshold(threshold)
            self._do([i for i, r in self.records.items() if _stale(r, threshold)], threshold)
            self._finish()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self._remove_temporary_files()
                self._disk_full(error)
            raise

    def _remove_temporary_files(self) -> None:
        for temporary in self.folder.glob("*/.*.tmp"):
            temporary.unlink(missing_ok=True)

    def _load_records(self) -> None:
        for index in range(len(self.parts)):
            file = self.folder / "parts" / f"{_stem(index)}.json"
            if file.is_file():
                record = json.loads(file.read_text("utf-8"))
                if _files_whole(self.folder, record):
                    self.records[index] = record
        if self.records and self.progress:
            _print(f"{self.name}: going on; {len(self.records)} of {len(self.parts)} parts are done")

    def _do(self, indices: list[int], threshold: int) -> None:
        jobs = [_Job(i, self.parts[i], self.folder, threshold, self.seed) for i in indices]
        if not jobs:
            return
        with _Meter(self.name, sum(job.part.size for job in jobs), self.progress) as meter:
            if self.num_workers == 0 or len(jobs) == 1:
                with one_thread():
                    for job in jobs:
                        self.records[job.index] = encode_part(job, self.encoder, meter.advance)
            else:
                with _Pool(min(self.num_workers, len(jobs)), self.encoder) as pool:
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
            _write_json(self.folder / split / MANIFEST, manifest)
            if self.progress:
                _print(
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


def _stem(index: int) -> str:
    return f"part-{index:06d}"


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
                f"{stem}.tokens": part["tokens"] * np.dtype(record["dtype"]).itemsize,
                f"{stem}.documents": part["documents"] * OFFSET_DTYPE.itemsize,
            }
            if "weight_values" in part:
                expected[f"{stem}.weights"] = part["tokens"]
            if any(not os.path.isfile(f) or os.path.getsize(f) != size for f, size in expected.items()):
                return False
    return True


# ---- one part


class _SplitWriter:
    """Writes one part's documents of one split under a temporary name; `commit` makes them visible."""

    def __init__(self, folder: Path, stem: str, dtype: np.dtype) -> None:
        self.folder, self.stem, self.dtype = folder, stem, dtype
        self.files: dict[str, Any] = {}
        self.hashes: dict[str, Any] = {}
        self.weight_codes: dict[float, int] = {}
        self.tokens = self.documents = self.bytes = self.longest = 0

    def _path(self, kind: str, temporary: bool) -> Path:
        return self.folder / (f".{self.stem}.{kind}.{os.getpid()}.tmp" if temporary else f"{self.stem}.{kind}")

    def write(self, documents: list[Document]) -> None:
        weighted = documents[0].weights is not None
        if not self.files:  # opened late: most parts of a small split have no documents
            for kind in ("tokens", "documents", *(["weights"] if weighted else [])):
                self.files[kind] = open(self._path(kind, True), "wb")  # noqa: SIM115
                self.hashes[kind] = hashlib.blake2b(digest_size=16)
        lengths = np.array([len(document.ids) for document in documents], np.int64)
        offsets = self.tokens + np.cumsum(lengths) - lengths
        flat = np.concatenate([np.array(document.ids, self.dtype) for document in documents])
        self._put("tokens", flat.tobytes())
        self._put("documents", offsets.astype(OFFSET_DTYPE).tobytes())
        if weighted:
            self._put("weights", b"".join(self._coded(document.weights or []) for document in documents))
        self.tokens += int(lengths.sum())
        self.documents += len(documents)
        self.bytes += sum(document.num_bytes for document in documents)
        self.longest = max(self.longest, int(lengths.max()))

    def _put(self, kind: str, data: bytes) -> None:
        self.files[kind].write(data)
        self.hashes[kind].update(data)

    def _coded(self, weights: list[float]) -> bytes:
        """Weights as one byte each: their numbers in the order of first appearance."""
        codes = self.weight_codes
        for value in dict.fromkeys(weights):
            codes.setdefault(value, len(codes))
        if len(codes) > MAX_WEIGHT_VALUES:
            raise ValueError(
                f"more than {MAX_WEIGHT_VALUES} different loss weights in one part of the data: round them, "
                "for example to two digits"
            )
        return bytes(map(codes.__getitem__, weights))

    def commit(self) -> dict[str, Any]:
        for kind in ("tokens", "documents", "weights"):
            final = self._path(kind, False)
            if kind in self.files:
                _close_synced(self.files[kind])
                os.replace(self._path(kind, True), final)
            else:
                final.unlink(missing_ok=True)  # of the same part with another threshold
        _sync_folder(self.folder)
        values = list(self.weight_codes)
        digests = [h.digest() for h in self.hashes.values()] or [hashlib.blake2b(digest_size=16).digest()] * 2
        return {
            "file": self.stem,
            "tokens": self.tokens,
            "documents": self.documents,
            "bytes": self.bytes,
            "longest_document": self.longest,
            "digest": joined_digest(digests, values or None),
            **({"weight_values": values} if values else {}),
        }

    def discard(self) -> None:
        for kind, file in self.files.items():
            try:
                file.close()
            except OSError:  # the disk is full, so that even the buffer cannot be written
                file.raw.close()
            self._path(kind, True).unlink(missing_ok=True)


def encode_part(job: _Job, encoder: Encoder, report: Report) -> dict[str, Any]:
    """Encodes one part into its files and its record, which is returned."""
    dtype = token_dtype(encoder.vocab_size)
    writers = [_SplitWriter(job.folder / split, _stem(job.index), dtype) for split in SPLITS]
    record_file = job.folder / "parts" / f"{_stem(job.index)}.json"
    record_file.unlink(missing_ok=True)  # a part that is done again is not done until it is
    key = job.seed.to_bytes(16, "little", signed=True)
    lowest: int | None = None
    highest: int | None = None
    counts: dict[str, Any] = {}
    last_report, waiting = time.monotonic(), [0, 0, 0]
    try:
        for documents in encoder.encode(job.part, counts):
            batch: tuple[list[Document], list[Document]] = ([], [])
            for document in documents:
                digest = hashlib.blake2b(document.content, digest_size=8, key=key).digest()
                hashed = int.from_bytes(digest, "little")
                lowest = hashed if lowest is None else min(lowest, hashed)
                highest = hashed if highest is None else max(highest, hashed)
                batch[int(hashed < job.threshold)].append(document)
            for split, writer in enumerate(writers):
                if batch[split]:
                    writer.write(batch[split])
            waiting[0] += len(documents)
            waiting[1] += sum(document.num_bytes for document in documents)
            waiting[2] += sum(len(document.ids) for document in documents)
            if time.monotonic() - last_report > REPORT_SECONDS:
                report(*waiting)
                last_report, waiting = time.monotonic(), [0, 0, 0]
        record = {
            "dtype": dtype.str,
            "threshold": job.threshold,
            "lowest": lowest,
            "highest": highest,
            "counts": counts,
            **{split: writer.commit() for split, writer in zip(SPLITS, writers, strict=True)},
        }
        _write_json(record_file, record)
    finally:
        for writer in writers:
            writer.discard()
    report(*waiting)
    return record


# ---- workers


class _Pool:
    """Worker processes that encode parts.

    Not `concurrent.futures`: its workers outlive a killed parent, and run the user's script again to find its
    main module, which loads torch and fails where the script has no ``if __name__ == "__main__"``.
    """

    def __init__(self, num_workers: int, encoder: Encoder) -> None:
        context = multiprocessing.get_context("spawn")
        self.workers: dict[Connection, Any] = {}
        with hidden_main_module():
            for _ in range(num_workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, encoder), daemon=True)
                process.start()
                theirs.close()
                self.workers[ours] = process

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for connection, process in self.workers.items():
            connection.close()
            process.terminate()
        for process in self.workers.values():
            process.join(10)
            if process.is_alive():
                process.kill()

    def run(self, jobs: list[_Job], report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields (part index, record) as parts get done."""
        outside = {type(job.part).__qualname__ for job in jobs if type(job.part).__module__ == "__main__"}
        if outside:
            raise ValueError(
                f"workers cannot import {', '.join(sorted(outside))} from the running script or notebook: "
                "move it to a module, or set num_workers to 0"
            )
        todo = list(reversed(jobs))
        running: dict[Connection, _Job] = {}
        for connection in self.workers:
            self._send(connection, todo.pop(), running)
        while running:
            ready: list[Any] = wait(list(running), timeout=STALL_SECONDS)
            if not ready:
                parts = ", ".join(str(job.index) for job in running.values())
                raise RuntimeError(
                    f"no worker has answered for {STALL_SECONDS:,.0f} s (parts {parts}): see whether the "
                    "file system hangs, and run again; finished parts are kept"
                )
            for connection in ready:
                try:
                    kind, value = connection.recv()
                except (EOFError, ConnectionResetError):
                    self._dead(connection, running)
                if kind == "progress":
                    report(*value)
                elif kind == "error":
                    raise value
                else:
                    yield running.pop(connection).index, value
                    if todo:
                        self._send(connection, todo.pop(), running)

    def _send(self, connection: Connection, job: _Job, running: dict[Connection, _Job]) -> None:
        running[connection] = job
        try:
            connection.send(job)
        except (BrokenPipeError, ConnectionResetError):
            self._dead(connection, running)

    def _dead(self, connection: Connection, running: dict[Connection, _Job]) -> NoReturn:
        process = self.workers[connection]
        process.join(10)
        raise RuntimeError(
            f"the worker for part {running[connection].index} died (exit code {process.exitcode}; -9 is "
            "often a lack of memory): lower num_workers and run again; finished parts are kept"
        ) from None


def _work(connection: Connection, encoder: Encoder) -> None:
    """Life of a worker process."""
    begin_worker()
    try:
        while True:
            job = connection.recv()
            record = encode_part(job, encoder, lambda *counts: connection.send(("progress", counts)))
            connection.send(("done", record))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has closed the pipe
    except Exception as error:
        connection.send(("error", _plain_error(error)))


def _plain_error(error: Exception) -> Exception:
    """The error as one of a few kinds that surely pass through a pipe."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(str(error))
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, f"{error.strerror}: {error.filename}" if error.filename else error.strerror)
    if isinstance(error, ValueError):
        return ValueError(str(error))
    return RuntimeError(f"a worker failed: {type(error).__name__}: {error}")


# ---- files, locks, progress


def _write_json(file: Path, value: Any) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump(value, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(file.parent)


def _close_synced(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    stream.close()


def _sync_folder(folder: Path) -> None:
    """Makes renames in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time works on a folder; the kernel frees the lock of a killed one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f".{folder.name}.lock"
    begin = time.monotonic()
    said = False
    with open(file, "a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waited = time.monotonic() - begin
                if waited > LOCK_SECONDS:
                    raise RuntimeError(
                        f"another process has held {file} for {LOCK_SECONDS:,.0f} s: end it, or choose another folder"
                    ) from None
                if waited > SAY_SECONDS and not said:
                    _log.warning("waiting for another process that prepares %s", folder)
                    said = True
                time.sleep(0.2)
        yield


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Meter:
    """Progress of one source: a bar on a terminal, else a plain line every few seconds."""

    def __init__(self, name: str, size: int, enabled: bool) -> None:
        self.name, self.size, self.enabled = name, size, enabled
        self.documents = self.bytes = self.tokens = 0
        self.start = self.last_line = time.monotonic()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> _Meter:
        if self.enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[rates]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task(self.name, total=max(1, self.size), rates="")
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, documents: int, num_bytes: int, tokens: int) -> None:
        self.documents += documents
        self.bytes += num_bytes
        self.tokens += tokens
        if self.bar is not None:
            self.bar.update(self.task, completed=min(self.bytes, self.size), rates=self._rates())
        elif self.enabled and time.monotonic() - self.last_line > LOG_SECONDS:
            self.last_line = time.monotonic()
            _print(f"{self.name}: {self._rates()}")

    def _rates(self) -> str:
        seconds = max(1e-3, time.monotonic() - self.start)
        return (
            f"{self.documents:,} documents, {self.bytes / 1e6:,.1f} of about {self.size / 1e6:,.1f} MB, "
            f"{self.bytes / 1e6 / seconds:,.1f} MB/s, {self.tokens / seconds:,.0f} tokens/s"
        )
