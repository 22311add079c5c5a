"""The head with a teacher that has another tokenizer: divergences over chunks of text.

Shape suffixes: T tokens and V vocabulary of the student, D hidden size; N tokens, U vocabulary and E hidden size of the teacher;
C chunks; M ids shared by both; G = M + 2 outcomes; K ids listed by a teacher.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nbg_lightning.core.head import statistics_dtype, tokens_per_chunk
from nbg_lightning.core.head_teachers import TopK
from nbg_lightning.losses.distillation import LOG_FLOOR, Divergence, divergence

_LEAST_REST = 1e-6  # least share left beside a chunk, so that its logarithm and gradient stay finite


class ChunkTokens(NamedTuple):
    """The tokens of chunks in one tokenizer: their ids ``[T]``, and the index of each token's chunk ``[T]``, ascending from 0."""

    labels: Tensor
    chunk: Tensor

    @property
    def firsts(self) -> Tensor:
        """The index of the first token of each chunk ``[C]``."""
        return torch.searchsorted(self.chunk, torch.unique_consecutive(self.chunk))

    def part(self, tokens: slice, first_chunk: int) -> ChunkTokens:
        """A slice of whole chunks, renumbered from 0."""
        return ChunkTokens(self.labels[tokens], self.chunk[tokens] - first_chunk)


class SharedColumns(NamedTuple):
    """Shared ids, ours and theirs ``[M]``, and the column of each of our ids ``[V]`` and theirs ``[U]``, or -1."""

    ours: Tensor
    theirs: Tensor
    column: Tensor
    their_column: Tensor

    @classmethod
    def of(cls, ours: Tensor, theirs: Tensor, vocab_size: int, their_vocab_size: int) -> SharedColumns:
        """Build it from the ids, and the vocabulary sizes of both heads."""
        places = torch.arange(len(ours), device=ours.device)
        columns = [
            torch.full((size,), -1, dtype=torch.int64, device=ours.device).index_copy_(0, ids, places)
            for ids, size in ((ours, vocab_size), (theirs, their_vocab_size))
        ]
        return cls(ours, theirs, *columns)


def outcomes(
    log_p_TV: Tensor, tokens: ChunkTokens, ids_M: Tensor, column_V: Tensor, alone_CM: Tensor, whole_C: Tensor
) -> Tensor:
    """Log-probabilities of the outcomes at the beginning of each chunk ``[C, G]``: see `aligned_divergence`.

    Args:
        log_p_TV: log-probabilities of one side, at each of its tokens.
        tokens: tokens of that side.
        ids_M: its shared ids.
        column_V: the column of each of its ids.
        alone_CM: which shared ids are outcomes; the others count to the rest.
        whole_C: whether the chunk itself is an outcome; a chunk of a single shared token is not, since that token already is.
    """
    firsts = tokens.firsts
    own_T = log_p_TV.gather(-1, tokens.labels[:, None]).squeeze(-1)
    chunk_C = torch.zeros_like(own_T[firsts]).index_add(0, tokens.chunk, own_T)
    first_CV = log_p_TV[firsts]
    shared_CM = first_CV[:, ids_M].masked_fill(~alone_CM, LOG_FLOOR)
    alone_CV = (column_V >= 0).expand(len(firsts), -1).clone()
    alone_CV[:, ids_M] = alone_CM
    rest_C = first_CV.masked_fill(alone_CV, LOG_FLOOR).logsumexp(dim=-1)
    return _with_chunk(shared_CM, chunk_C, rest_C, whole_C)


def _with_chunk(shared_CM: Tensor, chunk_C: Tensor, rest_C: Tensor, whole_C: Tensor) -> Tensor:
    """The shared ids, the chunk if it is an outcome, and the remaining rest ``[C, G]``."""
    share = torch.exp(torch.minimum(chunk_C - rest_C, chunk_C.new_zeros(()))).clamp(max=1 - _LEAST_REST)
    rest_C = torch.where(whole_C, rest_C + torch.log1p(-torch.where(whole_C, share, 0.0)), rest_C)
    own_C = chunk_C.masked_fill(~whole_C, LOG_FLOOR)
    return torch.cat((shared_CM, own_C[:, None], rest_C[:, None]), dim=-1)


def _single(ours: ChunkTokens, theirs: ChunkTokens, begins_C2: Tensor) -> Tensor:
    """Whether each chunk is a single shared token."""
    counts, their_counts = (torch.bincount(each.chunk) for each in (ours, theirs))
    return (counts == 1) & (their_counts == 1) & (begins_C2[:, 0] == begins_C2[:, 1]) & (begins_C2[:, 0] >= 0)


def _begins(ours: ChunkTokens, theirs: ChunkTokens, shared: SharedColumns) -> Tensor:
    """Columns of the first token of each chunk on both sides, or -1 ``[C, 2]``."""
    first, their_first = ours.labels[ours.firsts], theirs.labels[theirs.firsts]
    return torch.stack((shared.column[first], shared.their_column[their_first]), dim=-1)


def _outside(begins_C2: Tensor, single_C: Tensor, num_shared: int) -> Tensor:
    """Which shared ids do not begin their chunk ``[C, M]``; for a chunk of a single shared token, all ids are outcomes."""
    named_CM = _at_columns(begins_C2.new_zeros((), dtype=torch.bool), begins_C2, num_shared, True)
    return ~named_CM | single_C[:, None]


def _at_columns(fill: Tensor, columns: Tensor, num_shared: int, values: Tensor | bool) -> Tensor:
    """Place values at their columns of the shared ids, with ``fill`` elsewhere ``[C, M]``; columns of -1 are dropped."""
    # An additional column, cut off below, takes these.
    wide = fill.repeat(len(columns), num_shared + 1)
    places = torch.where(columns < 0, num_shared, columns)
    return wide.scatter_(1, places, values)[:, :-1]


def aligned_divergence(
    log_p_TV: Tensor,
    log_q_NU: Tensor,
    ours: ChunkTokens,
    theirs: ChunkTokens,
    shared: SharedColumns,
    measure: Divergence,
) -> Tensor:
    """Divergence of a student from a teacher with another tokenizer, for each chunk ``[C]``.

    A chunk is a piece of text that consists of whole tokens in both tokenizers. Both sides are compared over the outcomes at its
    beginning, where they have read the same text:

    * every shared id v (same bytes in both), with p(v) and q(v);
    * the chunk itself, with the product of its tokens' probabilities on each side, if it is more than a single shared token. The
      shared ids that it begins with are not outcomes then, since they are part of the path to it;
    * everything else.

    Both are distributions, and grouping outcomes never increases a divergence. With equal tokenizers every chunk is a single
    shared token and every id is shared: this is the plain divergence over the vocabulary. The products are the likelihoods of ALM
    (Minixhofer et al., arXiv 2503.20083); comparing shared ids with their full distributions is from GOLD (Hugging Face 2025),
    instead of ULD's sorted probabilities (arXiv 2402.12030).

    Args:
        log_p_TV: log-probabilities of the student at each token of the chunks; differentiable.
        log_q_NU: log-probabilities of the teacher, at its own tokens.
        ours: the student's tokens.
        theirs: the teacher's.
        shared: ids of both.
        measure: the divergence; its temperature is already applied to the log-probabilities.
    """
    begins = _begins(ours, theirs, shared)
    single = _single(ours, theirs, begins)
    alone = _outside(begins, single, len(shared.ours))
    log_p = outcomes(log_p_TV, ours, shared.ours, shared.column, alone, ~single)
    log_q = outcomes(log_q_NU, theirs, shared.theirs, shared.their_column, alone, ~single)
    return divergence(log_p, log_q, measure.kind, measure.mixture)


def listed_divergence(
    log_p_TV: Tensor,
    listed: TopK,
    ours: ChunkTokens,
    theirs: ChunkTokens,
    shared: SharedColumns,
    measure: Divergence,
) -> Tensor:
    """`aligned_divergence` from a teacher that lists its most likely ids at each of its tokens ``[C]``.

    Shared ids that are not listed count to the rest, and so does the chunk itself unless each of its tokens is listed at its
    position. This gives a lower bound, with equality if all ids are listed.

    Args:
        log_p_TV: as in `aligned_divergence`.
        listed: at each of the teacher's tokens: ids ``[N, K]``, their log-probabilities, and the log of the mass outside ``[N]``.
        ours, theirs, shared, measure: as in `aligned_divergence`.
    """
    begins, firsts = _begins(ours, theirs, shared), theirs.firsts
    log_q = listed.log_probs.to(log_p_TV.dtype).clamp(min=LOG_FLOOR)
    is_label_NK = listed.ids == theirs.labels[:, None]
    own_N = log_q.masked_fill(~is_label_NK, 0.0).sum(dim=-1)  # the ids of a list are distinct
    count_C = torch.zeros_like(firsts).index_add(0, theirs.chunk, is_label_NK.sum(dim=-1))
    chunk_C = torch.zeros_like(own_N[firsts]).index_add(0, theirs.chunk, own_N)
    single = _single(ours, theirs, begins)
    whole = ~single & (count_C == torch.bincount(theirs.chunk))
    # An id beyond the teacher's vocabulary is not shared.
    size = len(shared.their_column)
    columns_CK = shared.their_column[listed.ids[firsts].clamp(max=size - 1)].masked_fill(listed.ids[firsts] >= size, -1)
    num_shared = len(shared.ours)
    named_CM = _at_columns(firsts.new_zeros((), dtype=torch.bool), columns_CK, num_shared, True)
    alone = named_CM & _outside(begins, single, num_shared)
    spread_CM = _at_columns(log_q.new_tensor(LOG_FLOOR), columns_CK, num_shared, log_q[firsts])
    apart_CK = (columns_CK >= 0) & alone.gather(1, columns_CK.clamp(min=0))
    others_CK = log_q[firsts].masked_fill(apart_CK, LOG_FLOOR)
    tail_C = listed.tail[firsts].to(log_q.dtype).clamp(min=LOG_FLOOR)
    rest_C = torch.cat((others_CK, tail_C[:, None]), dim=-1).logsumexp(dim=-1)
    told = _with_chunk(spread_CM.masked_fill(~alone, LOG_FLOOR), chunk_C, rest_C, whole)
    log_p = outcomes(log_p_TV, ours, shared.ours, shared.column, alone, whole)
    return divergence(log_p, told, measure.kind, measure.mixture)


class AlignedTeacher(NamedTuple):
    """A teacher at its tokens of the chunks: final hidden states ``[N, E]``, its head's weight ``[U, E]``, and the tokens."""

    hidden: Tensor
    weight: Tensor
    tokens: ChunkTokens


class ListedTeacher(NamedTuple):
    """The most likely ids listed by a teacher at each of its tokens of the chunks ``[N, K]``, and the tokens."""

    listed: TopK
    tokens: ChunkTokens


class AlignedResult(NamedTuple):
    """``sum_c w_c D_c``, differentiable, and each chunk's D, detached ``[C]``."""

    loss: Tensor
    divergences: Tensor


def linear_alignment(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    ours: ChunkTokens,
    teacher: AlignedTeacher | ListedTeacher,
    shared: SharedColumns,
    weights_C: Tensor,
    measure: Divergence = Divergence(),  # noqa: B008 - frozen
    chunk_tokens: int | None = None,
) -> AlignedResult:
    """`aligned_divergence` from hidden states, a few chunks at a time, whose logits are recomputed in the backward.

    Args:
        hidden_TD: the student's final hidden states, which predict the tokens of the chunks.
        weight_VD: the student's head weight.
        ours: the student's tokens; if empty, the loss is 0 and still part of the graph.
        teacher: the same of the teacher, or its listed ids.
        shared: ids of both.
        weights_C: weight w of each chunk.
        measure: the divergence D.
        chunk_tokens: tokens whose logits are in memory at once; a longer chunk is computed as a whole.
    """
    if not len(ours.chunk):
        return AlignedResult(0.0 * (hidden_TD.sum() + weight_VD.sum()), hidden_TD.new_zeros(0))
    dtype = statistics_dtype(hidden_TD)
    most = chunk_tokens or max(16, tokens_per_chunk(weight_VD) // 4)
    loss = torch.zeros((), dtype=dtype, device=hidden_TD.device)
    found = []
    for own, their, chunks in _groups(ours, teacher.tokens, most):
        own_tokens, their_tokens = ours.part(own, chunks.start), teacher.tokens.part(their, chunks.start)
        told = _told(teacher, their, measure.temperature, dtype)

        def compared(
            hidden: Tensor,
            weight: Tensor,
            told: Tensor | TopK = told,
            own_tokens: ChunkTokens = own_tokens,
            their_tokens: ChunkTokens = their_tokens,
        ) -> Tensor:
            log_p = _log_probs(hidden, weight, measure.temperature, dtype)
            if isinstance(told, TopK):
                return listed_divergence(log_p, told, own_tokens, their_tokens, shared, measure)
            return aligned_divergence(log_p, told, own_tokens, their_tokens, shared, measure)

        values: Tensor = checkpoint(compared, hidden_TD[own], weight_VD, use_reentrant=False)
        loss = loss + (values * weights_C[chunks].to(dtype)).sum()
        found.append(values.detach())
    return AlignedResult(loss, torch.cat(found))


@torch.no_grad()
def _told(
    teacher: AlignedTeacher | ListedTeacher, tokens: slice, temperature: float, dtype: torch.dtype
) -> Tensor | TopK:
    """The teacher's side of a slice of its tokens, at its own temperature: log-probabilities ``[N, U]``, or its listed ids."""
    if isinstance(teacher, ListedTeacher):
        return TopK(*(part[tokens] for part in teacher.listed))
    return _log_probs(teacher.hidden[tokens], teacher.weight, temperature, dtype)


def _log_probs(hidden: Tensor, weight: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    return torch.log_softmax((hidden @ weight.t()).to(dtype) / temperature, dim=-1)


def _groups(ours: ChunkTokens, theirs: ChunkTokens, most: int) -> list[tuple[slice, slice, slice]]:
    """Group neighbouring chunks of at most ``most`` tokens in each tokenizer: their tokens in both, and their indices."""
    sizes, their_sizes = (torch.bincount(each.chunk).tolist() for each in (ours, theirs))
    groups: list[tuple[slice, slice, slice]] = []
    begin = end = (0, 0, 0)
    for size, their_size in zip(sizes, their_sizes, strict=True):
        full = end[0] - begin[0] + size > most or end[1] - begin[1] + their_size > most
        if full and end[2] > begin[2]:
            groups.append((slice(begin[0], end[0]), slice(begin[1], end[1]), slice(begin[2], end[2])))
            begin = end
        end = (end[0] + size, end[1] + their_size, end[2] + 1)
    groups.append((slice(begin[0], end[0]), slice(begin[1], end[1]), slice(begin[2], end[2])))
    return groups
