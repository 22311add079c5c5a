import math

import pytest
import torch

from nbg_lightning.losses.preference import Preference, preference_loss

CHOSEN, REJECTED = (torch.tensor(values, dtype=torch.float64) for values in ([1.0, -2.0, 0.5], [0.0, 1.0, 0.5]))
MARGINS = [1.0, -3.0, 0.0]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("settings", "by_hand"),
    [
        ({"beta": 0.5}, lambda h: -math.log(sigmoid(0.5 * h))),
        (
            {"beta": 0.5, "label_smoothing": 0.2},
            lambda h: -0.8 * math.log(sigmoid(0.5 * h)) - 0.2 * math.log(sigmoid(-0.5 * h)),
        ),
        ({"kind": "ipo", "beta": 0.25}, lambda h: (h - 2.0) ** 2),
        ({"kind": "hinge", "beta": 0.5}, lambda h: max(0.0, 1 - 0.5 * h)),
    ],
)
def test_by_hand_and_gradients(settings, by_hand):
    preference = Preference(**settings)
    found = preference_loss(CHOSEN, REJECTED, preference)
    assert found.tolist() == pytest.approx([by_hand(h) for h in MARGINS])
    inputs = (CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda c, r: preference_loss(c, r, preference), inputs)
    gradients = torch.autograd.grad(preference_loss(*inputs, preference).sum(), inputs)
    assert torch.equal(gradients[0], -gradients[1])


def test_extreme_margins_are_finite():
    far = torch.tensor([-1e4, 1e4])
    assert preference_loss(far, -far, Preference(beta=1.0)).tolist() == [2e4, 0.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "dpo"}, "preference loss is invalid: dpo; there are sigmoid, ipo, hinge"),
        ({"beta": 0.0}, "beta is invalid: 0.0"),
        ({"label_smoothing": 0.5}, "label_smoothing is invalid: 0.5"),
        ({"kind": "ipo", "label_smoothing": 0.1}, "label_smoothing is invalid: 0.1 has no effect with the ipo loss"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        Preference(**settings)
