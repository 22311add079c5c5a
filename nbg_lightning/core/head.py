"""The language-model head without full logits: losses and statistics in chunks of tokens.

Shape suffixes: T tokens, V vocabulary, D hidden size.

With a vocabulary of 166,144 the logits of 4,096 tokens take 2.7 GB in float32, and their gradient as much again. The
functions here compute the logits of a chunk, use them, and drop them; peak additional memory is O(chunk x V). Gradients are
exact. The library's losses are built on these functions.

Why not torch's `linear_cross_entropy`: it returns a reduced loss, but the losses here need weights and per-token losses. In
fp32 on a CPU this takes 0.10 times its processor time (1,024 tokens, 8,192 ids; quartiles 0.09 to 0.17), and 128 MB where it
takes 82 MB and full logits 899 MB (512 tokens, 166,144 ids, hidden size 128):
benchmarks/performance/results/loss_head_torch.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nbg_lightning.core.batch import IGNORE
from nbg_lightning.core.products import multiply, multiply_into, uses_onednn

# One buffer holds the logits of a chunk, then their gradient: 128 MB is enough tokens for an efficient matrix product.
_BYTES_PER_CHUNK = {"cpu": 2**27, "cuda": 2**30}
# On a CPU the softmax of a chunk runs over blocks of rows that fit in the cache.
_ELEMENTS_PER_BLOCK = 2**21
# The weight's gradient is accumulated in float32 by slices of the vocabulary, so that there is never a second full copy.
_ELEMENTS_PER_SLICE = 2**24

T = TypeVar("T")


_planned_for: str | None = None


@contextmanager
def chunks_as_on(device_type: str) -> Iterator[None]:
    """Choose chunk sizes as on another device type, to plan its memory on this one."""
    global _planned_for
    before, _planned_for = _planned_for, device_type
    try:
        yield
    finally:
        _planned_for = before


def device_type_of(tensor: Tensor) -> str:
    """The device type of a tensor, or the one that is planned for."""
    return _planned_for or tensor.device.type


def parts_to_run(parts: Sequence[T]) -> Sequence[T]:
    """All iterations of a loop over chunks; when planning memory only the first two, since later ones reuse freed memory."""
    return parts if _planned_for is None else parts[:2]


def tokens_per_chunk(weight_VD: Tensor) -> int:
    """Number of tokens whose logits are in memory at once (a multiple of 16, at least 16)."""
    budget = _BYTES_PER_CHUNK.get(device_type_of(weight_VD), 2**27)
    return max(16, budget // (weight_VD.shape[0] * weight_VD.element_size()) // 16 * 16)


class CrossEntropy(NamedTuple):
    """Result of `linear_cross_entropy`: the weighted sum (differentiable) and each token's loss (detached)."""

    loss: Tensor
    token_losses: Tensor


class TokenStatistics(NamedTuple):
    """Per-token log-probability of the label and entropy of the prediction, both ``[T]`` float32, in nats."""

    log_probs: Tensor
    entropies: Tensor


def logit_chunks(hidden_TD: Tensor, weight_VD: Tensor, chunk: int) -> Iterator[tuple[slice, Tensor]]:
    """Compute the logits chunk by chunk in one buffer; yields each slice of tokens with its logits."""
    buffer = hidden_TD.new_empty(min(chunk, len(hidden_TD)), weight_VD.shape[0])
    for begin in parts_to_run(range(0, len(hidden_TD), chunk)):
        tokens = slice(begin, min(begin + chunk, len(hidden_TD)))
        yield tokens, multiply_into(buffer[: tokens.stop - begin], hidden_TD[tokens], weight_VD.t())


def _blocks(logits_TV: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows of a chunk in float32 (float64 stays): views if the dtype allows, otherwise copies to write back."""
    rows = max(1, _ELEMENTS_PER_BLOCK // logits_TV.shape[1]) if device_type_of(logits_TV) == "cpu" else len(logits_TV)
    for begin in parts_to_run(range(0, len(logits_TV), rows)):
        block = slice(begin, begin + rows)
        yield block, logits_TV[block].to(statistics_dtype(logits_TV))


def statistics_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


class Normalizer(NamedTuple):
    """Turns logits into log-probabilities: ``z - peak - log_sum`` with ``log_sum = log sum exp(z - peak)``, ``[T, 1]`` each.

    The two terms are subtracted one after the other: their sum would carry the rounding error of the peak, which is 1 % of the
    loss of a token predicted with 99.99 % at a logit of 20.
    """

    peak: Tensor
    log_sum: Tensor

    @classmethod
    def of(cls, z_TV: Tensor, labels_T1: Tensor | None = None) -> Normalizer:
        """The normalizer of each row of logits; with labels, full precision for log-probabilities of labels near 0."""
        peak_T1 = z_TV.amax(dim=-1, keepdim=True)
        exponentials = (z_TV - peak_T1).exp_()
        if labels_T1 is None:
            return cls(peak_T1, exponentials.sum(dim=-1, keepdim=True).log_())
        return cls(peak_T1, _log_sum(*_take_out(exponentials, labels_T1)))

    def apply_(self, z_TV: Tensor) -> Tensor:
        """Replace (some of) the logits of the rows by log-probabilities, in place."""
        return z_TV.sub_(self.peak).sub_(self.log_sum)

    def rows(self, rows: slice) -> Normalizer:
        """The normalizer of some rows."""
        return Normalizer(self.peak[rows], self.log_sum[rows])


def _take_out(exponentials_TV: Tensor, labels_T1: Tensor) -> tuple[Tensor, Tensor]:
    """The label's ``exp(z - peak)`` and the sum of all others, ``[T, 1]``; sets the label's to 0."""
    own_T1 = exponentials_TV.gather(-1, labels_T1)
    return own_T1, exponentials_TV.scatter_(-1, labels_T1, 0.0).sum(dim=-1, keepdim=True)


def _log_sum(own_T1: Tensor, others_T1: Tensor) -> Tensor:
    """``log(own + others)`` without the rounding error of ``1 + small``: the one with the peak is at least 1."""
    return torch.log1p(others_T1 + (own_T1 - 1.0))


def _write_back(logits_TV: Tensor, block: slice, values: Tensor) -> None:
    if values.dtype != logits_TV.dtype:
        logits_TV[block] = values


class WeightGradient:
    """``sum over chunks of grad_logits.T @ hidden``, accumulated in float32 (float64 stays) unless there is only one chunk."""

    def __init__(self, weight_VD: Tensor, num_chunks: int):
        self.weight = weight_VD
        dtype = weight_VD.dtype if num_chunks == 1 else statistics_dtype(weight_VD)
        self.total = torch.empty_like(weight_VD, dtype=dtype)
        self.empty = True

    def add(self, grad_logits_TV: Tensor, hidden_TD: Tensor) -> None:
        keep = 0 if self.empty else 1
        if self.total.dtype == grad_logits_TV.dtype and not uses_onednn(grad_logits_TV, self.weight):
            torch.addmm(self.total, grad_logits_TV.t(), hidden_TD, beta=keep, out=self.total)
        else:
            rows = max(1, _ELEMENTS_PER_SLICE // self.weight.shape[1])
            for begin in parts_to_run(range(0, len(self.total), rows)):
                part = multiply(grad_logits_TV[:, begin : begin + rows].t(), hidden_TD)
                target = self.total[begin : begin + rows]
                target.copy_(part) if self.empty else target.add_(part)
        self.empty = False

    def result(self) -> Tensor:
        return torch.zeros_like(self.weight) if self.empty else self.total.to(self.weight.dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    """One pass: gradients are computed while a chunk's logits are in memory, and only scaled in the backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, weights_T: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        token_losses = torch.empty(len(hidden_TD), dtype=statistics_dtype(hidden_TD), device=hidden_TD.device)
        grad_hidden = torch.empty_like(hidden_TD) if needs_hidden else None
        grad_weight = WeightGradient(weight_VD, -(-len(hidden_TD) // chunk)) if needs_weight else None
        trained_T = labels_T != IGNORE
        targets_T1 = torch.where(trained_T, labels_T, 0)[:, None]
        scale_T1 = torch.where(trained_T, weights_T, 0.0)[:, None].to(token_losses.dtype)
        for tokens, logits in logit_chunks(hidden_TD, weight_VD, chunk):
            losses, targets, scales = token_losses[tokens], targets_T1[tokens], scale_T1[tokens]
            for block, z in _blocks(logits):
                label_logits = z.gather(-1, targets[block])
                peak = z.amax(dim=-1, keepdim=True)
                # In place from here on: logits become exponentials, then the gradient.
                own, others = _take_out(z.sub_(peak).exp_(), targets[block])
                losses[block] = (_log_sum(own, others) - (label_logits - peak)).squeeze(-1)
                if needs_hidden or needs_weight:
                    scale = scales[block] / (own + others)
                    z.mul_(scale).scatter_(-1, targets[block], -others * scale)  # p - 1 = -others / sum
                    _write_back(logits, block, z)
            if grad_hidden is not None:
                multiply_into(grad_hidden[tokens], logits, weight_VD)
            if grad_weight is not None:
                grad_weight.add(logits, hidden_TD[tokens])
        token_losses.masked_fill_(~trained_T, 0.0)
        ctx.grads = (grad_hidden, None if grad_weight is None else grad_weight.result())
        ctx.mark_non_differentiable(token_losses)
        return (token_losses.double() * weights_T).sum().to(token_losses.dtype), token_losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _grad_token_losses: Tensor) -> tuple[Tensor | None, ...]:
        assert ctx.grads is not None, "linear_cross_entropy keeps its gradients for one backward only"
        grads, ctx.grads = ctx.grads, None
        return *(grad if grad is None else grad.mul_(grad_loss) for grad in grads), None, None, None


def linear_cross_entropy(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    token_weights_T: Tensor | None = None,
    chunk_tokens: int | None = None,
) -> CrossEntropy:
    """Weighted sum of token cross-entropies of ``hidden @ weight.T``, without materializing ``[T, V]``.

    ``loss = sum_t w_t (logsumexp_v z_tv - z_t,label)``. There is no denominator: divide by the global number of trained
    tokens, or fold it into the weights. Matrix products run in the dtype of the inputs; the softmax, the loss and the sum of
    the weight's gradient over chunks are float32 (float64 for float64 inputs).

    Args:
        hidden_TD: final hidden states, ``[..., D]``.
        weight_VD: the head's weight.
        labels_T: next-token ids, ``[...]``; `IGNORE` for positions without a loss.
        token_weights_T: loss weight of each token, 1 by default.
        chunk_tokens: tokens per chunk; by default as many as fit 128 MB of logits (1 GB on CUDA).

    Returns:
        The loss, and the unweighted loss of every token (0 where ignored), detached, in the labels' shape.
    """
    hidden = hidden_TD.flatten(0, -2)
    labels = labels_T.flatten()
    weights = torch.ones_like(labels, dtype=torch.float32) if token_weights_T is None else token_weights_T.flatten()
    chunk = chunk_tokens or tokens_per_chunk(weight_VD)
    loss, token_losses = _LinearCrossEntropy.apply(hidden, weight_VD, labels, weights, chunk)  # type: ignore[no-untyped-call]
    return CrossEntropy(loss, token_losses.view(labels_T.shape))


def _weighted(p: Tensor, log_p: Tensor) -> Tensor:
    """``p x log p`` in place of ``log_p``, with its limit 0 where p underflows (log p may be -inf there)."""
    return log_p.mul_(p).nan_to_num_(nan=0.0)


class _LinearTokenStatistics(torch.autograd.Function):
    """Logits are computed in the forward, and recomputed chunk by chunk in the backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        log_probs = torch.empty(len(hidden_TD), dtype=statistics_dtype(hidden_TD), device=hidden_TD.device)
        entropies = torch.empty_like(log_probs)
        normalizer = Normalizer(torch.empty_like(log_probs)[:, None], torch.empty_like(log_probs)[:, None])
        for tokens, logits in logit_chunks(hidden_TD, weight_VD, chunk):
            for block, z in _blocks(logits):
                rows = slice(tokens.start + block.start, tokens.start + block.start + len(z))
                own = Normalizer.of(z.div_(temperature), labels_T[rows, None])
                normalizer.peak[rows], normalizer.log_sum[rows] = own
                log_p = own.apply_(z)
                log_probs[rows] = log_p.gather(-1, labels_T[rows, None]).squeeze(-1)
                entropies[rows] = -_weighted(log_p.exp(), log_p).sum(dim=-1)
        ctx.save_for_backward(hidden_TD, weight_VD, labels_T, entropies, *normalizer)
        ctx.temperature, ctx.chunk = temperature, chunk
        return log_probs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_log_probs: Tensor, grad_entropies: Tensor) -> tuple[Tensor | None, ...]:
        hidden_TD, weight_VD, labels_T, entropies, peak_T1, log_sum_T1 = ctx.saved_tensors
        normalizer = Normalizer(peak_T1, log_sum_T1)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden_TD) if needs_hidden else None
        grad_weight = WeightGradient(weight_VD, -(-len(hidden_TD) // ctx.chunk)) if needs_weight else None
        for tokens, logits in logit_chunks(hidden_TD, weight_VD, ctx.chunk):
            for block, z in _blocks(logits):
                rows = slice(tokens.start + block.start, tokens.start + block.start + len(z))
                grad_lp, grad_h = grad_log_probs[rows, None], grad_entropies[rows, None]
                log_p = normalizer.rows(rows).apply_(z.div_(ctx.temperature))
                p = log_p.exp()
                # d log p_y / dz = 1_y - p;   d H / dz = -p (log p + H)
                grad = _weighted(p, log_p.add_(entropies[rows, None])).mul_(-grad_h)
                grad.addcmul_(p, grad_lp, value=-1.0).scatter_add_(-1, labels_T[rows, None], grad_lp)
                logits[block] = grad.div_(ctx.temperature)
            if grad_hidden is not None:
                multiply_into(grad_hidden[tokens], logits, weight_VD)
            if grad_weight is not None:
                grad_weight.add(logits, hidden_TD[tokens])
        return grad_hidden, None if grad_weight is None else grad_weight.result(), None, None, None


def linear_token_statistics(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
) -> TokenStatistics:
    """Log-probability of each label and entropy of each prediction under ``softmax(hidden @ weight.T / temperature)``.

    Both are exactly differentiable. Tokens labelled `IGNORE` get the log-probability of token 0: mask them.

    Args:
        hidden_TD: final hidden states, ``[..., D]``.
        weight_VD: the head's weight.
        labels_T: token ids, ``[...]``.
        temperature: divisor of the logits (for rollouts, that of the sampler).
        chunk_tokens: as in `linear_cross_entropy`.

    Returns:
        ``TokenStatistics`` in the labels' shape.
    """
    if temperature <= 0:
        raise ValueError(
            f"temperature is invalid: {temperature}; give a number above 0, since greedy decoding has no log-probabilities"
        )
    hidden = hidden_TD.flatten(0, -2)
    labels = labels_T.flatten()
    labels = torch.where(labels == IGNORE, 0, labels)  # any other label out of range raises
    chunk = chunk_tokens or tokens_per_chunk(weight_VD)
    log_probs, entropies = _LinearTokenStatistics.apply(hidden, weight_VD, labels, temperature, chunk)  # type: ignore[no-untyped-call]
    return TokenStatistics(log_probs.view(labels_T.shape), entropies.view(labels_T.shape))


class TokenScores(NamedTuple):
    """Cross-entropy of each token in nats (0 if ignored), and whether the label was the most likely id; without gradients."""

    losses: Tensor
    correct: Tensor


@torch.no_grad()
def linear_token_scores(
    hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, chunk_tokens: int | None = None
) -> TokenScores:
    """Per-token values for validation, from one pass over the logits of ``hidden @ weight.T`` in chunks.

    Args:
        hidden_TD: final hidden states, ``[..., D]``.
        weight_VD: the head's weight.
        labels_T: next-token ids, ``[...]``; `IGNORE` for unknown ones: loss 0, not correct.
        chunk_tokens: as in `linear_cross_entropy`.

    Returns:
        ``TokenScores`` in the labels' shape: float32 (float64 for float64 inputs) and bool.
    """
    hidden, labels = hidden_TD.flatten(0, -2), labels_T.flatten()
    known = labels != IGNORE
    targets = torch.where(known, labels, 0)
    losses = torch.zeros(len(hidden), dtype=statistics_dtype(hidden), device=hidden.device)
    correct = torch.zeros_like(known)
    for tokens, logits in logit_chunks(hidden, weight_VD, chunk_tokens or tokens_per_chunk(weight_VD)):
        for block, z in _blocks(logits):
            rows = slice(tokens.start + block.start, tokens.start + block.start + len(z))
            label_logits = z.gather(-1, targets[rows, None])
            correct[rows] = z.argmax(dim=-1) == targets[rows]
            losses[rows] = -Normalizer.of(z, targets[rows, None]).apply_(label_logits).squeeze(-1)
    return TokenScores(losses.mul_(known).view(labels_T.shape), (correct & known).view(labels_T.shape))


HeadFunction = Callable[[Tensor, Tensor], T]
