"""Encoding of one part of a source into files: token ids, document offsets and loss weights of each split, and a record."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.data.checked_array import BLOCK_BYTES
from nbg_lightning.data.durable import AtomicFile, sync_folder, write_atomic, write_sealed
from nbg_lightning.data.encoder import EncodedDocuments, Encoder, TokenizerEngine
from nbg_lightning.data.shards import DIGESTS, OFFSET_DTYPE, joined_digest
from nbg_lightning.data.sources import Part
from nbg_lightning.data.token_width import TokenWidth
from nbg_lightning.digests import HashingStream, digest, seal

SPLITS = ("train", "validation")
MAX_WEIGHT_VALUES = 256  # a weight is one byte on disk: the index of its value
OBJECTS_BETWEEN_COLLECTIONS = 100_000  # some ten batches of conversations
REPORT_SECONDS = 0.5  # interval of a worker's reports

Report = Callable[[int, int, int], None]
"""Documents, text bytes and tokens since the last report."""


@dataclass(frozen=True)
class PartJob:
    """One part to encode."""

    index: int
    part: Part
    folder: Path
    threshold: int
    seed: int
    engine: TokenizerEngine = "tokenizers"


def part_stem(index: int) -> str:
    return f"part-{index:06d}"


class _SplitWriter:
    """Writes one part's documents of one split under temporary names; `commit` renames them into place."""

    def __init__(self, folder: Path, stem: str, width: TokenWidth) -> None:
        self.folder, self.stem, self.width = folder, stem, width
        self.files: dict[str, AtomicFile] = {}
        self.hashes: dict[str, Any] = {}
        self.weight_codes: dict[float, int] = {}
        self.tokens = self.documents = self.bytes = self.longest = 0

    def _path(self, kind: str) -> Path:
        return self.folder / f"{self.stem}.{kind}"

    def write(self, documents: EncodedDocuments) -> None:
        weighted = documents.weights is not None
        if not self.files:  # opened lazily: most parts of a small split have no documents
            for kind in ("tokens", "documents", *(["weights"] if weighted else [])):
                self.files[kind] = AtomicFile(self._path(kind), _hashing)
                self.hashes[kind] = hashlib.blake2b(digest_size=16)
        lengths = documents.lengths
        offsets = self.tokens + np.cumsum(lengths) - lengths
        self._put("tokens", self.width.encode(documents.ids))
        self._put("documents", offsets.astype(OFFSET_DTYPE).tobytes())
        if documents.weights is not None:
            self._put("weights", self._coded(documents.weights).tobytes())
        self.tokens += int(lengths.sum())
        self.documents += len(lengths)
        self.bytes += sum(documents.num_bytes)
        self.longest = max(self.longest, int(lengths.max()))

    def _put(self, kind: str, data: bytes) -> None:
        self.files[kind].stream.write(data)
        self.hashes[kind].update(data)

    def _coded(self, weights: np.ndarray) -> np.ndarray:
        """Weights as one byte each: their indices in the order of first appearance."""
        codes = self.weight_codes
        values, first, numbers = np.unique(weights, return_index=True, return_inverse=True)
        for value in values[np.argsort(first)].tolist():
            codes.setdefault(value, len(codes))
        if len(codes) > MAX_WEIGHT_VALUES:
            raise ValueError(
                f"more than {MAX_WEIGHT_VALUES} different loss weights in one part of the data; round them, "
                "for example to two digits"
            )
        return np.array([codes[value] for value in values.tolist()], np.uint8)[numbers]

    def commit(self) -> dict[str, Any]:
        for kind in ("tokens", "documents", "weights", DIGESTS):
            if kind not in self.files:
                self._path(kind).unlink(missing_ok=True)  # of the same part with another threshold
        blocks = {}
        for kind, file in self.files.items():
            file.commit()
            blocks[kind] = file.stream.digest.to_json()
        text = seal(blocks, indent=None)
        if blocks:
            write_atomic(self._path(DIGESTS), text)
        sync_folder(self.folder)
        values = list(self.weight_codes)
        digests = [h.digest() for h in self.hashes.values()] or [hashlib.blake2b(digest_size=16).digest()] * 2
        return {
            "file": self.stem,
            "tokens": self.tokens,
            "documents": self.documents,
            "bytes": self.bytes,
            "longest_document": self.longest,
            "digest": joined_digest(digests, values or None),
            DIGESTS: digest(text.encode()),
            **({"weight_values": values} if values else {}),
        }

    def discard(self) -> None:
        for file in self.files.values():
            file.discard()


def _hashing(file: Path) -> HashingStream:
    return HashingStream(file, BLOCK_BYTES)


@contextmanager
def rare_collection() -> Iterator[None]:
    """Collect cyclic garbage rarely: a batch of conversations is thousands of objects without cycles.

    With Python's threshold of 700, collection takes a sixth of the time.
    """
    usual = gc.get_threshold()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@rare_collection()
def encode_part(job: PartJob, encoder: Encoder, report: Report) -> dict[str, Any]:
    """Encode one part into its files and its record, which is returned."""
    width = TokenWidth.of(encoder.vocab_size)
    writers = [_SplitWriter(job.folder / split, part_stem(job.index), width) for split in SPLITS]
    record_file = job.folder / "parts" / f"{part_stem(job.index)}.json"
    encoder.use(job.engine)
    record_file.unlink(missing_ok=True)  # a part that is encoded again is not finished until it is complete
    key = job.seed.to_bytes(16, "little", signed=True)
    lowest: int | None = None
    highest: int | None = None
    counts: dict[str, Any] = {}
    last_report, waiting = time.monotonic(), [0, 0, 0]
    try:
        for documents in encoder.encode(job.part, counts):
            hashes = [
                int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest(), "little")
                for content in documents.contents
            ]
            lowest = min(hashes) if lowest is None else min(lowest, *hashes)
            highest = max(hashes) if highest is None else max(highest, *hashes)
            held_out = np.array([hashed < job.threshold for hashed in hashes], bool)
            for writer, chosen in zip(writers, (~held_out, held_out), strict=True):
                if chosen.any():
                    writer.write(documents.where(chosen))
            waiting[0] += len(hashes)
            waiting[1] += sum(documents.num_bytes)
            waiting[2] += len(documents.ids)
            if time.monotonic() - last_report > REPORT_SECONDS:
                report(*waiting)
                last_report, waiting = time.monotonic(), [0, 0, 0]
        record = {
            "dtype": width.name,
            "threshold": job.threshold,
            "engine": job.engine,
            "lowest": lowest,
            "highest": highest,
            "counts": counts,
            **{split: writer.commit() for split, writer in zip(SPLITS, writers, strict=True)},
        }
        write_sealed(record_file, record)
    finally:
        for writer in writers:
            writer.discard()
    report(*waiting)
    return record
