"""A reward that raises."""

from answers import asked, group, scores

from nbg_lightning.rewards import CombinedReward, Reward, RewardResult
from nbg_lightning.rewards.protocol import score_groups


class Raises(Reward):
    """Raises, or gives too few results, for a group with a certain answer; else 1 for every answer."""

    name = "raises"

    def score(self, groups):
        if any(answer.text == "raise" for each in groups for answer in each.answers):
            raise RuntimeError("cannot read this\nmore of it")
        few = any(answer.text == "few" for each in groups for answer in each.answers)
        nan = [float("nan") if answer.text == "nan" else 1.0 for answer in groups[0].answers]
        return [
            [RewardResult(score) for score in nan][int(few) :],
            *[[RewardResult(1.0)] * len(g.answers) for g in groups[1:]],
        ]


def test_a_group_for_which_a_reward_raises_costs_no_other_its_scores():
    question = asked("5")
    groups = [group(question, "a", "b"), group(question, "raise", "c"), group(question, "few"), group(question, "d")]
    results = score_groups(Raises(), groups)
    assert scores(results) == [[1.0, 1.0], [None, None], [None], [1.0]]
    assert {each.status for each in results[1] + results[2]} == {"error"}
    assert results[1][0].detail == "reward 'raises' failed: cannot read this"
    assert results[2][0].detail == "reward 'raises' failed: it gave 0 results for 1 answers"
    assert score_groups(Raises(), []) == []


def test_scores_that_are_not_finite_are_errors():
    assert scores(score_groups(Raises(), [group(asked("5"), "nan", "a")])) == [[None, 1.0]]


def test_a_part_of_a_sum_that_raises():
    reward = CombinedReward([Raises()])
    groups = [group(asked("5"), "a"), group(asked("5"), "raise")]
    assert scores(reward.score(groups)) == [[1.0], [None]]
