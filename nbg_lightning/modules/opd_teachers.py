"""The teachers of on-policy distillation: selection by question, and queries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nbg_lightning.core.checkpoint_folder import checkpoint_at
from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.context import ContextShard
from nbg_lightning.core.head_teachers import LiveTargets, TopK
from nbg_lightning.core.prefixes import SHORTEST_SHARED
from nbg_lightning.data.aligned_batch import aligned_batch
from nbg_lightning.data.tokenizer import load_tokenizer
from nbg_lightning.distributed import get_rank
from nbg_lightning.losses.distillation import Divergence
from nbg_lightning.modules.aligned import AlignedTerm, Alignment, alignment_with, answer_sequences
from nbg_lightning.modules.context import check_whole_rows
from nbg_lightning.modules.dpd_checks import is_comparable
from nbg_lightning.modules.frozen import open_frozen
from nbg_lightning.modules.listed import joined_lists
from nbg_lightning.rl.distillation import DistillationBatch, TeacherStep, completion_mask, teacher_positions
from nbg_lightning.rl.rollout_batch import TrainedAnswer
from nbg_lightning.suggestion import did_you_mean
from nbg_lightning.teachers.request_cache import RequestCache
from nbg_lightning.teachers.server import ServerTeacher
from nbg_lightning.teachers.targets import FrozenModel, TargetSource, TopKTargets
from nbg_lightning.teachers.targets import Sequence as TokenSequence

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.teachers.live import LiveTeacher

OneTeacher = str | ServerTeacher
Teaching = OneTeacher | dict[str, OneTeacher]
DEFAULT = "default"
"""Key of the teacher for all sources that are not named."""


class Listing(NamedTuple):
    """How teachers that return top-k lists are queried.

    Attributes:
        top_k: number of ids per token.
        cache: folder where their outputs are cached; None disables caching.
    """

    top_k: int
    cache: str | None


class TeacherPlace(NamedTuple):
    """Where a teacher runs: beside the student, on its mesh and device."""

    parallel: ParallelConfig
    mesh: DeviceMesh | None
    device: torch.device


class OnPolicyTeachers:
    """One teacher, or one per domain: live weights, weights whose outputs are cached, or a server.

    Args:
        teacher: weights (a folder, a checkpoint, a name on the hub), the URL of a server (``http://...``), a
            `ServerTeacher`, or a mapping from question sources to these; ``default`` applies to all sources that are not
            named.
        listing: how teachers that do not run beside the student are queried.
        temperature: temperature of the divergence.

    Attributes:
        identity: name to fingerprint of each open teacher, for checkpoints.

    Raises:
        ValueError: no teacher, or an invalid setting.
    """

    def __init__(self, teacher: Teaching, listing: Listing, temperature: float):
        if listing.top_k < 1:
            raise ValueError(f"top_k is invalid: {listing.top_k}; give at least 1")
        by_source = teacher if isinstance(teacher, dict) else {DEFAULT: teacher}
        if not by_source:
            raise ValueError("teacher is invalid: {}; name a teacher, or one for each source of the data")
        given: list[OneTeacher] = []
        self._of_source: dict[str, int] = {}
        for source, each in by_source.items():
            resolved = each if isinstance(each, ServerTeacher) else _resolved(each)
            if resolved not in given:
                given.append(resolved)
            self._of_source[source] = given.index(resolved)
        self.listing, self.temperature = listing, temperature
        self._served: dict[int, ServerTeacher] = {i: t for i, t in enumerate(given) if isinstance(t, ServerTeacher)}
        self._weights: dict[int, str] = {i: t for i, t in enumerate(given) if isinstance(t, str)}
        if self._served and temperature != 1:
            raise ValueError(
                f"divergence.temperature is invalid: {temperature}; a server gives the tail's mass at temperature 1 only; give "
                "the teacher's weights, or 1"
            )
        self.names = [str(t.url if isinstance(t, ServerTeacher) else t) for t in given]
        self.identity: dict[str, str] = {}
        self._live: dict[int, LiveTeacher] = {}  # not submodules: neither trained, saved nor moved
        self._alignments: dict[int, Alignment] = {}  # for teachers with another tokenizer
        self._asked: dict[int, TargetSource] = {}
        self._sizes: dict[int, int] = {}  # vocabulary size of teachers that return top-k lists
        self._open = ExitStack()
        self._vocab_size = 0

    def __len__(self) -> int:
        return len(self.names)

    # -- life ----------------------------------------------------------------------------------------------------------

    def check(self, student: LanguageModelConfig, tokenizer: Tokenizer | None, context: int = 1) -> None:
        """Determine how each teacher is compared with the student, and raise for those that cannot be.

        Args:
            student: the student's model config.
            tokenizer: its tokenizer, if known.
            context: number of ranks that share a micro-batch.

        Raises:
            ValueError: a tokenizer cannot be aligned with the student's, or not on parts of rows.
        """
        self._vocab_size = student.vocab_size
        found = {index: alignment_with(weights, student, tokenizer) for index, weights in self._weights.items()}
        for index, weights in self._weights.items():
            if found[index] is None:
                is_comparable(weights, student, tokenizer, only_loss=True, why_only="distillation needs one")
        for index, server in self._served.items():
            if server.tokenizer is not None:
                found[index] = alignment_with(server.url, student, tokenizer, load_tokenizer(server.tokenizer))
        self._alignments = {index: alignment for index, alignment in found.items() if alignment is not None}
        if self._alignments:
            check_whole_rows(context)

    def open(self, place: TeacherPlace, tokenizer: Tokenizer | None) -> None:
        """Open teachers that are not open yet; a server's tokenizer is checked before the first query. Collective.

        Raises:
            ValueError: a server has another tokenizer.
            ConnectionError: it does not answer.
        """
        cached = self.listing.cache is not None
        for index, weights in self._weights.items():
            if cached and index not in self._asked:
                size = None if index in self._alignments else self._shared(weights)
                teacher = FrozenModel(weights, size, str(place.device), place.parallel.compute_dtype)
                self._ask(index, teacher, tokenizer)
            elif not cached and index not in self._live:
                self._live[index], fingerprint = open_frozen(weights, *place)
                self.identity[f"teacher {weights} in {place.parallel.compute_dtype}"] = fingerprint
        for index, server in self._served.items():
            if index not in self._asked:
                self._ask(index, server, tokenizer)

    def _shared(self, weights: str) -> int:
        from nbg_lightning.core.weights import read_shape

        return min(self._vocab_size, read_shape(weights).vocab_size)

    def _ask(self, index: int, teacher: FrozenModel | ServerTeacher, tokenizer: Tokenizer | None) -> None:
        """Open a teacher that returns top-k lists."""
        if index in self._alignments:
            tokenizer = self._alignments[index].pair.theirs
        if isinstance(teacher, FrozenModel):
            size = teacher.vocab_size
        else:
            size = self._vocab_size if tokenizer is None or index not in self._alignments else tokenizer.vocab_size
            self._open.enter_context(teacher)
            if tokenizer is not None:
                teacher.check_tokenizer(tokenizer)
        found: TargetSource = teacher
        if self.listing.cache is not None:
            name = "" if tokenizer is None else tokenizer.fingerprint
            found = RequestCache(teacher, self.listing.cache, name, size, self._k(size), self.temperature, get_rank())
            self._open.enter_context(found)
        self._asked[index], self._sizes[index] = found, size
        self.identity[f"teacher {self.names[index]}"] = teacher.fingerprint

    def _k(self, vocab_size: int) -> int:
        return min(self.listing.top_k, vocab_size)

    def close(self) -> None:
        """Close connections to servers and release weights."""
        self._asked, self._live, self.identity = {}, {}, {}
        self._open.close()

    # -- work ----------------------------------------------------------------------------------------------------------

    def of(self, source: str) -> int:
        """The teacher for a source's questions.

        Raises:
            ValueError: there is none.
        """
        found = self._of_source.get(source, self._of_source.get(DEFAULT))
        if found is None:
            raise ValueError(
                f"teacher is invalid: it has none for the source {source!r}{did_you_mean(source, self._of_source)}; add one, or "
                f"{DEFAULT}: TEACHER for all sources that are not named"
            )
        return found

    def batches(self, parts: Iterable[TeacherStep], device: torch.device) -> list[DistillationBatch]:
        """The micro-batches of a step, after teachers that are queried have answered.

        Raises:
            RuntimeError: a server fails.
            ValueError: a teacher lists ids that the student does not have.
        """
        found: list[DistillationBatch] = []
        for teacher, packed in parts:
            own = [DistillationBatch.of(batch, teacher) for batch in packed.micro_batches]
            alignment = self._alignments.get(teacher)
            if alignment is None:
                asked = [[_sequence(answer) for answer in answers] for answers in packed.answers]
            else:
                asked = [_align(batch, answers, alignment) for batch, answers in zip(own, packed.answers, strict=True)]
            if teacher in self._asked:
                context = packed.micro_batches[0].context
                for batch, told in zip(own, self._answers(teacher, asked, context), strict=True):
                    batch.listed = TopK(*(tensor.to(device) for tensor in _here(told, batch.own)))
            found += own if alignment is None else [batch.to(device) for batch in own]
        return found

    def _answers(
        self, teacher: int, asked: Sequence[Sequence[TokenSequence]], context: ContextShard | None
    ) -> list[TopK]:
        """A teacher's top-k lists for each micro-batch's sequences; ranks that share these divide the queries."""
        wanted = [[each for each in part if len(each.places)] for part in asked]
        if context is None:
            told = self._told(teacher, wanted)
        else:
            own = self._told(teacher, [part[context.rank :: context.size] for part in wanted])
            told = [_interleaved(of_ranks) for of_ranks in zip(*context.gather(own), strict=True)]
        # A teacher with another tokenizer lists its own ids; those that the student lacks belong to the rest.
        bound = None if teacher in self._alignments else self._vocab_size
        return [joined_lists(part, self._k(self._sizes[teacher]), self.names[teacher], bound) for part in told]

    def _told(self, teacher: int, wanted: Sequence[Sequence[TokenSequence]]) -> list[list[TopKTargets]]:
        source, k = self._asked[teacher], self._k(self._sizes[teacher])
        inner = source.teacher if isinstance(source, RequestCache) else source
        if isinstance(inner, FrozenModel):  # one forward per micro-batch; a server batches by itself
            return [source.top_k(part, k, self.temperature) if part else [] for part in wanted]
        flat = iter(source.top_k([each for part in wanted for each in part], k, self.temperature))
        return [[next(flat) for _ in part] for part in wanted]

    def targets(self, batch: DistillationBatch) -> TopK | LiveTargets:
        """The targets of a micro-batch's teacher; those of a live teacher are valid until `release`. Collective."""
        if batch.listed is not None:
            return batch.listed
        return self._live[batch.teacher].targets(batch, teacher_positions(batch))

    def chunks(self, batch: DistillationBatch, weight: float, measure: Divergence) -> AlignedTerm | None:
        """The targets for a micro-batch's chunks of a teacher with another tokenizer, until `release`; None for other
        teachers.
        """
        if batch.aligned is None:
            return None
        targets: LiveTargets | TopK
        if batch.listed is not None:
            targets = batch.listed
        else:
            targets = self._live[batch.teacher].targets(batch.aligned, batch.aligned.positions)
        weights = torch.full_like(batch.aligned.sequence, weight, dtype=torch.float32)
        shared = self._alignments[batch.teacher].columns(weights.device)
        return AlignedTerm(batch.aligned, targets, shared, weights, measure)

    def release(self, batch: DistillationBatch) -> None:
        """Free the gathered weights of a micro-batch's teacher."""
        if batch.listed is None:
            self._live[batch.teacher].release()


def _interleaved(of_ranks: Sequence[Sequence[TopKTargets]]) -> list[TopKTargets]:
    """Merge the results of ranks, each of which queried every n-th sequence, in the order of the sequences."""
    number = sum(map(len, of_ranks))
    return [of_ranks[index % len(of_ranks)][index // len(of_ranks)] for index in range(number)]


def _here(listed: TopK, own: Tensor | None) -> TopK:
    """The lists of the completion tokens on this rank; without any, one position with weight 0."""
    if own is None:
        return listed
    places = own.cpu() if len(own) else torch.zeros(1, dtype=torch.int64)
    return TopK(*(values[places] for values in listed))


def _sequence(answer: TrainedAnswer) -> TokenSequence:
    return TokenSequence(np.array([*answer.prompt, *answer.completion]), np.array(completion_mask(answer)))


def _align(batch: DistillationBatch, answers: Sequence[TrainedAnswer], alignment: Alignment) -> list[TokenSequence]:
    """Set a micro-batch's chunks, and the teacher's sequences to query for the tokens of these chunks."""
    sequences = answer_sequences(batch, answers)
    aligned = alignment.align(sequences)
    batch.aligned = aligned_batch(sequences, aligned, SHORTEST_SHARED)
    return [each.asked for each in aligned]


def _resolved(teacher: str) -> str | ServerTeacher:
    """Interpret a URL as a server and anything else as weights."""
    return ServerTeacher(teacher) if teacher.startswith(("http://", "https://")) else checkpoint_at(teacher)
