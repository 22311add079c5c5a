"""Packing of items of different lengths into bins of fixed capacity: which samples share a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

# Free spaces are found through words of this many bits: one flag word for every 512 free spaces, and one flag word for every
# 512 of those words. Python's integers process such a word in one step.
WORD_BITS = 9
WORD_MASK = (1 << WORD_BITS) - 1


def _checked(lengths: ArrayLike, capacity: int, name: str) -> np.ndarray:
    """Lengths as an int64 vector, all in 1..capacity."""
    if capacity < 1:
        raise ValueError(f"{name} is invalid: {capacity}; give at least 1")
    array = np.asarray(lengths)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"lengths are invalid: shape {array.shape} of {array.dtype}; give a vector of integers")
    array = array.astype(np.int64)
    if array.size and array.min() < 1:
        raise ValueError(f"length is invalid: {array.min()} at index {array.argmin()}; drop what is empty first")
    if array.size and array.max() > capacity:
        raise ValueError(
            f"length {array.max()} at index {array.argmax()} is more than {name}={capacity}; drop or truncate it first"
        )
    return array


def best_fit_decreasing(lengths: ArrayLike, capacity: int) -> list[list[int]]:
    """Pack items into bins: longest first, each into the fullest bin that has room for it.

    Needs at most 11/9 of the optimal number of bins plus 6/9 (Johnson et al. 1974; Dósa 2007 for the constant). Bins with
    the same free space are on a stack, and flags mark the non-empty stacks, so that an item costs O(1) after the sort:
    O(n log n) in total. Ties are broken by index: the result is a pure function of the arguments.

    Args:
        lengths: n item lengths in tokens, each in 1..capacity.
        capacity: capacity of a bin in tokens.

    Returns:
        The indices of the items of each bin, longest first.

    Raises:
        ValueError: a length below 1 or above the capacity, naming its index.

    Example:
        >>> best_fit_decreasing([5, 7, 3, 5], capacity=10)
        [[1, 2], [0, 3]]
    """
    array = _checked(lengths, capacity, "capacity")
    order = np.argsort(-array, kind="stable")
    stacks: dict[int, list[int]] = {}  # free space -> bins that have it
    words = [0] * ((capacity >> WORD_BITS) + 1)  # flags of the free spaces that have bins
    upper = [0] * ((len(words) >> WORD_BITS) + 1)  # flags of the words that are not 0
    bins: list[list[int]] = []
    for index, length in zip(order.tolist(), array[order].tolist(), strict=True):
        free = _next_flag(words, upper, length)
        if free < 0:
            number = len(bins)
            bins.append([index])
            free = capacity
        else:
            stack = stacks[free]
            number = stack.pop()
            bins[number].append(index)
            if not stack:
                word = free >> WORD_BITS
                words[word] &= ~(1 << (free & WORD_MASK))
                if not words[word]:
                    upper[word >> WORD_BITS] &= ~(1 << (word & WORD_MASK))
        free -= length
        if free:
            stack = stacks.setdefault(free, [])
            if not stack:
                word = free >> WORD_BITS
                words[word] |= 1 << (free & WORD_MASK)
                upper[word >> WORD_BITS] |= 1 << (word & WORD_MASK)
            stack.append(number)
    return bins


def _next_flag(words: list[int], upper: list[int], start: int) -> int:
    """Smallest flagged number >= start, or -1."""
    word = start >> WORD_BITS
    rest = words[word] >> (start & WORD_MASK)
    if rest:
        return start + (rest & -rest).bit_length() - 1
    word += 1
    block = word >> WORD_BITS
    if block >= len(upper):
        return -1
    rest = upper[block] >> (word & WORD_MASK)
    while not rest:
        block += 1
        if block >= len(upper):
            return -1
        rest = upper[block]
        word = block << WORD_BITS
    word += (rest & -rest).bit_length() - 1
    flags = words[word]
    return (word << WORD_BITS) + (flags & -flags).bit_length() - 1


def packing_efficiency(bins: Sequence[Sequence[int]], lengths: ArrayLike, capacity: int) -> float:
    """Share of the bins' capacity that is filled: sum of lengths / (bins · capacity); 1 for no bins.

    Raises:
        ValueError: the number of items in the bins differs from the number of lengths.
    """
    array = _checked(lengths, capacity, "capacity")
    if sum(map(len, bins)) != len(array):
        raise ValueError(
            f"bins are invalid: {sum(map(len, bins))} items, and {len(array)} lengths; pack all of these lengths"
        )
    return float(array.sum() / (len(bins) * capacity)) if bins else 1.0


def length_buckets(lengths: ArrayLike, batch_tokens: int) -> list[list[int]]:
    """Group items of similar length into padded batches: rows · longest row <= batch_tokens.

    The alternative to packing for models or losses that need one sample per row. Longest first, so that running out of memory
    shows in the first batch.

    Args:
        lengths: n item lengths in tokens, each in 1..batch_tokens.
        batch_tokens: tokens in a batch, padding included.

    Returns:
        The indices of the items of each batch, longest first; ties by index.

    Raises:
        ValueError: a length below 1 or above `batch_tokens`, naming its index.

    Example:
        >>> length_buckets([5, 7, 3, 5], batch_tokens=10)
        [[1], [0, 3], [2]]
    """
    array = _checked(lengths, batch_tokens, "batch_tokens")
    order = np.argsort(-array, kind="stable")
    batches = []
    begin = 0
    while begin < len(order):
        end = begin + batch_tokens // int(array[order[begin]])
        batches.append(order[begin:end].tolist())
        begin = end
    return batches


def padded_batches(lengths: ArrayLike, batch_tokens: int) -> list[list[int]]:
    """Group consecutive items into padded batches, in the given order: rows · longest row <= batch_tokens.

    This is what a simple loader with a token budget does; `length_buckets` pads less.

    Args:
        lengths: n item lengths in tokens, each in 1..batch_tokens.
        batch_tokens: tokens in a batch, padding included.

    Returns:
        The indices of the items of each batch, ascending.

    Raises:
        ValueError: a length below 1 or above `batch_tokens`, naming its index.

    Example:
        >>> padded_batches([5, 7, 3, 5], batch_tokens=10)
        [[0], [1], [2, 3]]
    """
    batches: list[list[int]] = []
    longest = 0
    for index, length in enumerate(_checked(lengths, batch_tokens, "batch_tokens").tolist()):
        if not batches or (len(batches[-1]) + 1) * max(longest, length) > batch_tokens:
            batches.append([])
            longest = 0
        batches[-1].append(index)
        longest = max(longest, length)
    return batches
