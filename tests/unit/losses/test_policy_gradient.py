"""Every policy loss against a loop over answers and tokens in float64, with gradients, and by hand."""

import itertools
import math

import pytest
import torch

from nbg_lightning.losses.policy_gradient import (
    LOG_RATIO_LIMIT,
    OBJECTIVES,
    Objective,
    denominator,
    engine_weights,
    group_advantages,
    kl_penalty,
    kl_value,
    objective,
    policy_loss,
    token_weights,
)

LENGTHS = torch.tensor([3, 1, 5, 2])
SEQUENCE = torch.arange(4).repeat_interleave(LENGTHS)
ADVANTAGES = torch.tensor([1.3, -0.7, -1.1, 0.4], dtype=torch.float64)
MAX_LENGTH = 7


def drawn(seed=0, spread=0.4):
    """Log-probs of now (with gradients), of before, and of the engine."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(len(SEQUENCE), generator=generator, dtype=torch.float64) * 3 - 0.1
    now = old + spread * torch.randn(len(SEQUENCE), generator=generator, dtype=torch.float64)
    engine = old + 0.5 * torch.randn(len(SEQUENCE), generator=generator, dtype=torch.float64)
    return now.requires_grad_(), old, engine


def ours(now, old, engine, what, correction="none", cap=2.0):
    found = policy_loss(now, old, ADVANTAGES[SEQUENCE], SEQUENCE, LENGTHS, what)
    weights = token_weights(SEQUENCE, LENGTHS, what.aggregation, MAX_LENGTH)
    correcting = engine_weights(old, engine, correction, cap)
    total = denominator(len(LENGTHS), int(LENGTHS.sum()), what.aggregation)
    return (found.token_losses * correcting * weights).sum() / total, found


def reference(now, old, engine, name, low, high, correction="none", cap=2.0):
    """The papers' formulas, one answer and one token after the other."""
    terms, begin = [], 0
    for length, advantage in zip(LENGTHS.tolist(), ADVANTAGES.tolist(), strict=True):
        tokens = range(begin, begin + length)
        begin += length
        mean_difference = sum(now[t] - old[t] for t in tokens) / length
        losses = []
        for t in tokens:
            ratio = torch.exp(mean_difference if name == "gspo" else now[t] - old[t])
            clipped = torch.clamp(ratio, 1 - low, 1 + high)
            if name == "cispo":
                loss = -clipped.detach() * advantage * now[t]
            else:
                loss = -torch.min(ratio * advantage, clipped * advantage)
            weight = math.exp(old[t] - engine[t])
            if correction == "truncate":
                loss = loss * min(weight, cap)
            elif correction == "mask":
                loss = loss * (weight if 1 / cap <= weight <= cap else 0.0)
            losses.append(loss)
        terms.append(losses)
    if name in ("grpo", "gspo"):
        return sum(sum(losses) / len(losses) for losses in terms) / len(terms)
    if name == "dr_grpo":
        return sum(sum(losses) for losses in terms) / (len(terms) * MAX_LENGTH)
    return sum(sum(losses) for losses in terms) / sum(len(losses) for losses in terms)


@pytest.mark.parametrize("correction", ["none", "truncate", "mask"])
@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_equals_the_formula_in_value_and_gradient(name, correction, spread):
    what = objective(name)
    if name == "gspo":
        what = objective(name, clip_low=0.05, clip_high=0.1)  # so that some answers are clipped and some are not
    if name == "cispo":
        what = objective(name, clip_high=0.3)
    now, old, engine = drawn(spread=spread)
    loss, found = ours(now, old, engine, what, correction)
    expected = reference(now, old, engine, name, what.clip_low, what.clip_high, correction)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, now)
    (wanted,) = torch.autograd.grad(expected, now)
    torch.testing.assert_close(gradient, wanted)
    assert bool(found.clipped.any()) == (spread > 0)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_on_policy_the_gradient_is_that_of_reinforce(name):
    """Ratios are 1, nothing is clipped: ``-A grad log p`` with the aggregation's weights, GSPO's spread over the answer."""
    now, _, engine = drawn()
    what = objective(name)
    loss, found = ours(now, now.detach(), engine, what)
    (gradient,) = torch.autograd.grad(loss, now)
    weights = token_weights(SEQUENCE, LENGTHS, what.aggregation, MAX_LENGTH)
    total = denominator(len(LENGTHS), int(LENGTHS.sum()), what.aggregation)
    torch.testing.assert_close(gradient, -ADVANTAGES[SEQUENCE] * weights / total)
    assert not found.clipped.any()
    torch.testing.assert_close(found.ratios, torch.ones_like(found.ratios))


def test_by_hand():
    """One answer of two tokens: ratios 2 (clipped to 1.2) and 1/2 (not clipped: the advantage is positive)."""
    old = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    now = torch.tensor([1.0, 0.25], dtype=torch.float64).log().requires_grad_()
    sequence, lengths = torch.zeros(2, dtype=torch.int64), torch.tensor([2])
    found = policy_loss(now, old, torch.ones(2, dtype=torch.float64), sequence, lengths, objective("grpo"))
    assert found.token_losses.tolist() == pytest.approx([-1.2, -0.5])
    assert found.clipped.tolist() == [True, False]
    (gradient,) = torch.autograd.grad(found.token_losses.sum(), now)
    assert gradient.tolist() == pytest.approx([0.0, -0.5])
    # GSPO: the answer's ratio is sqrt(2 x 1/2) = 1
    found = policy_loss(now, old, torch.ones(2, dtype=torch.float64), sequence, lengths, objective("gspo"))
    assert found.token_losses.tolist() == pytest.approx([-1.0, -1.0])
    # a negative advantage: the ratio below 1 - 0.2 is clipped, the one above 1.2 is not
    found = policy_loss(now, old, -torch.ones(2, dtype=torch.float64), sequence, lengths, objective("grpo"))
    assert found.token_losses.tolist() == pytest.approx([2.0, 0.8])
    assert found.clipped.tolist() == [False, True]


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_pieces_add_up(name):
    """Answers in two micro-batches give the sum of both: nothing inside depends on what else is there."""
    what = objective(name)
    now, old, _ = drawn()
    weights = token_weights(SEQUENCE, LENGTHS, what.aggregation, MAX_LENGTH)
    whole = policy_loss(now, old, ADVANTAGES[SEQUENCE], SEQUENCE, LENGTHS, what).token_losses * weights
    cut = int(LENGTHS[:2].sum())
    parts = []
    for tokens, answers in ((slice(0, cut), slice(0, 2)), (slice(cut, None), slice(2, None))):
        sequence = SEQUENCE[tokens] - SEQUENCE[tokens][0]
        lengths = LENGTHS[answers]
        found = policy_loss(now[tokens], old[tokens], ADVANTAGES[SEQUENCE[tokens]], sequence, lengths, what)
        parts.append(found.token_losses * token_weights(sequence, lengths, what.aggregation, MAX_LENGTH))
    torch.testing.assert_close(torch.cat(parts), whole)


def test_the_scale_of_a_loss_does_not_depend_on_copies():
    """Twice the same answers is the same mean: denominators count what the sums have (TRL PR 4935)."""
    now, old, _ = drawn()
    twice = [torch.cat((x, x)) for x in (now, old, ADVANTAGES[SEQUENCE])]
    sequence, lengths = torch.cat((SEQUENCE, SEQUENCE + len(LENGTHS))), torch.cat((LENGTHS, LENGTHS))
    for what in OBJECTIVES.values():
        once, _ = ours(now, old, old, what)
        losses = policy_loss(*twice, sequence, lengths, what).token_losses
        weights = token_weights(sequence, lengths, what.aggregation, MAX_LENGTH)
        total = denominator(len(lengths), int(lengths.sum()), what.aggregation)
        torch.testing.assert_close((losses * weights).sum() / total, once)


# -- advantages --------------------------------------------------------------------------------------------------------


def test_advantages_by_hand():
    scores = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3], [1.0, 5.0, 0.0, 5.0]], dtype=torch.float64)
    valid = torch.tensor([[True] * 4, [True] * 4, [True, False, True, False]])
    found = group_advantages(scores, valid, constant=0.0)
    deviation = math.sqrt(4 * 0.25 / 3)
    assert found.values[0].tolist() == pytest.approx(
        [0.5 / deviation, -0.5 / deviation, -0.5 / deviation, 0.5 / deviation]
    )
    assert found.values[1].tolist() == [0.0] * 4
    assert found.values[2].tolist() == pytest.approx([math.sqrt(0.5), 0.0, -math.sqrt(0.5), 0.0])
    assert found.informative.tolist() == [True, False, True]
    unscaled = group_advantages(scores, valid, scale=False)
    assert unscaled.values[0].tolist() == [0.5, -0.5, -0.5, 0.5]


def test_groups_that_say_nothing():
    """One valid answer, none, NaN in an invalid place, and scores that differ by rounding."""
    scores = torch.tensor([[1.0, math.nan], [math.nan, math.nan], [0.1 + 0.2, 0.3]], dtype=torch.float64)
    valid = torch.tensor([[True, False], [False, False], [True, True]])
    found = group_advantages(scores, valid)
    assert found.values.tolist() == [[0.0, 0.0]] * 3
    assert not found.informative.any()


# -- between engine and trainer ----------------------------------------------------------------------------------------


def test_engine_weights_by_hand():
    trainer = torch.tensor([0.9, 0.5, 0.1, 0.2]).log().requires_grad_()
    engine = torch.tensor([0.3, 0.5, 0.8, 0.2]).log()
    assert engine_weights(trainer, engine, "truncate").tolist() == pytest.approx([2.0, 1.0, 0.125, 1.0])
    assert engine_weights(trainer, engine, "mask").tolist() == pytest.approx([0.0, 1.0, 0.0, 1.0])
    assert engine_weights(trainer, engine, "mask", 4.0).tolist() == pytest.approx([3.0, 1.0, 0.0, 1.0])
    assert engine_weights(trainer, engine, "none").tolist() == [1.0] * 4
    assert not engine_weights(trainer, engine, "truncate").requires_grad


# -- divergence from the reference: exact expectations over a small vocabulary -----------------------------------------


def policies(seed, vocab=5):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(vocab, generator=generator, dtype=torch.float64).requires_grad_()
    reference = torch.randn(vocab, generator=generator, dtype=torch.float64).log_softmax(-1)
    return logits, reference


def divergences(logits, reference):
    log_probs = logits.log_softmax(-1)
    forward = (log_probs.exp() * (log_probs - reference)).sum()
    reverse = (reference.exp() * (reference - log_probs)).sum()
    return forward, reverse


def expected_gradient(logits, reference, gradient, drawn_by=None):
    """Gradient of the estimator used as a loss, averaged over all tokens by the probability with which they are drawn."""
    log_probs = logits.log_softmax(-1)
    probabilities = (log_probs if drawn_by is None else drawn_by).detach().exp()
    ratios = None if drawn_by is None else (log_probs - drawn_by).exp()
    terms = kl_penalty(log_probs, reference, gradient=gradient, ratios=ratios)
    return torch.autograd.grad((probabilities * terms).sum(), logits)[0]


@pytest.mark.parametrize("seed", range(3))
def test_values_of_the_estimators(seed):
    logits, reference = policies(seed)
    log_probs = logits.log_softmax(-1).detach()
    exact, _ = divergences(logits, reference)
    means = {k: (log_probs.exp() * kl_value(log_probs, reference, k)).sum() for k in ("k1", "k2", "k3")}
    torch.testing.assert_close(means["k1"], exact.detach())
    torch.testing.assert_close(means["k3"], exact.detach())
    assert not math.isclose(means["k2"], exact.item(), rel_tol=1e-3)  # biased
    assert (kl_value(log_probs, reference, "k3") >= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_gradients_of_the_estimators(seed):
    logits, reference = policies(seed)
    forward, reverse = divergences(logits, reference)
    (of_forward,) = torch.autograd.grad(forward, logits, retain_graph=True)
    (of_reverse,) = torch.autograd.grad(reverse, logits)
    torch.testing.assert_close(expected_gradient(logits, reference, "k2"), of_forward)
    torch.testing.assert_close(expected_gradient(logits, reference, "k3"), of_reverse)
    assert not torch.allclose(of_forward, of_reverse, rtol=1e-2)


def test_gradients_with_importance_ratios():
    """Tokens of an older policy: with the ratios the expectation is that of the present one."""
    logits, reference = policies(0)
    older = torch.randn(5, generator=torch.Generator().manual_seed(9), dtype=torch.float64).log_softmax(-1)
    for gradient in ("k2", "k3"):
        torch.testing.assert_close(
            expected_gradient(logits, reference, gradient, older), expected_gradient(logits, reference, gradient)
        )


def test_value_and_gradient_are_apart():
    log_probs, reference = torch.tensor([-1.0, -2.0], requires_grad=True), torch.tensor([-1.5, -1.0])
    for value, gradient in itertools.product(("k1", "k2", "k3"), ("k2", "k3")):
        term = kl_penalty(log_probs, reference, value, gradient)
        torch.testing.assert_close(term.detach(), kl_value(log_probs.detach(), reference, value))
        (slope,) = torch.autograd.grad(term.sum(), log_probs)
        difference = (log_probs - reference).detach()
        torch.testing.assert_close(slope, difference if gradient == "k2" else 1 - torch.exp(-difference))


def test_k1_trains_nothing():
    """Why it cannot be chosen: its expected gradient is 0."""
    logits, reference = policies(1)
    log_probs = logits.log_softmax(-1)
    (gradient,) = torch.autograd.grad((log_probs.detach().exp() * kl_value(log_probs, reference, "k1")).sum(), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match=r"kl_gradient is invalid: k1; give k2 .* or k3"):
        kl_penalty(log_probs, reference, gradient="k1")


# -- bad settings ------------------------------------------------------------------------------------------------------


def test_bad_settings_are_named():
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="loss is invalid: 'ppo'; choose one of grpo"):
        objective("ppo")
    with pytest.raises(ValueError, match=r"clip_low and clip_high are invalid: 1\.5"):
        objective("grpo", clip_low=1.5)
    with pytest.raises(ValueError, match=r"clip_low and clip_high are invalid: 0\.2, -1"):
        Objective("token", "token_mean", True, 0.2, -1)
    with pytest.raises(ValueError, match="engine_correction is invalid: 'clip'"):
        engine_weights(one, one, "clip")
    with pytest.raises(ValueError, match=r"correction_cap is invalid: 0\.5"):
        engine_weights(one, one, "truncate", 0.5)
    with pytest.raises(ValueError, match="KL estimator is invalid: 'k4'"):
        kl_value(one, one, "k4")


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("gap", [-1e4, -90.0, 90.0, 1e4])
@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
def test_ratios_beyond_float32_are_finite(name, gap, advantage):
    """e^89 is infinite in float32, and times an advantage of 0 NaN."""
    old = torch.full((2,), -1.0)
    now = (old + gap).requires_grad_()
    found = policy_loss(
        now, old, torch.full((2,), advantage), torch.zeros(2, dtype=torch.int64), torch.tensor([2]), OBJECTIVES[name]
    )
    assert found.token_losses.isfinite().all() and found.ratios.isfinite().all()
    assert torch.autograd.grad(found.token_losses.sum(), now)[0].isfinite().all()
    assert found.ratios.tolist() == pytest.approx([math.exp(math.copysign(LOG_RATIO_LIMIT, gap))] * 2, rel=1e-5)


@pytest.mark.parametrize("correction", ["none", "truncate", "mask"])
@pytest.mark.parametrize("engine", [-1e4, -math.inf, 0.0])
def test_weights_of_impossible_log_probs_are_finite(correction, engine):
    weights = engine_weights(torch.tensor([-1e3, -0.1]), torch.full((2,), engine), correction)
    assert weights.isfinite().all()
    assert (weights >= 0).all() and (weights <= 2).all()


@pytest.mark.parametrize("difference", [-1e4, -90.0, 90.0, 1e4])
def test_divergences_far_from_the_reference_are_finite(difference):
    log_probs = torch.tensor([difference], requires_grad=True)
    term = kl_penalty(log_probs, torch.zeros(1), "k3", "k3")
    assert term.isfinite().all()
    assert torch.autograd.grad(term.sum(), log_probs)[0].isfinite().all()


# -- infinite log-probs and NaN ----------------------------------------------------------------------------------------

FINITE, INF, NAN = -1.5, math.inf, math.nan
EVERY = [FINITE, -INF, INF, NAN]


def one_token(name, now, old, advantage):
    """Loss and gradient of one token in float64."""
    log_prob = torch.tensor([now], dtype=torch.float64, requires_grad=True)
    others = (torch.tensor([value], dtype=torch.float64) for value in (old, advantage))
    one = torch.tensor([1])
    found = policy_loss(log_prob, *others, torch.tensor([0]), one, objective(name))
    found.token_losses.sum().backward()
    return found.token_losses.item(), log_prob.grad.item(), found.ratios.item()


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize(("now", "old"), itertools.product(EVERY, EVERY))
def test_an_advantage_of_0_trains_nothing_and_hides_no_nan(name, now, old):
    loss, gradient, _ = one_token(name, now, old, 0.0)
    if math.isnan(now) or math.isnan(old):
        assert math.isnan(loss)
    else:
        assert (loss, gradient) == (0.0, 0.0)


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize(
    ("now", "old", "log_ratio"),
    [(-INF, FINITE, -20), (INF, FINITE, 20), (FINITE, -INF, 20), (FINITE, INF, -20), (-INF, -INF, 0), (INF, INF, 0)],
)
def test_infinite_log_probs_are_log_ratios_at_the_limit(name, advantage, now, old, log_ratio):
    loss, gradient, ratio = one_token(name, now, old, advantage)
    what = objective(name)
    assert ratio == math.exp(log_ratio)
    bounded = min(max(ratio, 1 - what.clip_low), 1 + what.clip_high)
    if what.ratio != "weight":
        assert (loss, gradient) == (-min(ratio * advantage, bounded * advantage), 0.0)
    elif math.isinf(now):
        assert (loss, gradient) == (-bounded * advantage * (old + log_ratio), 0.0)
    else:
        assert (loss, gradient) == (-bounded * advantage * now, -bounded * advantage)


@pytest.mark.parametrize("name", list(OBJECTIVES))
@pytest.mark.parametrize(("now", "old", "advantage"), [(NAN, FINITE, 1.0), (FINITE, NAN, 1.0), (FINITE, FINITE, NAN)])
def test_nan_is_never_hidden(name, now, old, advantage):
    assert math.isnan(one_token(name, now, old, advantage)[0])


@pytest.mark.parametrize("correction", ["truncate", "mask"])
@pytest.mark.parametrize(("now", "engine"), itertools.product(EVERY, EVERY))
def test_weights_of_an_engine_are_finite_but_for_nan(correction, now, engine):
    both = (torch.tensor([value], dtype=torch.float64) for value in (now, engine))
    weight = engine_weights(*both, correction, 2.0).item()
    if math.isnan(now) or math.isnan(engine):
        assert math.isnan(weight)
        return
    ratio = {True: 1.0}.get(now == engine, math.exp(20 if now > engine else -20))
    expected = min(ratio, 2.0) if correction == "truncate" else ratio * (ratio == 1.0)
    assert weight == expected


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize(("now", "reference"), itertools.product(EVERY, EVERY))
def test_divergences_are_finite_but_for_nan(estimator, now, reference):
    log_prob = torch.tensor([now], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([reference], dtype=torch.float64)
    for gradient in ("k2", "k3"):
        penalty = kl_penalty(log_prob, other, estimator, gradient)
        penalty.sum().backward()
        assert penalty.isnan().item() == (math.isnan(now) or math.isnan(reference))
        assert penalty.isnan() or (penalty.isfinite() and log_prob.grad.isfinite())
