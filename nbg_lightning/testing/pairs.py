"""Preference pairs of random ids, for tests of training on pairs."""

from __future__ import annotations

import numpy as np

from nbg_lightning.data.pairs import RenderedPair
from nbg_lightning.testing.runs import SMALL_SHAPE


def random_pairs(number: int, seed: int = 0) -> list[RenderedPair]:
    """Pairs of answers of 1 to 10 ids, all trained, to a common prompt of 2 to 5; ids are from `SMALL_SHAPE`'s vocabulary."""
    draw = np.random.default_rng(seed)
    vocabulary = SMALL_SHAPE.vocab_size
    pairs = []
    for _ in range(number):
        prompt = draw.integers(0, vocabulary, draw.integers(2, 6))
        arrays = []
        for _ in range(2):
            ids = np.concatenate((prompt, draw.integers(0, vocabulary, draw.integers(1, 11))))
            arrays += [ids, np.arange(len(ids)) >= len(prompt)]
        pairs.append(RenderedPair(*arrays))
    return pairs
