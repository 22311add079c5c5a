"""The start of a large run: what ranks initialize, read, gather and wait for."""

import math
import subprocess
import sys
from datetime import timedelta

import lightning.pytorch as pl
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.debug import CommDebugMode

from nbg_lightning.core import initialize
from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.head import linear_cross_entropy
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.core.weight_sources import HuggingFaceFolder
from nbg_lightning.core.weights import load_base_weights
from nbg_lightning.modules import PretrainModule
from nbg_lightning.testing import full_tensors, run_ranks, train_small

SHAPE = LanguageModelConfig(
    vocab_size=97,  # ranks have shards of different sizes
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    tie_word_embeddings=False,
)
EXACT = ParallelConfig(compute_dtype="float32")


SMALL_BLOCK = 500  # elements; the embedding has 3,104


def drawn_in_blocks(mesh, counts=None):
    """A model whose parameters are drawn in several blocks each; counts the elements."""
    draw, block = initialize._draw, initialize.BLOCK

    def counted(function, shape, key):
        counts["drawn"] += math.prod(shape)
        return draw(function, shape, key)

    initialize.BLOCK = SMALL_BLOCK
    initialize._draw = draw if counts is None else counted
    try:
        return create_model(SHAPE, EXACT, mesh, seed=3)
    finally:
        initialize._draw, initialize.BLOCK = draw, block


def read_counted(folder, mesh, counts):
    """Load a folder into a sharded model, counting the values that are read and the parameters that are drawn."""
    whole_part, draw = HuggingFaceFolder._part, initialize._draw

    def part(self, name, region):
        found = whole_part(self, name, region)
        counts["read"] += found.numel()
        return found

    def drawn(*arguments):
        counts["drawn"] += 1
        return draw(*arguments)

    HuggingFaceFolder._part, initialize._draw = part, drawn
    try:
        model = create_model(SHAPE, EXACT, mesh, draw=False)
        load_base_weights(model, folder)
    finally:
        HuggingFaceFolder._part, initialize._draw = whole_part, draw
    return model


def on_two_ranks(folder):
    counts = {"read": 0, "drawn": 0}
    model = read_counted(folder, init_device_mesh("cpu", (2,)), counts)
    counts["all"] = sum(parameter.numel() for parameter in model.parameters())
    counts["gathers"] = gathers_of_a_step(model)
    drawn = full_tensors(drawn_in_blocks(init_device_mesh("cpu", (2,))).named_parameters())
    return counts, full_tensors(model.named_parameters()), drawn


def gathers_of_a_step(model):
    """All-gathers of a forward and a backward."""
    tokens = torch.arange(16).view(1, 16)
    with CommDebugMode() as communication:
        loss = model(tokens, tokens, head=lambda h, w: linear_cross_entropy(h, w, tokens.flatten())).loss
        loss.backward()
    return sum(count for name, count in communication.get_comm_counts().items() if "gather" in str(name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "model"
    save_hugging_face(create_model(SHAPE, seed=3), folder, dtype="float32", verify=False)
    return folder


@pytest.fixture(scope="module")
def two_ranks(folder, tmp_path_factory):
    return run_ranks(on_two_ranks, 2, folder, folder=tmp_path_factory.mktemp("ranks"))


def test_ranks_read_their_rows_only_and_draw_nothing(two_ranks):
    for counts, *_ in two_ranks:
        assert counts["drawn"] == 0
        assert (
            counts["read"] <= counts["all"] / 2 + SHAPE.hidden_size * 4
        )  # an odd number of rows is one more on the first
    assert sum(counts["read"] for counts, *_ in two_ranks) == two_ranks[0][0]["all"]


def test_weights_are_those_of_the_folder(two_ranks):
    expected = full_tensors(create_model(SHAPE, seed=3).named_parameters())
    for _, found, _ in two_ranks:
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_blocks_are_the_same_on_one_rank_and_two(two_ranks):
    expected = full_tensors(drawn_in_blocks(None).named_parameters())
    assert not torch.equal(expected["lm_head.weight"], create_model(SHAPE, seed=3).lm_head.weight)
    for _, _, found in two_ranks:
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_heads_weight_is_gathered_once(two_ranks):
    """Embedding and blocks once forward and once backward; the head, last and first, once in all."""
    for counts, *_ in two_ranks:
        assert counts["gathers"] == 2 * SHAPE.num_hidden_layers + 2 + 1


FAKE = """
import sys
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
sys.path.insert(0, sys.argv[2])
from test_start import read_counted
dist.init_process_group("fake", store=FakeStore(), rank=300, world_size=512)
counts = {"read": 0, "drawn": 0}
model = read_counted(sys.argv[1], init_device_mesh("cpu", (512,)), counts)
print(counts["read"], counts["drawn"], sum(p.to_local().numel() for p in model.parameters()))
"""


def test_one_of_512_ranks_reads_no_more_than_it_keeps(folder, request):
    words = [sys.executable, "-c", FAKE, str(folder), str(request.path.parent)]
    read, drawn, kept = map(int, subprocess.check_output(words, text=True).split())
    assert (read, drawn) == (kept, 0)


DRAWN = """
import sys
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
sys.path.insert(0, sys.argv[1])
from test_start import drawn_in_blocks
dist.init_process_group("fake", store=FakeStore(), rank=20, world_size=64)
counts = {"drawn": 0}
model = drawn_in_blocks(init_device_mesh("cpu", (64,)), counts)
for parameter in model.parameters():
    print(parameter.to_local().numel(), end=" ")
print(counts["drawn"])
"""


def test_one_of_64_ranks_draws_the_blocks_that_it_keeps_a_part_of(request):
    words = [sys.executable, "-c", DRAWN, str(request.path.parent)]
    *kept, drawn = map(int, subprocess.check_output(words, text=True).split())
    blocks = sum(count > 0 for count in kept)
    assert drawn <= sum(kept) + blocks * SMALL_BLOCK
    assert drawn < SHAPE.num_parameters / 2


class Patient(PretrainModule):
    """A module whose ranks may wait two hours for each other in a step."""

    longest_wait = 7200.0


def test_the_process_group_waits_as_long_as_a_module_may(tmp_path):
    module = Patient(core=SHAPE, parallel=EXACT, micro_batch_tokens=64)
    found = []

    class Timeout(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            found.append(trainer.strategy._timeout)

    train_small(tmp_path, module=module, callbacks=[Timeout()], max_steps=1)
    assert found == [timedelta(seconds=7200, minutes=10)]
