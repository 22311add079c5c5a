"""Distillation from a teacher with another tokenizer: text chunks, and the head that compares them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nbg_lightning.core.head_alignment import (
    AlignedResult,
    AlignedTeacher,
    ListedTeacher,
    SharedColumns,
    linear_alignment,
)
from nbg_lightning.core.head_distillation import PreferenceResult
from nbg_lightning.core.head_teachers import LiveTargets, TopK
from nbg_lightning.data.aligned_batch import AlignedBatch, WholeSequence, aligned_batch
from nbg_lightning.data.pairs import sequence_key
from nbg_lightning.losses.distillation import Divergence
from nbg_lightning.modules.listed import joined_lists
from nbg_lightning.rl.distillation import DistillationBatch, DistillationResult
from nbg_lightning.rl.policy_loss import completion_statistics
from nbg_lightning.rl.rollout_batch import TrainedAnswer
from nbg_lightning.teachers.alignment import AlignedSequence, TokenizerPair, pair_with, tokenizer_of
from nbg_lightning.teachers.targets import TopKTargets

if TYPE_CHECKING:
    from nbg_lightning.core.config import LanguageModelConfig
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.teachers.cache import TeacherCache


class Alignment:
    """Comparison of a student with a teacher of another tokenizer.

    Args:
        pair: both tokenizers.
        vocab_size: rows of the student's head.
        their_vocab_size: rows of the teacher's head.
        cache: the teacher's cached outputs, if the teacher does not run here.
    """

    def __init__(self, pair: TokenizerPair, vocab_size: int, their_vocab_size: int, cache: TeacherCache | None = None):
        self.pair, self._cache = pair, cache
        self._sizes = vocab_size, their_vocab_size
        ours, theirs = (torch.from_numpy(ids) for ids in pair.shared)
        kept = (ours < vocab_size) & (theirs < their_vocab_size)
        self._columns = SharedColumns.of(ours[kept], theirs[kept], *self._sizes)

    def align(self, sequences: Sequence[WholeSequence]) -> list[AlignedSequence]:
        """Convert sequences to the teacher's tokens."""
        return [self.pair.align(sequence.ids, sequence.trained) for sequence in sequences]

    def batch(self, sequences: Sequence[WholeSequence], shortest: int | None) -> AlignedBatch:
        """The chunks of a micro-batch's sequences, with their cached targets.

        Raises:
            ValueError: the cache lacks one, or is damaged.
        """
        aligned = self.align(sequences)
        found = aligned_batch(sequences, aligned, shortest)
        if self._cache is None:
            return found
        told = [_kept(self._cache, *each) for each in zip(sequences, aligned, strict=True)]
        identity = self._cache.identity
        return found._replace(listed=joined_lists(told, identity.k, identity.teacher, None))

    def columns(self, device: torch.device) -> SharedColumns:
        """The shared ids on a device."""
        if self._columns.ours.device != device:
            self._columns = SharedColumns(*(part.to(device) for part in self._columns))
        return self._columns


def alignment_with(
    teacher: str, student: LanguageModelConfig, tokenizer: Tokenizer | None, theirs: Tokenizer | None = None
) -> Alignment | None:
    """The alignment of a teacher with a student; None if their ids mean the same, or a tokenizer is unknown.

    Args:
        teacher: its weights; with ``theirs``, only a name for messages.
        student: the student's model config.
        tokenizer: the student's tokenizer, if known.
        theirs: tokenizer of a teacher whose weights are elsewhere; by default the one stored with the weights.

    Raises:
        ValueError: the tokenizers differ and cannot be aligned.
    """
    from nbg_lightning.core.weights import read_shape

    pair = pair_with(teacher, tokenizer, theirs or tokenizer_of(teacher))
    if pair is None:
        return None
    size = read_shape(teacher).vocab_size if theirs is None else theirs.vocab_size
    return Alignment(pair, student.vocab_size, size)


def cached_alignment(
    cache: TeacherCache, student: LanguageModelConfig, tokenizer: Tokenizer | None
) -> Alignment | None:
    """The alignment of a cache with a student; None if the cache was made with the student's tokenizer.

    Raises:
        ValueError: the tokenizers cannot be aligned, or the cache's is damaged.
    """
    theirs = cache.teacher_tokenizer
    if theirs is None or tokenizer is None:
        return None
    return Alignment(TokenizerPair(tokenizer, theirs), student.vocab_size, cache.identity.vocab_size, cache)


def _kept(cache: TeacherCache, sequence: WholeSequence, aligned: AlignedSequence) -> TopKTargets:
    """The cached targets of a sequence's chunks: a record has a row for each of their tokens, and possibly extra ones."""
    found = cache.lookup(sequence_key(sequence.ids, sequence.trained))
    count = len(aligned.asked.places)
    if found is None or len(found.tail) < count:
        raise ValueError(
            f"the cache {cache.folder} lacks a sequence of {len(sequence.ids)} tokens: it is of other data; run "
            "nbg build-cache again"
        )
    return TopKTargets(found.ids[:count], found.log_probs[:count], found.tail[:count])


class AlignedTerm(NamedTuple):
    """Input of the head for a micro-batch's chunks: the teacher's targets, and the weight of each chunk ``[C]``."""

    batch: AlignedBatch
    teacher: LiveTargets | TopK
    shared: SharedColumns
    weights: Tensor
    measure: Divergence


def aligned_head(hidden_BLD: Tensor, weight_VD: Tensor, term: AlignedTerm) -> AlignedResult:
    """The divergences of a micro-batch's chunks, and their weighted sum."""
    hidden_TD = hidden_BLD.flatten(0, 1).index_select(0, term.batch.places)
    told, tokens = term.teacher, term.batch.theirs
    teacher = ListedTeacher(told, tokens) if isinstance(told, TopK) else AlignedTeacher(*told, tokens)
    return linear_alignment(hidden_TD, weight_VD, term.batch.ours, teacher, term.shared, term.weights, term.measure)


def preference_with_chunks(
    hidden_BLD: Tensor, weight_VD: Tensor, preference: Callable[..., PreferenceResult], term: AlignedTerm
) -> PreferenceResult:
    """The preference loss together with divergences over chunks instead of tokens."""
    result, found = preference(hidden_BLD, weight_VD), aligned_head(hidden_BLD, weight_VD, term)
    return result._replace(loss=result.loss + found.loss, divergences=found.divergences)


def aligned_distillation_head(
    hidden_BLD: Tensor, weight_VD: Tensor, batch: DistillationBatch, term: AlignedTerm, temperature: float | None
) -> DistillationResult:
    """As `nbg_lightning.rl.distillation.distillation_head`, over chunks."""
    found = aligned_head(hidden_BLD, weight_VD, term)
    if temperature is None:
        nothing = found.divergences.new_zeros(0)
        return DistillationResult(found.loss, found.divergences, nothing, nothing)
    statistics = completion_statistics(hidden_BLD, weight_VD, batch.predicting, batch.targets, temperature)
    return DistillationResult(found.loss, found.divergences, *statistics)


def answer_sequences(batch: DistillationBatch, answers: Sequence[TrainedAnswer]) -> list[WholeSequence]:
    """The answers of a micro-batch with their prompts; ``places`` of prompt tokens are unknown and not needed."""
    predicting = batch.predicting.cpu().numpy()
    found, begin = [], 0
    for row, answer in enumerate(answers):
        prompt, drawn = len(answer.prompt), len(answer.completion)
        ids = np.array([*answer.prompt, *answer.completion], np.int64)
        places = np.full(len(ids) - 1, -1)
        places[prompt - 1 :] = predicting[begin : begin + drawn]
        begin += drawn
        found.append(WholeSequence(ids, np.arange(len(ids)) >= prompt, places, row))
    return found


def with_chunks(preference: Callable[..., PreferenceResult], term: AlignedTerm | None) -> Callable[..., Any]:
    """Extend a head with the divergences of chunks, if there are any."""
    return preference if term is None else partial(preference_with_chunks, preference=preference, term=term)
