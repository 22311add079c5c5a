"""The language-model head without logits: losses and statistics in chunks of tokens.

Shape suffixes: T tokens, V vocabulary, D hidden size.

With a vocabulary of 166,144 the logits of 4,096 tokens weigh 2.7 GB in float32, and their gradient as much again. Both
functions here make the logits of a chunk, use them, and drop them; peak extra memory is O(chunk x V). Gradients are exact.
Losses elsewhere in the library are written on these two functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nbg_lightning.data.batch import IGNORE

# Logits of a chunk are held in float32: 2**25 of them are 128 MB, enough tokens to keep the matrix product efficient.
_LOGITS_PER_CHUNK = {"cpu": 2**25, "cuda": 2**27}

T = TypeVar("T")


def tokens_per_chunk(vocab_size: int, device: torch.device) -> int:
    """How many tokens' logits are alive at once (a multiple of 16, at least 16)."""
    return max(16, _LOGITS_PER_CHUNK.get(device.type, 2**25) // vocab_size // 16 * 16)


class CrossEntropy(NamedTuple):
    """Result of `linear_cross_entropy`: the weighted sum (differentiable) and each token's loss (detached)."""

    loss: Tensor
    token_losses: Tensor


class TokenStatistics(NamedTuple):
    """Per-token log-probability of the label and entropy of the prediction, both ``[T]`` float32, in nats."""

    log_probs: Tensor
    entropies: Tensor


def _accumulator(weight_VD: Tensor, num_chunks: int) -> Tensor:
    """Where the weight's gradient is summed over chunks: float32 (float64 stays) unless one chunk is all there is."""
    dtype = weight_VD.dtype if num_chunks == 1 else torch.promote_types(weight_VD.dtype, torch.float32)
    return torch.zeros_like(weight_VD, dtype=dtype)


def _add_outer(accumulator_VD: Tensor, left_TV: Tensor, right_TD: Tensor) -> None:
    """``accumulator += left.T @ right``, in place where the dtypes agree."""
    if accumulator_VD.dtype == left_TV.dtype:
        accumulator_VD.addmm_(left_TV.t(), right_TD)
    else:
        accumulator_VD += left_TV.t() @ right_TD


def _float_logits(hidden_TD: Tensor, weight_VD: Tensor) -> Tensor:
    return F.linear(hidden_TD, weight_VD).to(torch.promote_types(hidden_TD.dtype, torch.float32))


class _LinearCrossEntropy(torch.autograd.Function):
    """One pass: the gradients of a chunk are made while its logits are there, and only scaled in the backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, weights_T: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        num_chunks = -(-len(hidden_TD) // chunk)
        statistics = torch.promote_types(hidden_TD.dtype, torch.float32)
        token_losses = torch.empty(len(hidden_TD), dtype=statistics, device=hidden_TD.device)
        grad_hidden = torch.empty_like(hidden_TD) if needs_hidden else None
        grad_weight = _accumulator(weight_VD, num_chunks) if needs_weight else None
        for begin in range(0, len(hidden_TD), chunk):
            tokens = slice(begin, begin + chunk)
            hidden, labels = hidden_TD[tokens], labels_T[tokens]
            trained = labels != IGNORE
            targets = torch.where(trained, labels, 0)[:, None]
            logits = _float_logits(hidden, weight_VD)
            peak = logits.amax(dim=-1, keepdim=True)
            label_logits = logits.gather(-1, targets)
            # In place from here on: the chunk's logits become exponentials, probabilities, and at last the gradient.
            sums = logits.sub_(peak).exp_().sum(dim=-1, keepdim=True)
            losses = (sums.log() + peak - label_logits).squeeze(-1)
            token_losses[tokens] = losses.masked_fill_(~trained, 0.0)
            if not (needs_hidden or needs_weight):
                continue
            scale = torch.where(trained, weights_T[tokens], 0.0)[:, None].to(logits.dtype)
            grad_logits = logits.mul_(scale / sums)
            grad_logits.scatter_add_(-1, targets, -scale)
            grad_logits = grad_logits.to(hidden_TD.dtype)
            if grad_hidden is not None:
                torch.mm(grad_logits, weight_VD, out=grad_hidden[tokens])
            if grad_weight is not None:
                _add_outer(grad_weight, grad_logits, hidden)
        ctx.grads = (grad_hidden, grad_weight if grad_weight is None else grad_weight.to(weight_VD.dtype))
        ctx.mark_non_differentiable(token_losses)
        return (token_losses.double() * weights_T).sum().to(statistics), token_losses

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
    """Weighted sum of token cross-entropies of ``hidden @ weight.T``, without ever holding ``[T, V]``.

    ``loss = sum_t w_t (logsumexp_v z_tv - z_t,label)``. There is no denominator: divide by the global count of trained
    tokens, or put that into the weights. Products run in the dtype of the inputs; the softmax, the loss and the sum of
    the weight's gradient over chunks are float32 (float64 for float64 inputs).

    Args:
        hidden_TD: final hidden states, ``[..., D]``.
        weight_VD: the head's weight.
        labels_T: next-token ids, ``[...]``; `IGNORE` where nothing is trained.
        token_weights_T: weight of each token's loss, 1 by default.
        chunk_tokens: tokens a chunk; by default what fits 128 MB of float32 logits (512 MB on CUDA).

    Returns:
        The loss, and the unweighted loss of every token (0 where ignored), detached, in the labels' shape.
    """
    hidden = hidden_TD.flatten(0, -2)
    labels = labels_T.flatten()
    weights = torch.ones_like(labels, dtype=torch.float32) if token_weights_T is None else token_weights_T.flatten()
    chunk = chunk_tokens or tokens_per_chunk(weight_VD.shape[0], hidden.device)
    loss, token_losses = _LinearCrossEntropy.apply(hidden, weight_VD, labels, weights, chunk)
    return CrossEntropy(loss, token_losses.view(labels_T.shape))


class _LinearTokenStatistics(torch.autograd.Function):
    """Logits are made once in the forward, and again chunk by chunk in the backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        statistics = torch.promote_types(hidden_TD.dtype, torch.float32)
        shape = dict(size=(len(hidden_TD),), dtype=statistics, device=hidden_TD.device)
        log_probs, entropies, normalizers = (torch.empty(**shape) for _ in range(3))
        for begin in range(0, len(hidden_TD), chunk):
            tokens = slice(begin, begin + chunk)
            logits = _float_logits(hidden_TD[tokens], weight_VD).div_(temperature)
            normalizer = logits.logsumexp(dim=-1)
            log_probs[tokens] = logits.gather(-1, labels_T[tokens, None]).squeeze(-1) - normalizer
            log_p = logits.sub_(normalizer[:, None])
            entropies[tokens] = -(log_p.exp() * log_p).nan_to_num_(0.0).sum(dim=-1)
            normalizers[tokens] = normalizer
        ctx.save_for_backward(hidden_TD, weight_VD, labels_T, entropies, normalizers)
        ctx.temperature, ctx.chunk = temperature, chunk
        return log_probs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_log_probs: Tensor, grad_entropies: Tensor) -> tuple[Tensor | None, ...]:
        hidden_TD, weight_VD, labels_T, entropies, normalizers = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        num_chunks = -(-len(hidden_TD) // ctx.chunk)
        grad_hidden = torch.empty_like(hidden_TD) if needs_hidden else None
        grad_weight = _accumulator(weight_VD, num_chunks) if needs_weight else None
        for begin in range(0, len(hidden_TD), ctx.chunk):
            tokens = slice(begin, begin + ctx.chunk)
            hidden = hidden_TD[tokens]
            log_p = _float_logits(hidden, weight_VD).div_(ctx.temperature).sub_(normalizers[tokens, None])
            grad_lp, grad_h = grad_log_probs[tokens, None], grad_entropies[tokens, None]
            p = log_p.exp()
            # d log p_y / dz = 1_y - p;   d H / dz = -p (log p + H);   p log p -> 0 where p underflows
            grad_logits = (log_p.add_(entropies[tokens, None])).mul_(p).nan_to_num_(0.0).mul_(-grad_h)
            grad_logits.addcmul_(p, grad_lp, value=-1.0)
            grad_logits.scatter_add_(-1, labels_T[tokens, None], grad_lp)
            grad_logits = grad_logits.div_(ctx.temperature).to(hidden_TD.dtype)
            if grad_hidden is not None:
                torch.mm(grad_logits, weight_VD, out=grad_hidden[tokens])
            if grad_weight is not None:
                _add_outer(grad_weight, grad_logits, hidden)
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight_VD.dtype), None, None, None


def linear_token_statistics(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
) -> TokenStatistics:
    """Log-probability of each label and entropy of each prediction under ``softmax(hidden @ weight.T / temperature)``.

    Both are differentiable, exactly. Tokens labelled `IGNORE` are given the log-probability of token 0: mask them.

    Args:
        hidden_TD: final hidden states, ``[..., D]``.
        weight_VD: the head's weight.
        labels_T: token ids, ``[...]``.
        temperature: what logits are divided by (that of the sampler, for rollouts).
        chunk_tokens: as in `linear_cross_entropy`.

    Returns:
        ``TokenStatistics`` in the labels' shape.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}: greedy decoding has no log-probabilities")
    hidden = hidden_TD.flatten(0, -2)
    labels = labels_T.flatten().clamp(min=0)
    chunk = chunk_tokens or tokens_per_chunk(weight_VD.shape[0], hidden.device)
    log_probs, entropies = _LinearTokenStatistics.apply(hidden, weight_VD, labels, temperature, chunk)
    return TokenStatistics(log_probs.view(labels_T.shape), entropies.view(labels_T.shape))


HeadFunction = Callable[[Tensor, Tensor], T]
