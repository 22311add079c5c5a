"""A teacher's outputs cached by request: what any run has queried once is read and not queried again.

A student's own answers are not known before they are sampled, so that no cache can be built in advance. But they are a
function of seed, step and question: a run that is resumed, or repeated with another loss, samples the same ones until its
weights differ.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence as Sequences
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nbg_lightning import log
from nbg_lightning.data.pairs import sequence_key
from nbg_lightning.teachers.cache_format import ENTRY, INDEX, TARGETS, CacheIdentity, Layout
from nbg_lightning.teachers.cache_writer import CacheWriter
from nbg_lightning.teachers.targets import FrozenModel, Sequence, TargetSource, TopKTargets

REQUESTS = "requests"  # what such a cache is of, where one that is built has the hash of its data


class _Place(NamedTuple):
    """Where a record lies."""

    file: Path
    begin: int
    tokens: int
    checksum: int


class RequestCache:
    """A teacher with a cache on disk; use it in a ``with`` block. It is a `TargetSource` itself.

    ``FOLDER/requests-IDENTITY/rank-N`` has the files of a cache (see `cache_format`), one folder per rank: each rank writes
    its own and reads all. Numbers are stored in half precision, and returned as stored the first time too, so that a run
    that reads them has the gradients of the run that queried them. Weights are loaded only when something is missing.

    Args:
        teacher: the teacher, not yet entered.
        folder: parent folder of all caches.
        tokenizer: fingerprint of the student's tokenizer.
        vocab_size: number of ids over which the teacher is normalized.
        k: number of ids stored per token.
        temperature: temperature of the teacher.
        rank: rank of this process.

    Attributes:
        asked, found: number of sequences queried from the teacher, and of those found in the cache.

    Raises:
        FolderInUse: on entering: another run writes to this rank's folder.
    """

    def __init__(
        self,
        teacher: TargetSource,
        folder: str | Path,
        tokenizer: str,
        vocab_size: int,
        k: int,
        temperature: float = 1.0,
        rank: int = 0,
    ):
        self.teacher, self.folder, self.rank = teacher, Path(folder).expanduser(), rank
        self._identity = (tokenizer, vocab_size, k, temperature)
        self.asked = self.found = 0
        self._open = ExitStack()
        self._entered = False
        self._places: dict[bytes, _Place] = {}

    @property
    def fingerprint(self) -> str:
        """The teacher's."""
        return self.teacher.fingerprint

    @property
    def dtype(self) -> str:
        """The teacher's."""
        return self.teacher.dtype

    def __enter__(self) -> RequestCache:
        if not isinstance(self.teacher, FrozenModel):
            self._enter_teacher()  # a server's identity is known once it is open
        try:
            tokenizer, vocab_size, k, temperature = self._identity
            identity = CacheIdentity(
                self.fingerprint, None, tokenizer, "", REQUESTS, k, temperature, vocab_size, self.dtype
            )
            root = self.folder / f"requests-{identity.key}"
            self._layout = Layout(identity)
            self._writer = self._open.enter_context(CacheWriter(root / f"rank-{self.rank}", identity))
            for folder in sorted(root.glob("rank-*")):
                self._places |= self._read_index(folder)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._entered = False
        self._places = {}

    def _enter_teacher(self) -> None:
        if not self._entered:
            self._open.enter_context(self.teacher)
            self._entered = True

    def _read_index(self, folder: Path, skip: int = 0) -> dict[bytes, _Place]:
        """The entries of a folder behind the first ``skip``; another rank may be writing its last one."""
        file = folder / INDEX
        raw = file.read_bytes()[skip * ENTRY.itemsize :] if file.is_file() else b""
        entries = np.frombuffer(raw[: len(raw) // ENTRY.itemsize * ENTRY.itemsize], ENTRY)
        return {
            entry["key"].tobytes(): _Place(
                folder / TARGETS, int(entry["begin"]), int(entry["tokens"]), int(entry["checksum"])
            )
            for entry in entries
        }

    def top_k(self, sequences: Sequences[Sequence], k: int, temperature: float = 1.0) -> list[TopKTargets]:
        """See `TargetSource.top_k`; k and temperature must be those of the cache.

        Raises:
            ValueError: other values, or ids outside the vocabulary.
            RuntimeError: the teacher fails.
        """
        if (k, temperature) != self._identity[2:]:
            raise ValueError(
                f"k and temperature are invalid: {k}, {temperature}; give those of this cache, {self._identity[2:]}"
            )
        keys = [sequence_key(sequence.ids, sequence.trained) for sequence in sequences]
        known = {key: self._lookup(key, sequence) for key, sequence in zip(keys, sequences, strict=True)}
        missing = {key: s for key, s in zip(keys, sequences, strict=True) if known[key] is None}
        self.asked, self.found = self.asked + len(missing), self.found + len(keys) - len(missing)
        if missing:
            self._enter_teacher()
            before = self._writer.num_sequences
            for key, told in zip(missing, self.teacher.top_k(list(missing.values()), k, temperature), strict=True):
                self._writer.append(key, *told)
                known[key] = self._as_kept(self._layout.record(*told, None), len(told.tail))
            self._writer.flush()
            self._places |= self._read_index(self._writer.folder, before)
        return [targets for key in keys if (targets := known[key]) is not None]

    def _lookup(self, key: bytes, sequence: Sequence) -> TopKTargets | None:
        """The cached targets of a sequence; None if there are none, or they are damaged and have to be queried again."""
        place = self._places.get(key)
        if place is None or place.tokens != len(sequence.places):
            return None
        size = place.tokens * self._layout.token_bytes
        with open(place.file, "rb") as file:
            file.seek(place.begin)
            record = file.read(size)
        if len(record) != size or zlib.crc32(record) != place.checksum:
            log.warn(f"{place.file} is damaged at byte {place.begin:,}: the teacher is asked again")
            return None
        return self._as_kept(record, place.tokens)

    def _as_kept(self, record: bytes, tokens: int) -> TopKTargets:
        targets = self._layout.targets(np.frombuffer(record, np.uint8), tokens)
        return TopKTargets(targets.ids, targets.log_probs, targets.tail)
