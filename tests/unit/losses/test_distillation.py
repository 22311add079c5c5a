import math

import pytest
import torch

from nbg_lightning.losses.distillation import Divergence, divergence, group_targets, top_k_divergence

P, Q = ([0.6, 0.3, 0.1], [0.2, 0.5, 0.3])


def logs(values):
    return torch.tensor(values, dtype=torch.float64).log()


def test_by_hand():
    def kl(a, b):
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))

    m = [0.3 * q + 0.7 * p for p, q in zip(P, Q, strict=True)]
    assert divergence(logs(P), logs(Q), "forward_kl").item() == pytest.approx(kl(Q, P))
    assert divergence(logs(P), logs(Q), "reverse_kl").item() == pytest.approx(kl(P, Q))
    expected = 0.3 * kl(Q, m) + 0.7 * kl(P, m)
    assert divergence(logs(P), logs(Q), "jensen_shannon", 0.3).item() == pytest.approx(expected)
    # Ids 0 and 2 as one group: 0.7 and 0.5.
    listed = top_k_divergence(logs(P), torch.tensor([1]), logs([0.5]), logs(0.5), "forward_kl")
    assert listed.item() == pytest.approx(kl([0.5, 0.5], [0.3, 0.7]))


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_zero_only_for_equals_and_differentiable(kind):
    assert divergence(logs(P), logs(P), kind).item() == pytest.approx(0.0, abs=1e-12)
    assert divergence(logs(P), logs(Q), kind).item() > 0.01
    z = logs(P).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: divergence(z.log_softmax(-1), logs(Q), kind, 0.3), z)


def test_what_the_teacher_never_says_has_no_part_and_no_nan():
    z = logs(P).requires_grad_()
    value = divergence(z, logs([0.5, 0.5, 0.0]), "forward_kl")
    assert value.item() == pytest.approx(0.5 * math.log(0.5 / 0.6) + 0.5 * math.log(0.5 / 0.3))
    assert torch.autograd.grad(value, z)[0].tolist() == pytest.approx([-0.5, -0.5, 0.0])
    value = divergence(z, logs([0.5, 0.5, 0.0]), "jensen_shannon")
    assert math.isfinite(value.item()) and torch.autograd.grad(value, z)[0].isfinite().all()
    value = divergence(z, logs([0.5, 0.5, 0.0]), "reverse_kl")  # 100 nats for what the teacher rules out
    by_hand = 0.6 * math.log(0.6 / 0.5) + 0.3 * math.log(0.3 / 0.5) + 0.1 * (math.log(0.1) + 100)
    assert value.item() == pytest.approx(by_hand)
    assert torch.autograd.grad(value, z)[0].isfinite().all()


def test_targets_in_half_precision_are_made_to_sum_to_one():
    rounded = logs([[0.7, 0.2]]).half().double()
    groups = group_targets(rounded, logs([0.1]).half().double())
    assert groups.exp().sum().item() == pytest.approx(1.0)
    assert groups.shape == (1, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "kl"}, "divergence is invalid: kl; there are forward_kl, reverse_kl, jensen_shannon"),
        ({"temperature": 0.0}, "temperature of the divergence is invalid: 0.0"),
        ({"temperature": math.nan}, "is invalid: nan"),
        ({"mixture": 1.0}, "mixture of Jensen-Shannon is invalid: 1.0"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        Divergence(**settings)
