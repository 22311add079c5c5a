"""Ids of two, three and four bytes."""

import numpy as np
import pytest

from nbg_lightning.data.token_width import TokenWidth


@pytest.mark.parametrize(
    ("vocab_size", "size"),
    [(1, 2), (65_536, 2), (65_537, 3), (166_144, 3), (1 << 24, 3), ((1 << 24) + 1, 4), (1 << 32, 4)],
)
def test_the_smallest_width_that_holds_every_id(vocab_size, size):
    width = TokenWidth.of(vocab_size)
    assert width == TokenWidth(size) == TokenWidth.named(width.name)
    ids = np.array([0, 1, vocab_size // 2, vocab_size - 1], np.int64)
    data = width.encode(ids)
    assert len(data) == size * len(ids)
    assert width.decode(width.rows(data)).tolist() == ids.tolist()
    assert width.encode(ids[:0]) == b""


@pytest.mark.parametrize("name", ["<i4", "<u1", ">u2", "|V3", "", None, ["<u2"], "float"])
def test_another_width(name):
    with pytest.raises(ValueError, match="dtype is invalid"):
        TokenWidth.named(name)
