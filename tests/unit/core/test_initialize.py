"""Initial weights are a function of (seed, name) only. Agreement of ranks is tested in tests/distributed."""

import pytest
import torch

from nbg_lightning.core import initialize
from nbg_lightning.core.config import ParallelConfig, preset
from nbg_lightning.core.create import create_model
from nbg_lightning.core.names import clean_name

SHAPE = preset("nano")


def weights(parallel=None, seed=0, shape=SHAPE):
    model = create_model(shape, parallel, seed=seed)
    return {clean_name(name): parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    "parallel",
    [
        ParallelConfig(activation_checkpointing="full"),
        ParallelConfig(activation_checkpointing="selective"),
        ParallelConfig(compile=True),
        ParallelConfig(activation_checkpointing="full", compile=True),
    ],
    ids=["full", "selective", "compile", "full+compile"],
)
def test_wrappers_change_no_weight(parallel):
    plain, wrapped = weights(), weights(parallel)
    assert plain.keys() == wrapped.keys()
    assert all(torch.equal(plain[name], wrapped[name]) for name in plain)


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    create_model(SHAPE)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(6)  # nor does it matter
    name = "layers.0.attention.wo.weight"
    first = weights()[name]
    torch.manual_seed(7)
    assert torch.equal(first, weights()[name])


def test_seeds_and_names_give_different_weights():
    first, second = weights(seed=0), weights(seed=1)
    name = "layers.0.feed_forward.w1.weight"
    assert not torch.equal(first[name], second[name])
    assert not torch.equal(first[name], first["layers.1.feed_forward.w1.weight"])
    assert not torch.equal(first[name], first["layers.0.feed_forward.w3.weight"])


@pytest.mark.parametrize("std", [0.02, 0.006])
def test_distribution(std):
    for name, weight in weights(shape=preset("nano", initializer_range=std, tie_word_embeddings=False)).items():
        if weight.ndim == 1:
            assert torch.equal(weight, torch.ones_like(weight)), name
        else:
            # The standard error of a standard deviation is std / sqrt(2 n).
            assert abs(weight.std().item() - std) < 5 * std / (2 * weight.numel()) ** 0.5, name
            assert abs(weight.mean().item()) < 5 * std / weight.numel() ** 0.5, name


def test_large_parameters_are_drawn_in_blocks_or_whole(monkeypatch):
    whole = weights(ParallelConfig(draw="whole"))
    assert all(torch.equal(weight, whole[name]) for name, weight in weights().items())  # they are small
    monkeypatch.setattr(initialize, "BLOCK", 1000)
    blocks = weights()
    assert all(torch.equal(weight, whole[name]) for name, weight in weights(ParallelConfig(draw="whole")).items())
    name = "layers.0.feed_forward.w1.weight"
    rows = 1000 // blocks[name].shape[1]
    assert not torch.equal(blocks[name], whole[name])
    assert len({tuple(block.flatten()[:3].tolist()) for block in blocks[name].split(rows)}) == -(
        -len(blocks[name]) // rows
    )


@pytest.mark.parametrize("block", [1000, 1])
def test_blocks_are_distributed_as_the_whole(monkeypatch, block):
    monkeypatch.setattr(initialize, "BLOCK", block)
    test_distribution(0.02)


def test_tied_weights_are_one_tensor():
    model = create_model(SHAPE)
    assert model.tok_embeddings.weight is model.lm_head.weight
    assert create_model(preset("nano", tie_word_embeddings=False)).tok_embeddings.weight is not None
    untied = create_model(preset("nano", tie_word_embeddings=False))
    assert not torch.equal(untied.tok_embeddings.weight, untied.lm_head.weight)
