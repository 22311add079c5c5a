"""What batches hold, against hand counts and the operations of a real model."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nbg_lightning.core.batch import IGNORE, attended_length, conversation_row
from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.data.pair_batch import pair_row, stack_pairs
from nbg_lightning.data.pairs import RenderedPair
from nbg_lightning.datamodules.ordered import stack_rows
from nbg_lightning.planning import TrainingPhase, Workload
from nbg_lightning.planning.of_batches import HeldTokens
from nbg_lightning.planning.time import block_flops, head_flops

SHAPE = LanguageModelConfig(64, 32, 96, 2, 4, 2, 8, 128)


def pair(prompt, chosen, rejected):
    """A pair with a common prompt, whose answers are trained."""
    begin = np.arange(prompt)
    sides = [np.concatenate((begin, np.full(number, 40 + side))) for side, number in enumerate((chosen, rejected))]
    masks = [np.arange(len(ids)) >= prompt for ids in sides]
    return RenderedPair(sides[0], masks[0], sides[1], masks[1])


def pairs(*rows):
    return stack_pairs([pair_row(list(row), 128) for row in rows], np.zeros(len(rows)), np.zeros(len(rows)))


def test_pairs_by_hand():
    """Rows of 128; in the first 20 + 5 - 1 and 20 + 8 - 1 positions, in the second 30 + 4 - 1 twice."""
    batch = pairs([pair(20, 5, 8)], [pair(30, 4, 4)])
    apart, shared = HeldTokens(), HeldTokens()
    apart.add([batch], 128)
    shared.add([batch], 128, shortest=16)
    for held in (apart, shared):
        assert held.positions == 256
        assert held.predicted == 5 + 8 + 4 + 4
    assert apart.computed == 256  # padding is computed
    assert shared.computed == (20 + 4 + 7) + (30 + 3 + 3)  # a prompt once, and no padding
    reached = sum(range(24)) + sum(range(20, 27)) + sum(range(33)) + sum(range(30, 33))
    assert shared.attended == attended_length(reached, 67)


def test_prompts_are_shared_within_a_forward_pass():
    batch = pairs([pair(20, 5, 8)], [pair(20, 3, 6)])
    one, two = HeldTokens(), HeldTokens()
    one.add([batch], 128, shortest=16)
    two.add([batch], 256, shortest=16)
    assert one.computed > two.computed + 19


def test_conversations_by_hand():
    ids = np.arange(31)
    row = conversation_row([(ids, np.where(ids > 20, 1.0, 0.0).astype(np.float32))], 64)
    batch = stack_rows([row], np.zeros(1), np.zeros(1))
    held = HeldTokens()
    held.add([batch], 64)
    assert (held.positions, held.computed, held.predicted) == (64, 64, 10)
    assert held.attended < 64


@pytest.mark.parametrize("shortest", [16, None])
def test_operations_are_those_of_the_model(shortest):
    """Products of blocks and head, forward and backward, of a real model on the batch; attention's are not counted there."""
    batch = pairs([pair(20, 5, 8), pair(25, 2, 3)], [pair(30, 4, 4)])
    held = HeldTokens()
    held.add([batch], 128, shortest)
    model = create_model(SHAPE, ParallelConfig(compute_dtype="float32"))
    picked = 0

    def head(hidden_BLD, weight_VD):
        return (hidden_BLD.flatten(0, 1)[places] @ weight_VD.T).sum()

    counter = FlopCounterMode(display=False)
    with counter:
        for micro in batch.split(128):
            micro = micro.with_shared_prefixes(shortest)
            places = micro.places((micro.labels.flatten() != IGNORE).nonzero().flatten())
            picked += len(places)
            model(*micro.input, head).backward()
    counted = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    assert picked == held.predicted
    share = held.computed / held.positions
    phase = TrainingPhase("all", 128, 256, 1, 0, computed=share, predicted=held.predicted / held.positions)
    work = Workload("DPD", SHAPE, ParallelConfig(), 128, (phase,))
    # Norms' gains are counted by the formula (6 N), and multiply nothing; the first block's input needs a gradient.
    norms = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 1)
    expected = block_flops(work, phase) + head_flops(work, phase) - 6 * norms * held.computed
    assert counted == pytest.approx(expected, rel=0.01)
