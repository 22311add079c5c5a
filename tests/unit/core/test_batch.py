"""Batches in pinned memory."""

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.data.pair_batch import PairBatch, pair_row, stack_pairs
from nbg_lightning.data.pairs import RenderedPair


@pytest.fixture
def pinned(monkeypatch):
    """The tensors that are pinned, which needs a GPU."""
    found = []

    def pin(tensor, *_):
        found.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    return found


def test_the_loader_pins_every_tensor_of_a_batch(pinned):
    zeros = torch.zeros(1, 4, dtype=torch.int64)
    batch = PackedBatch(zeros, zeros + 1, zeros + 2, torch.zeros(1), torch.ones(1))
    found = pin_memory(batch)
    assert isinstance(found, PackedBatch)
    assert len(pinned) == 5
    assert found.labels is not batch.labels
    assert torch.equal(found.labels, batch.labels)
    assert found.weights is None


def test_and_of_pairs(pinned):
    ids, mask = np.arange(20), np.arange(20) > 16
    batch = stack_pairs([pair_row([RenderedPair(ids, mask, ids[:18], mask[:18])], 64)], np.zeros(1), np.zeros(1))
    found = pin_memory(batch.with_shared_prefixes(8))
    assert isinstance(found, PairBatch)
    assert found.shared is not None
    pinned_here = {id(tensor) for tensor in pinned}
    assert {id(batch.tokens), id(batch.sequence)} <= pinned_here
    assert torch.equal(found.input.tokens, batch.with_shared_prefixes(8).input.tokens)
