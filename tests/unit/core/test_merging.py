"""Averages of checkpoints: their weights, errors, and memory."""

import dataclasses
import math

import pytest
import torch

from nbg_lightning.core.config import preset
from nbg_lightning.core.create import create_model
from nbg_lightning.core.merging import MergedWeights, merge_weights
from nbg_lightning.core.weight_sources import LiveWeights

SHAPE = preset("nano", max_position_embeddings=64)


@pytest.mark.parametrize(
    ("rule", "remaining"),
    [
        ("uniform", lambda x: 1 - x),
        ("one_minus_sqrt", lambda x: 1 - math.sqrt(x)),
        ("cosine", lambda x: (1 + math.cos(math.pi * x)) / 2),
    ],
)
def test_an_average_is_the_decay_that_it_stands_for(rule, remaining):
    """Of updates d_i, the average of the checkpoints is start + sum w_i d_i with the learning rate's share w_i."""
    generator = torch.Generator().manual_seed(0)
    updates = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    start = torch.randn(5, generator=generator, dtype=torch.float64)
    checkpoints = start + updates.cumsum(0)
    factors = merge_weights(rule, 7)
    average = sum(factor * each for factor, each in zip(factors, checkpoints, strict=True))
    shares = torch.tensor([remaining(i / 7) for i in range(7)], dtype=torch.float64)
    torch.testing.assert_close(average, start + (shares[:, None] * updates).sum(0))


def test_weights_by_hand():
    assert merge_weights("linear", 3) == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert merge_weights("ema", 3, 0.5) == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    for rule in ("uniform", "linear", "one_minus_sqrt", "cosine", "ema"):
        assert merge_weights(rule, 1) == [1.0] and sum(merge_weights(rule, 9)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("uniform", 0), "number is invalid: 0"),
        (("even", 3), "weights is invalid: 'even'; choose uniform, linear"),
        (("ema", 3, 1.0), "decay is invalid: 1.0"),
    ],
)
def test_rules_that_there_are_not(arguments, message):
    with pytest.raises(ValueError, match=message):
        merge_weights(*arguments)


def test_tensors_are_averaged_one_after_the_other(monkeypatch):
    parts = [LiveWeights(create_model(SHAPE, seed=seed)) for seed in (1, 2, 3)]
    asked = []
    read = LiveWeights.read
    monkeypatch.setattr(LiveWeights, "read", lambda self, names: asked.append(list(names)) or read(self, names))
    merged = MergedWeights(parts, [1.0, 2.0, 1.0])
    names = list(merged.shapes)[:4]
    found = merged.read(names)
    assert all(len(each) == 1 for each in asked) and len(asked) == 12
    for name in names:
        own = [read(part, [name])[name].double() for part in parts]
        torch.testing.assert_close(found[name], ((own[0] + 2 * own[1] + own[2]) / 4).float(), rtol=0, atol=0)


def test_one_checkpoint_alone_is_itself():
    part = LiveWeights(create_model(SHAPE, seed=1))
    merged = MergedWeights([part, part], [1.0, 0.0])
    for name, tensor in merged.read(list(merged.shapes)).items():
        assert torch.equal(tensor, part.read([name])[name])


@pytest.mark.parametrize("factors", [[1.0], [1.0, math.nan], [1.0, -0.5], [0.0, 0.0], [math.inf, 1.0]])
def test_numbers_that_cannot_be(factors):
    part = LiveWeights(create_model(SHAPE, seed=1))
    with pytest.raises(ValueError, match="weights is invalid: "):
        MergedWeights([part, part], factors)


@pytest.mark.parametrize("changed", [{"rope_theta": 7.0}, {"num_hidden_layers": 1}, {"vocab_size": 260}])
def test_other_shapes_are_refused(changed):
    first, other = (LiveWeights(create_model(shape)) for shape in (SHAPE, dataclasses.replace(SHAPE, **changed)))
    with pytest.raises(ValueError, match=f"has another shape: .*{next(iter(changed))}"):
        MergedWeights([first, other], [0.5, 0.5])
