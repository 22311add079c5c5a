"""Advantages of answers, and which answers are trained."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion, Prompt
from nbg_lightning.environments.environment import End
from nbg_lightning.environments.episode import Episode, joined_completion
from nbg_lightning.environments.segments import Segment
from nbg_lightning.rewards.protocol import RewardResult
from nbg_lightning.rl.advantages import (
    GroupNormalized,
    LeaveOneOut,
    TurnLevel,
    leave_one_out_advantages,
    turn_advantages,
    with_advantages,
)
from nbg_lightning.rl.policy_loss import PolicyLossConfig, policy_terms
from nbg_lightning.rl.rollout_batch import pack_answers, trained_answers
from nbg_lightning.rl.rollouts import Rollout


def rollout(*answers):
    """Each answer is a score or None, and how it ended."""
    completions = [Completion((1, 2), (-1.0, -1.0), reason, 0, i, 0) for i, (_, reason) in enumerate(answers)]
    results = [RewardResult(None, "error", "no") if s is None else RewardResult(s) for s, _ in answers]
    question = Question(({"role": "user", "content": "?"},), "1", "s")
    return Rollout(question, Prompt((3,)), tuple(Answer(c, "", None, "") for c in completions), tuple(results))


@settings(derandomize=True, max_examples=100)
@given(st.lists(st.one_of(st.none(), st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0])), min_size=2, max_size=6))
def test_leave_one_out_is_the_score_less_the_mean_of_the_others(scores):
    valid = [score is not None for score in scores]
    given_scores = torch.tensor([[math.nan if s is None else s for s in scores]], dtype=torch.float64)
    found = leave_one_out_advantages(given_scores, torch.tensor([valid]))
    known = [score for score in scores if score is not None]
    spread = bool(known) and max(abs(score - sum(known) / len(known)) for score in known) > 1e-6
    assert found.informative.tolist() == [len(known) > 1 and spread]
    for index, score in enumerate(scores):
        others = [s for i, s in enumerate(scores) if i != index and s is not None]
        expected = score - sum(others) / len(others) if found.informative[0] and score is not None else 0.0
        assert found.values[0, index].item() == pytest.approx(expected, abs=1e-9)


def test_what_is_trained():
    """A cut answer, one without a score, and a group that says nothing."""
    groups = [
        rollout((1.0, "stop"), (0.0, "length"), (None, "error"), (0.0, "stop")),
        rollout((1.0, "stop"), (1.0, "stop"), (1.0, "length"), (1.0, "stop")),
    ]
    third = pytest.approx(1 / 3)
    all_kept, informative = with_advantages(groups, GroupNormalized(scale=False), False, False)
    assert all_kept.trained == (True, True, False, True) and informative.trained == (True,) * 4
    assert all_kept.advantages == (pytest.approx(2 / 3), -third.expected, 0.0, -third.expected)
    masked, same = with_advantages(groups, LeaveOneOut(), True, True)
    assert masked.trained == (True, False, False, True) and same.trained == (False,) * 4
    assert masked.advantages == (1.0, -0.5, 0.0, -0.5)  # what is not trained counts in the mean
    assert with_advantages([], LeaveOneOut(), True, True) == []


def test_a_negative_constant_is_refused():
    with pytest.raises(ValueError, match=r"GroupNormalized.constant is invalid: -1"):
        GroupNormalized(constant=-1)


SCORES = st.one_of(st.none(), st.floats(-3, 3))


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.lists(SCORES, max_size=5)), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_turns_get_the_outcome_and_their_own_weighted_scores(answers, discount):
    """A reference in float64, by a matrix of discounts over turns that are filled up with NaN."""
    outcomes = [0.5 * index - 1.0 for index in range(len(answers))]
    valid, scores = zip(*answers, strict=True)
    found = turn_advantages(outcomes, scores, valid, 0.3, discount)
    turns = max(map(len, scores))
    there = torch.tensor([[t < len(own) for t in range(turns)] for own in scores], dtype=torch.bool)
    there = there.reshape(len(answers), turns)
    padded = [[own[t] or 0.0 if t < len(own) else 0.0 for t in range(turns)] for own in scores]
    rewards = torch.tensor(padded, dtype=torch.float64).reshape(len(answers), turns)
    later = torch.arange(turns)[None] - torch.arange(turns)[:, None]
    weights = torch.where(later >= 0, torch.tensor(discount, dtype=torch.float64) ** later.clamp(min=0), 0.0)
    returns = rewards @ weights.T
    counted = there & torch.tensor(valid)[:, None]
    mean = (returns * counted).sum(0) / counted.sum(0).clamp(min=1)
    expected = torch.tensor(outcomes, dtype=torch.float64)[:, None] + 0.3 * (returns - mean)
    for index, (counts, own) in enumerate(answers):
        want = expected[index, : len(own)].tolist() if counts else [0.0] * len(own)
        assert found[index] == pytest.approx(want, abs=1e-12)


def episode(score, turn_scores):
    """Two ids in each turn, and one of context between two."""
    count = len(turn_scores)
    ids = [turn * 10 + part for turn in range(count) for part in (1, 2, 0)][:-1]
    drawn = [token % 10 > 0 for token in ids]
    row = Segment((3,), tuple(ids), tuple(drawn), (-1.0,) * len(ids), tuple(token // 10 for token in ids))
    completion = joined_completion((row,), End.DONE, (0, 0), 0, "")
    return Episode(completion, "", None, "", End.DONE, (row,), turn_scores=turn_scores, score=score)


def group(*episodes):
    results = tuple(RewardResult(each.score) for each in episodes)
    return Rollout(Question(({"role": "user", "content": "?"},)), Prompt((3,)), episodes, results)


def test_each_token_has_the_advantage_of_its_turn():
    """The score that ends an episode is the outcome and no turn's; the mean at a turn is that of those that have it."""
    answers = episode(1.0, (0.5, None, 1.0)), episode(0.0, (0.0, 0.0))
    estimator = TurnLevel(GroupNormalized(scale=False), weight=2.0)
    (found,) = with_advantages([group(*answers)], estimator, False, True)
    assert found.advantages == (0.5, -0.5)
    assert found.turn_advantages == ((1.0, 0.5, 0.5), (-1.0, -0.5))
    batch = pack_answers(trained_answers([found]))
    assert batch.targets.tolist() == [1, 2, 11, 12, 21, 22, 1, 2, 11, 12]
    assert batch.advantages_T.tolist() == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, -1.0, -1.0, -0.5, -0.5]
    log_probs = torch.full((10,), -1.0, requires_grad=True)
    policy_terms(log_probs, batch, PolicyLossConfig("dapo"), 8).sums["policy"].backward()
    assert log_probs.grad.tolist() == pytest.approx([-each for each in batch.advantages_T.tolist()])


def test_turns_tell_answers_of_equal_outcomes_apart():
    same = group(episode(1.0, (0.5, 1.0)), episode(1.0, (0.0, 1.0)))
    (by_turn,) = with_advantages([same], TurnLevel(), False, True)
    assert by_turn.turn_advantages == ((0.25, 0.0), (-0.25, 0.0))
    assert by_turn.trained == (True, True) and not by_turn.zero_variance
    (by_outcome,) = with_advantages([same], GroupNormalized(), False, True)
    assert by_outcome.trained == (False, False) and by_outcome.zero_variance
    assert pack_answers(trained_answers([by_outcome])).token_advantages is None


def test_an_answer_of_one_turn_has_the_outcomes_advantage():
    single = rollout((1.0, "stop"), (0.0, "stop"))
    (found,) = with_advantages([single], TurnLevel(LeaveOneOut()), False, False)
    assert (found.advantages, found.turn_advantages) == ((1.0, -1.0), ())


@pytest.mark.parametrize("setting", [{"weight": -1.0}, {"weight": math.nan}, {"weight": math.inf}, {"discount": 1.5}])
def test_weights_that_mean_nothing_are_refused(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=rf"TurnLevel.{name} is invalid"):
        TurnLevel(**setting)
