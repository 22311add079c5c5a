"""The loss of each source against float64; two ranks are in tests/distributed."""

import math

import pytest
import torch

from nbg_lightning.modules.metrics import DomainScores, SourceLoss
from nbg_lightning.modules.preference_scores import PreferenceScores


def made_up(rows=9, length=33, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    losses = (torch.rand(rows, length, generator=generator) * 7).to(dtype)
    trained = torch.rand(rows, length, generator=generator) < 0.6
    return losses, trained, torch.randint(0, 2, (rows,), generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_against_the_definition(dtype):
    metric = SourceLoss({"code": 4.0, "prose": 2.5})
    sums, counts = [0.0, 0.0], [0, 0]
    for seed in range(5):
        losses, trained, source = made_up(seed=seed, dtype=dtype)
        metric.update(losses, trained, source)
        for row in range(len(losses)):
            sums[source[row]] += losses[row][trained[row]].double().sum().item()
            counts[source[row]] += int(trained[row].sum())
    found = metric.compute()
    for index, (name, per_token) in enumerate((("code", 4.0), ("prose", 2.5))):
        loss = sums[index] / counts[index]
        assert found[f"val/{name}/loss"] == pytest.approx(loss, rel=1e-12)
        assert found[f"val/{name}/bits_per_byte"] == pytest.approx(loss / math.log(2) / per_token, rel=1e-12)
    assert found["val/loss"] == pytest.approx(sum(sums) / sum(counts), rel=1e-12)


def test_by_hand():
    """Losses ln 2 and 3 ln 2 are 2 nats / ln 2 = 2 bits a token; at 4 bytes a token, half a bit a byte."""
    metric = SourceLoss({"code": 4.0})
    losses = torch.tensor([[1.0, 3.0, 100.0]]) * math.log(2)
    metric.update(losses, torch.tensor([[True, True, False]]), torch.tensor([0]))
    assert metric.compute()["val/code/bits_per_byte"] == pytest.approx(0.5, rel=1e-6)


def test_a_billion_tokens_lose_no_digit():
    """float32 sums would stop growing; float64 sums do not."""
    metric = SourceLoss({"code": 1.0})
    metric.sums += 2.0**31
    metric.tokens += 2.0**31
    metric.update(torch.full((1, 3), 2.0), torch.ones(1, 3, dtype=torch.bool), torch.tensor([0]))
    assert metric.sums.item() == 2.0**31 + 6
    assert metric.tokens.dtype == torch.float64


def test_source_without_a_token_has_no_value():
    metric = SourceLoss({"code": 4.0, "prose": 2.0})
    metric.update(torch.ones(1, 2), torch.tensor([[True, False]]), torch.tensor([1]))
    assert set(metric.compute()) == {"val/prose/loss", "val/prose/bits_per_byte", "val/loss"}
    assert SourceLoss({"code": 4.0}).compute() == {}


def test_reset():
    metric = SourceLoss({"code": 4.0})
    metric.update(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool), torch.tensor([0]))
    metric.reset()
    assert metric.compute() == {}


def test_infinite_loss_of_an_untrained_token_is_not_read():
    metric = SourceLoss({"code": 4.0})
    metric.update(torch.tensor([[1.0, math.inf]]), torch.tensor([[True, False]]), torch.tensor([0]))
    assert metric.compute()["val/loss"] == 1.0


@pytest.mark.parametrize(
    "metric", [SourceLoss({"code": 4.0}), DomainScores(["math"]), PreferenceScores(["math"], ["accuracy"])]
)
def test_without_an_update_there_is_no_value_and_no_warning(metric):
    """A benchmark validates without losses; warnings are errors here."""
    assert metric.compute() == {}
