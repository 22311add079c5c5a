"""Sampling: the right distribution and log-probability, independent of the batch."""

import math

import numpy as np
import pytest
import torch

from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.engines.sample import draw, truncate, uniform

# 99.9 % quantile of chi-square, by degrees of freedom (tables).
CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 7: 24.32}


def draws(logits, sampling, count):
    seeds = torch.arange(count, dtype=torch.int64) * 7919 + 13
    rows = torch.tensor(logits).expand(count, -1).clone()
    return draw(rows, sampling, seeds, torch.zeros(count, dtype=torch.int64))


def expected(logits, sampling):
    """Plain reference: sort, cut, renormalise."""
    p = np.exp(np.array(logits, dtype=np.float64) / sampling.temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    kept = order[: sampling.top_k] if sampling.top_k else order
    among = p[kept] / p[kept].sum()
    kept = kept[: int(np.searchsorted(np.cumsum(among), sampling.top_p)) + 1]
    result = np.zeros_like(p)
    result[kept] = p[kept] / p[kept].sum()
    return result


LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0, -0.5, 1.5, 0.2]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (dict(), 8),
        (dict(temperature=0.5), 8),
        (dict(temperature=2.0), 8),
        (dict(top_k=3), 3),
        (dict(top_p=0.8), 4),
        (dict(top_p=0.7, top_k=4, temperature=1.5), 3),
    ],
)
def test_tokens_come_with_their_probability(settings, kept):
    sampling, count = Sampling(**settings), 20_000
    drawn = draws(LOGITS, sampling, count)
    p = expected(LOGITS, sampling)
    assert (p > 0).sum() == kept
    seen = np.bincount(drawn.tokens.numpy(), minlength=len(LOGITS))
    assert seen[p == 0].sum() == 0
    statistic = (((seen - count * p) ** 2)[p > 0] / (count * p[p > 0])).sum()
    assert statistic < CHI_SQUARE[kept - 1]
    torch.testing.assert_close(drawn.log_probs.double(), torch.tensor(p)[drawn.tokens].log(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("vocab", [5, 64, 100, 1000, 4096])
@pytest.mark.parametrize("settings", [dict(), dict(top_p=0.9), dict(top_k=300), dict(top_k=7, top_p=0.5)])
def test_inversion_equals_a_plain_cumulative_sum(vocab, settings):
    sampling = Sampling(**settings)
    logits = torch.randn(64, vocab, generator=torch.Generator().manual_seed(0)) * 2
    seeds, steps = torch.arange(64) * 31, torch.arange(64)
    drawn = draw(logits.clone(), sampling, seeds, steps)
    for row in range(64):
        p = expected(logits[row].tolist(), sampling)
        assert p[drawn.tokens[row]] > 0
        assert drawn.log_probs[row].item() == pytest.approx(math.log(p[drawn.tokens[row]]), abs=1e-5)
        order = np.argsort(-p, kind="stable") if sampling.truncated else np.arange(vocab)
        rank = int(np.searchsorted(np.cumsum(p[order]), uniform(seeds, steps)[row].item(), side="right"))
        assert drawn.tokens[row] == order[rank]


def test_a_row_does_not_depend_on_the_others():
    logits = torch.randn(32, 500, generator=torch.Generator().manual_seed(1))
    seeds, steps = torch.arange(32) * 11, torch.arange(32) % 5
    together = draw(logits.clone(), Sampling(), seeds, steps)
    for row in (0, 13, 31):
        part = slice(row, row + 1)
        alone = draw(logits[part].clone(), Sampling(), seeds[part], steps[part])
        assert alone.tokens == together.tokens[part]


def test_numbers_are_uniform_and_differ_by_seed_and_step():
    seeds = torch.arange(1000)[:, None].expand(-1, 50)
    steps = torch.arange(50)[None].expand(1000, -1)
    numbers = uniform(seeds, steps).flatten()
    assert len(numbers.unique()) == 50_000
    assert numbers.min() >= 0
    assert numbers.max() < 1
    seen = np.histogram(numbers.numpy(), bins=8, range=(0, 1))[0]
    assert ((seen - 6250) ** 2 / 6250).sum() < CHI_SQUARE[7]
    table = numbers.view(1000, 50) - 0.5
    for correlated in ((table[1:] * table[:-1]).mean(), (table[:, 1:] * table[:, :-1]).mean()):
        assert abs(correlated) < 4 / 12 / 50_000**0.5  # four standard errors


def test_uniform_is_splitmix64():
    # Vigna's reference implementation: the first outputs for seed 1234567.
    first = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    numbers = uniform(torch.full((3,), 1234567), torch.arange(3))
    assert numbers.tolist() == [(value >> 11) * 2.0**-53 for value in first]


def test_greedy_takes_the_likeliest_and_reports_the_models_log_prob():
    logits = torch.randn(8, 300, generator=torch.Generator().manual_seed(2))
    drawn = draw(logits.clone(), Sampling(temperature=0), torch.zeros(8).long(), torch.zeros(8).long())
    assert drawn.tokens.equal(logits.argmax(-1))
    torch.testing.assert_close(drawn.log_probs, logits.log_softmax(-1).amax(-1))


@pytest.mark.parametrize("settings", [dict(temperature=0), dict(), dict(top_p=0.5), dict(top_k=2)])
def test_broken_logits_give_nan_and_leave_other_rows(settings):
    logits = torch.zeros(3, 70)
    logits[1, 5] = math.nan
    drawn = draw(logits, Sampling(**settings), torch.arange(3), torch.arange(3))
    assert torch.isfinite(drawn.log_probs).tolist() == [True, False, True]
    assert ((drawn.tokens >= 0) & (drawn.tokens < 70)).all()


def test_top_p_keeps_the_token_that_reaches_it_and_at_least_one():
    p = torch.tensor([[0.5, 0.3, 0.2]])
    for top_p, kept in ((0.01, 1), (0.4, 1), (0.6, 2), (0.9, 3), (0.999, 3)):
        assert int((truncate(p, top_p, 0)[0] > 0).sum()) == kept
