"""A reward that raises."""

from collections import Counter
from itertools import islice

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


class Judge(Reward):
    """Yields a score a group, and counts how often each answer was asked for."""

    name = "judge"

    def __init__(self):
        self.asked = Counter()

    def score(self, groups):
        for each in groups:
            text = each.answers[0].text
            self.asked[text] += 1
            if text.startswith("raise"):
                raise OSError("the judge is gone")
            yield [RewardResult(1.0)] * (2 if text == "two for one" else 1)


def test_what_was_answered_before_an_error_is_not_asked_again():
    judge = Judge()
    texts = ["a", "b", "raise 1", "c", "two for one", "d", "raise 2", "e"]
    results = score_groups(judge, [group(asked("5"), text) for text in texts])
    failing = {"raise 1", "raise 2", "two for one"}
    assert scores(results) == [[None if text in failing else 1.0] for text in texts]
    assert judge.asked == {text: 2 if text in failing else 1 for text in texts}
    assert "the judge is gone" in results[2][0].detail and "2 results for 1 answers" in results[4][0].detail


def test_a_reward_that_yields_more_or_less_than_was_asked_is_asked_one_by_one():
    class Miscounts(Judge):
        def score(self, groups):
            yield from super().score(groups)
            if len(groups) > 1:
                yield [RewardResult(0.0)]

    groups = [group(asked("5"), text) for text in "ab"]
    assert scores(score_groups(Miscounts(), groups)) == [[1.0], [1.0]]

    class Stops(Judge):
        def score(self, groups):
            return islice(super().score(groups), len(groups) - 1)

    results = score_groups(Stops(), groups)
    assert scores(results) == [[1.0], [None]]
