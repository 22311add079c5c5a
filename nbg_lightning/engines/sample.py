"""Sampling of a token per row of logits from one random number per row: stateless, and independent of the order of rows.

Shape suffixes: B rows, V vocabulary, C candidates (most likely first).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nbg_lightning.engines.protocol import Sampling

# The cumulative sum over the vocabulary is computed in two levels: over blocks, and inside the selected block.
_BLOCK = 64
# Number of most likely tokens to sort before falling back to the whole vocabulary, to find top-p's kept set.
_CANDIDATES = 256
# SplitMix64 (Steele, Lea, Flood 2014: "Fast splittable pseudorandom number generators"), as signed 64-bit numbers.
_GAMMA, _FIRST, _SECOND = (c - 2**64 for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Drawn(NamedTuple):
    """The sampled token of each row and its log-probability, ``[B]``; NaN if the logits are not finite."""

    tokens: Tensor
    log_probs: Tensor


def uniform(seeds_B: Tensor, steps_B: Tensor) -> Tensor:
    """A number in [0, 1) for each (seed, step), float64, by SplitMix64 with 53 random bits.

    Example:
        >>> seeds, steps = torch.tensor([5, 6]), torch.tensor([0, 3])
        >>> bool(uniform(seeds, steps)[1] == uniform(seeds[1:], steps[1:])[0])
        True
    """
    x = seeds_B + (steps_B + 1) * _GAMMA
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return _shift(x ^ _shift(x, 31), 11).double() * 2.0**-53


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's is arithmetic."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


def draw(logits_BV: Tensor, sampling: Sampling, seeds_B: Tensor, steps_B: Tensor) -> Drawn:
    """Sample token number ``steps`` of each row; may overwrite the logits.

    By inversion: returns the first token at which the cumulative probability exceeds the row's number.
    """
    if sampling.greedy:
        tokens = logits_BV.max(dim=-1).indices  # three times as fast as argmax on a CPU
        return Drawn(tokens, _log_probability(torch.softmax(logits_BV, dim=-1), tokens))
    if sampling.temperature != 1.0:
        logits_BV.div_(sampling.temperature)
    probabilities = torch.softmax(logits_BV, dim=-1)
    numbers = uniform(seeds_B, steps_B)
    if not sampling.truncated:
        tokens = _invert_blocks(probabilities, numbers)
        return Drawn(tokens, _log_probability(probabilities, tokens))
    kept_BC, order_BC = truncate(probabilities, sampling.top_p, sampling.top_k)
    rank = _invert(kept_BC.cumsum(dim=-1, dtype=torch.float64), numbers)
    total = kept_BC.sum(dim=-1, dtype=torch.float64)
    log_probs = (kept_BC.gather(1, rank[:, None]).squeeze(1) / total).log().float()
    return Drawn(order_BC.gather(1, rank[:, None]).squeeze(1), log_probs)


def _log_probability(probabilities_BV: Tensor, tokens_B: Tensor) -> Tensor:
    return probabilities_BV.gather(1, tokens_B[:, None]).squeeze(1).log()


def truncate(probabilities_BV: Tensor, top_p: float, top_k: int) -> tuple[Tensor, Tensor]:
    """Probabilities of the kept tokens, most likely first and 0 for the others, with their ids, both ``[B, C]``.

    Top-k is applied first, then top-p to the renormalized result (the order of transformers and vLLM). The token at which
    the sum reaches ``top_p`` is kept; at least one is.
    """
    vocab = probabilities_BV.shape[1]
    if 0 < top_k < vocab:
        likeliest, order = torch.topk(probabilities_BV, top_k, dim=-1)
        sums = likeliest.cumsum(dim=-1, dtype=torch.float64)
        needed = top_p * sums[:, -1:]
    else:  # sort no more than top-p needs: for a trained model some hundred of a hundred thousand tokens
        for candidates in sorted({min(count, vocab) for count in (_CANDIDATES, 4 * _CANDIDATES, vocab)}):
            likeliest, order = torch.topk(probabilities_BV, candidates, dim=-1)
            sums = likeliest.cumsum(dim=-1, dtype=torch.float64)
            needed = torch.full_like(sums[:, -1:], top_p)
            if bool((sums[:, -1:] >= needed).all()):
                break
    before = sums - likeliest
    if top_p < 1:
        dropped = before >= needed
        dropped[:, 0] = False
        likeliest = likeliest.masked_fill(dropped, 0.0)
    return likeliest, order


def _invert(sums_BC: Tensor, numbers_B: Tensor) -> Tensor:
    """First index at which the cumulative sums exceed ``number x total``; never one with zero probability."""
    target = (numbers_B * sums_BC[:, -1]).clamp(max=sums_BC[:, -1] * (1 - 2.0**-50))
    index = torch.searchsorted(sums_BC, target[:, None], right=True).squeeze(1)
    return index.clamp_(max=sums_BC.shape[1] - 1)  # only reached with NaN


def _invert_blocks(probabilities_BV: Tensor, numbers_B: Tensor) -> Tensor:
    """`_invert` for the cumulative sums of a whole vocabulary, without computing them."""
    rows, vocab = probabilities_BV.shape
    if vocab % _BLOCK:
        probabilities_BV = torch.nn.functional.pad(probabilities_BV, (0, _BLOCK - vocab % _BLOCK))
    blocks = probabilities_BV.view(rows, -1, _BLOCK)
    sums = blocks.sum(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    block = _invert(sums, numbers_B)[:, None]
    end = sums.gather(1, block).squeeze(1)
    inside = blocks[torch.arange(rows, device=block.device), block.squeeze(1)].cumsum(dim=-1, dtype=torch.float64)
    begin = end - inside[:, -1]
    share = ((numbers_B * sums[:, -1] - begin) / inside[:, -1]).clamp(0.0, 1.0)
    return (block.squeeze(1) * _BLOCK + _invert(inside, share)).clamp_(max=vocab - 1)  # only exceeded with NaN
