"""Advantages of answers, and which of them are trained."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion, Prompt
from nbg_lightning.rewards.protocol import RewardResult
from nbg_lightning.rl.advantages import GroupNormalized, LeaveOneOut, leave_one_out_advantages, with_advantages
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
