"""Building a teacher cache: every sequence once, in packed batches of similar length, restartable at any time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbg_lightning import log
from nbg_lightning.data.pairs import sequence_key
from nbg_lightning.data.progress import Progress
from nbg_lightning.teachers.alignment import TokenizerPair
from nbg_lightning.teachers.cache import TeacherCache
from nbg_lightning.teachers.cache_format import TOKENIZER, CacheIdentity
from nbg_lightning.teachers.cache_writer import CacheWriter
from nbg_lightning.teachers.targets import FrozenModel, Sequence, TargetSource, TopKTargets

if TYPE_CHECKING:
    from nbg_lightning.core.prefixes import SharePrefixes

Sequences = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]
"""Iterates over ids and trained mask of every sequence, always in the same order."""

SORTED_TOGETHER = 4096  # number of sequences in memory at once


def data_identity(sequences: Sequences) -> tuple[str, dict[bytes, int]]:
    """Hash of a set of sequences with their trained tokens, independent of order.

    Raises:
        ValueError: there is none, or one in which nothing is trained.
    """
    keys: dict[bytes, int] = {}
    for ids, trained in sequences():
        count = int(np.count_nonzero(trained[1:]))
        if not count:
            raise ValueError(f"a sequence of {len(ids)} tokens has no trained one; check the data's template")
        keys[sequence_key(ids, trained)] = count
    if not keys:
        raise ValueError("the data has no sequence; give a config whose data has some")
    return hashlib.blake2b(b"".join(sorted(keys)), digest_size=16).hexdigest(), keys


def build_cache(
    sequences: Sequences,
    teacher: TargetSource,
    reference: FrozenModel | None,
    out: str | Path,
    tokenizer: str,
    template: str,
    vocab_size: int,
    k: int = 64,
    temperature: float = 1.0,
    batch_tokens: int = 8192,
    progress: bool = True,
    share_prefixes: SharePrefixes = "auto",
    about: dict[str, Any] | None = None,
    pair: TokenizerPair | None = None,
) -> TeacherCache:
    """Cache the outputs of a teacher, and optionally a reference, for sequences; an existing cache is reused or completed.

    Args:
        sequences: the sequences; duplicates are cached once.
        teacher: the teacher, not yet entered.
        reference: the frozen student, whose log-probs of the tokens a preference loss needs; None for a cache without them.
        out: parent folder; the cache is a subfolder named by its identity.
        tokenizer: fingerprint of the tokenizer that produced the sequences.
        template: hash of the chat format that did.
        vocab_size: number of ids over which the teacher is normalized.
        k: number of ids stored per token.
        temperature: temperature of the teacher.
        batch_tokens: maximum tokens per forward pass (a longer sequence has its own).
        progress: show progress on stderr.
        share_prefixes: whether sequences with a common prefix share a forward pass (see `FrozenModel`).
        about: provenance that is stored with it.
        pair: the data's tokenizer and the teacher's, if they differ: the cache then holds the teacher's tokens in chunks of
            text, and contains its tokenizer.

    Raises:
        ValueError: nothing to cache, no text in which the tokenizers can be aligned, or a teacher that returns non-finite
            values.
        RuntimeError: a server fails.
        OSError: the disk is full; finished records are kept, and the next run continues.
    """
    from nbg_lightning.core.prefixes import shortest_shared

    shortest = shortest_shared(share_prefixes)
    data, tokens = data_identity(sequences)
    with ExitStack() as stack:
        if not isinstance(teacher, FrozenModel):
            stack.enter_context(teacher)  # a server's identity is known once it is open
        identity = CacheIdentity(
            teacher=teacher.fingerprint,
            reference=None if reference is None else reference.fingerprint,
            tokenizer=tokenizer,
            template=template,
            data=data,
            k=k,
            temperature=temperature,
            vocab_size=vocab_size,
            dtype=teacher.dtype,
            teacher_tokenizer=None if pair is None else pair.theirs.fingerprint,
        )
        folder = Path(out).expanduser() / f"teacher-{identity.key}"
        writer = stack.enter_context(CacheWriter(folder, identity, about))
        if writer.complete:
            return TeacherCache(folder)
        if pair is not None:
            pair.theirs.save_pretrained(folder / TOKENIZER)
        if isinstance(teacher, FrozenModel):
            stack.enter_context(teacher)
        if reference is not None:
            stack.enter_context(reference)
        meter = stack.enter_context(Progress("teacher cache", sum(tokens.values()), progress, "tokens"))
        meter.advance(writer.num_tokens, fresh=False)
        for batch in batches(sequences, batch_tokens, writer.__contains__, shortest):
            _cache_batch(batch, teacher, reference, writer, k, temperature, pair)
            meter.advance(sum(len(sequence.places) for _, sequence in batch))
        if pair is not None:
            _check_chunks(pair)
        return writer.finish()


def _cache_batch(
    batch: list[tuple[bytes, Sequence]],
    teacher: TargetSource,
    reference: FrozenModel | None,
    writer: CacheWriter,
    k: int,
    temperature: float,
    pair: TokenizerPair | None = None,
) -> None:
    sequences = [sequence for _, sequence in batch]
    if pair is None:
        targets = teacher.top_k(sequences, k, temperature)
    else:
        rows = [1 if reference is None else len(sequence.places) for sequence in sequences]
        targets = _aligned_targets(sequences, teacher, pair, rows, k, temperature)
    own = [None] * len(batch) if reference is None else reference.log_probs(sequences)
    for (key, _), found, log_probs in zip(batch, targets, own, strict=True):
        rest = 0 if log_probs is None else len(found.tail) - len(log_probs)
        writer.append(key, *found, np.pad(log_probs, (0, rest)) if log_probs is not None and rest else log_probs)
    writer.flush()


def batches(
    sequences: Sequences, batch_tokens: int, known: Callable[[bytes], bool], shortest: int | None = None
) -> Iterator[list[tuple[bytes, Sequence]]]:
    """Unknown sequences, each once, in batches of a given token count, of similar length in the order of `rows_that_fit`."""
    from nbg_lightning.core.prefixes import rows_that_fit

    stream = iter(sequences())
    seen: set[bytes] = set()
    while part := list(islice(stream, SORTED_TOGETHER)):
        new: list[tuple[bytes, Sequence]] = []
        for ids, trained in part:
            key = sequence_key(ids, trained)
            if key not in seen and not known(key):
                seen.add(key)
                new.append((key, Sequence(np.asarray(ids), np.asarray(trained))))
        for row in rows_that_fit([sequence.ids[:-1] for _, sequence in new], batch_tokens, shortest):
            yield [new[index] for index in row]


def _aligned_targets(
    sequences: list[Sequence],
    teacher: TargetSource,
    pair: TokenizerPair,
    rows: list[int],
    k: int,
    temperature: float,
) -> list[TopKTargets]:
    """The top-k lists of a teacher with another tokenizer at its tokens of each sequence's chunks, padded to a minimum
    number of rows.
    """
    asked = [pair.align(sequence.ids, sequence.trained).asked for sequence in sequences]
    some = [each for each in asked if len(each.places)]
    told = iter(teacher.top_k(some, k, temperature) if some else [])
    return [
        _with_rows(next(told) if len(each.places) else None, count, k) for each, count in zip(asked, rows, strict=True)
    ]


def _with_rows(told: TopKTargets | None, rows: int, k: int) -> TopKTargets:
    """Pad a list to a number of rows; added rows list nothing, with all mass in the tail."""
    missing = max(0, rows - (0 if told is None else len(told.tail)))
    nothing = TopKTargets(
        np.tile(np.arange(k), (missing, 1)), np.full((missing, k), -np.inf, np.float32), np.zeros(missing, np.float32)
    )
    if told is None:
        return nothing
    return TopKTargets(*(np.concatenate(each) for each in zip(told, nothing, strict=True)))


def _check_chunks(pair: TokenizerPair) -> None:
    """Log how much of the data is in chunks, and raise if nothing is."""
    total = pair.aligned + pair.unaligned
    if total and not pair.aligned:
        raise ValueError(
            f"the teacher's tokenizer {pair.theirs.name_or_path} is invalid: none of {total:,} trained tokens is in a chunk of "
            "text that ends in both at the same byte; take another teacher, or train with the preference term alone"
        )
    if total:
        log.info(f"{pair.aligned:,} of {total:,} trained tokens are in chunks of text; the others are not distilled")
