"""File format of teacher caches: for every trained token the likeliest ids, their log-probs, and the mass of all others.

``FOLDER/`` is one cache, for one teacher, tokenizer, template, dataset, k and temperature::

    cache.json      what it is of, written first
    targets.bin     one record a sequence: reference log-probs, tail, top-k log-probs, top-k ids
    index.bin       one entry of fixed size a sequence: its key, where its record lies, how long it is, a checksum
    complete.json   counts, written last of all

A record is on disk before its entry is written, so a process killed at any moment leaves complete records with entries, and
possibly a partial tail without, which the next writer truncates: nothing is lost or duplicated.

A cache of a teacher with another tokenizer also has a folder ``tokenizer``, and its records have the keys of the student's
sequences: one row for each of its tokens in chunks of text (`nbg_lightning.teachers.alignment`), in order. If a sequence
has more reference log-probs than the teacher has tokens, the extra rows list nothing.

Ids take 2 bytes where the vocabulary has no more than 65,536, else 3; log-probs are float16. At k = 64 a token takes 258 or
322 bytes, and 4 more with a reference.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nbg_lightning.digests import read_sealed

FORMAT = "nbg_lightning teacher cache 1"
ABOUT, TARGETS, INDEX, COMPLETE = "cache.json", "targets.bin", "index.bin", "complete.json"
KEY_BYTES = 16
ENTRY = np.dtype([("key", "V16"), ("begin", "<u8"), ("tokens", "<u4"), ("checksum", "<u4")])
_LOWEST = float(np.finfo(np.float16).min)  # for a probability of 0, whose logarithm must stay finite
_SHOWN = 16  # hex digits of a hash in messages
REBUILD = "build one for this run with nbg build-cache"
AGAIN = "delete the cache and build it again"
TOKENIZER = "tokenizer"  # folder of a teacher's tokenizer in its cache
SEALED = "sealed"  # in the cache.json of a cache whose JSON files end with their digests


@dataclass(frozen=True)
class CacheIdentity:
    """Identity of a cache; two caches with the same identity hold the same numbers.

    Attributes:
        teacher: fingerprint of its weights, or a server's address and model.
        reference: fingerprint of the reference's weights, or None.
        tokenizer: fingerprint of the tokenizer.
        template: hash of the chat format and its settings.
        data: hash of all sequences.
        k: number of ids per token.
        temperature: temperature that divides the teacher's logits.
        vocab_size: number of ids over which the teacher's probabilities are normalized.
        dtype: compute dtype of teacher and reference; ``server`` if only the server knows.
        teacher_tokenizer: fingerprint of the teacher's tokenizer, if its ids differ from the data's.
    """

    teacher: str
    reference: str | None
    tokenizer: str
    template: str
    data: str
    k: int
    temperature: float
    vocab_size: int
    dtype: str = "float32"
    teacher_tokenizer: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.vocab_size:
            raise ValueError(
                f"k is invalid: {self.k}; give at least 1, and at most the vocabulary of {self.vocab_size}"
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature is invalid: {self.temperature}; give the teacher's, a number above 0")

    @property
    def key(self) -> str:
        """Hex digest of all fields: the name of the cache."""
        fields = dataclasses.asdict(self)
        if self.teacher_tokenizer is None:  # the name of a cache of the data's own ids does not depend on it
            del fields["teacher_tokenizer"]
        text = json.dumps(fields, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def differences(self, **expected: Any) -> list[str]:
        """The fields that differ from the expected values, as text."""
        own = dataclasses.asdict(self)
        if unknown := sorted(set(expected) - set(own)):
            raise TypeError(
                f"identity is invalid: {', '.join(unknown)}; leave out what a cache's identity does not have"
            )
        return [
            f"{name} {_shown(own[name])} there, {_shown(value)} here"
            for name, value in expected.items()
            if own[name] != value
        ]


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 2 * _SHOWN or "/" in text else text[:_SHOWN]


class CachedTargets(NamedTuple):
    """The targets of a sequence, one row for each trained token, in order.

    Attributes:
        ids: the teacher's top-k ids, likeliest first, ``[n, k]`` uint16 or uint32.
        log_probs: their log-probabilities ``[n, k]`` float32, finite.
        tail: log-probability of all other ids together ``[n]`` float32, finite. With it, each row's probabilities sum to 1.
        reference: the reference model's log-probability of the token itself ``[n]`` float32, or None.
    """

    ids: np.ndarray
    log_probs: np.ndarray
    tail: np.ndarray
    reference: np.ndarray | None


class Layout:
    """Layout of a record in the file."""

    def __init__(self, identity: CacheIdentity):
        self.k = identity.k
        self.id_bytes = 2 if identity.vocab_size <= 1 << 16 else 3 if identity.vocab_size <= 1 << 24 else 4
        self.reference_bytes = 0 if identity.reference is None else 4
        self.token_bytes = self.reference_bytes + 2 + self.k * (2 + self.id_bytes)

    def record(self, ids: np.ndarray, log_probs: np.ndarray, tail: np.ndarray, reference: np.ndarray | None) -> bytes:
        narrow = np.ascontiguousarray(ids, "<u4").view(np.uint8).reshape(*ids.shape, 4)[..., : self.id_bytes]
        parts = [b"" if reference is None else reference.astype("<f4").tobytes()]
        parts += [np.maximum(x, _LOWEST).astype("<f2").tobytes() for x in (tail, log_probs)]
        return b"".join([*parts, narrow.tobytes()])

    def targets(self, record: np.ndarray, tokens: int) -> CachedTargets:
        at = tokens * self.reference_bytes
        reference = record[:at].view("<f4").copy() if at else None
        tail = record[at : at + 2 * tokens].view("<f2").astype(np.float32)
        at += 2 * tokens
        log_probs = record[at : at + 2 * tokens * self.k].view("<f2").astype(np.float32).reshape(tokens, self.k)
        at += 2 * tokens * self.k
        if self.id_bytes == 2:
            ids = record[at:].view("<u2").reshape(tokens, self.k)
        else:
            wide = np.zeros((tokens, self.k, 4), np.uint8)
            wide[..., : self.id_bytes] = record[at:].reshape(tokens, self.k, self.id_bytes)
            ids = wide.view("<u4")[..., 0]
        # Half precision has moved the sum away from 1 by some 1e-4: a distribution again.
        peak = np.maximum(log_probs.max(axis=1), tail)
        total = np.exp(log_probs - peak[:, None]).sum(axis=1) + np.exp(tail - peak)
        normalizer = peak + np.log(total)
        return CachedTargets(ids, log_probs - normalizer[:, None], tail - normalizer, reference)


def read_counts(folder: Path) -> dict[str, Any]:
    """The counts written when a cache was finished, with a digest of the index unless it is of an older version.

    Raises:
        ValueError: it is damaged.
    """
    sealed = SEALED in read_sealed(folder / ABOUT, AGAIN, required=lambda value: SEALED in value)[0]
    counts, _ = read_sealed(folder / COMPLETE, AGAIN, required=lambda value: sealed or "index" in value)
    if not all(isinstance(counts.get(name), int) for name in ("sequences", "tokens")):
        raise ValueError(f"{folder / COMPLETE} is damaged: it has no counts; {AGAIN}")
    return counts


def first_halves(keys: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY_BYTES)[:, :8].copy().view("<u8")[:, 0]


def read_identity(folder: Path) -> tuple[CacheIdentity, dict[str, Any]]:
    """The identity and provenance of a cache, finished or not.

    Raises:
        FileNotFoundError, ValueError: there is none, or one in another format.
    """
    file = folder / ABOUT
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is no teacher cache (it has no {ABOUT}); build one with nbg build-cache")
    whole, _ = read_sealed(file, AGAIN, required=lambda value: SEALED in value)
    try:
        if whole["format"] != FORMAT:
            raise ValueError(f"its format is {whole['format']!r}")
        return CacheIdentity(**whole["identity"]), whole["about"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not of this version of the library ({error}); build the cache again") from error
