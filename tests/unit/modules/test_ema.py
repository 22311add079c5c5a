"""The moving average of the weights against a plain loop."""

import pytest
import torch
from torch import nn

from nbg_lightning.modules.ema import WeightAverage


def test_equals_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    average = WeightAverage(model, 0.75)
    expected = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(7):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        average.update(model)
        expected = [0.75 * e + 0.25 * p.detach() for e, p in zip(expected, model.parameters(), strict=True)]
    for found, value in zip(average.buffers(), expected, strict=True):
        torch.testing.assert_close(found, value)


def test_swapping_is_undone_also_after_an_error():
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        model.weight.add_(1.0)
    own, averaged = model.weight.detach().clone(), average.weight.clone()

    def stop():
        with average.swapped_in(model):
            assert torch.equal(model.weight, averaged)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop()
    assert torch.equal(model.weight, own)
    assert torch.equal(average.weight, averaged)


def test_averages_are_saved_under_the_weights_names():
    average = WeightAverage(nn.Sequential(nn.Linear(2, 2)), 0.5)
    assert set(average.state_dict()) == {"0__weight", "0__bias"}
    assert not list(average.parameters())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.1])
def test_decay_must_be_a_share(decay):
    with pytest.raises(ValueError, match="ema_decay is invalid"):
        WeightAverage(nn.Linear(1, 1), decay)
