"""Length budgets from a ledger: formula, phases, and a run in which answers become shorter."""

import dataclasses
import logging
from fractions import Fraction

import pytest

from nbg_lightning.callbacks.sentinel import Sentinel
from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.rewards.protocol import Group, Reward, RewardResult
from nbg_lightning.rl.length_budget import LengthBudgetReward
from nbg_lightning.rl.pass_rate import PassRateLedger
from nbg_lightning.rl.pass_rate.ledger import PassRate
from nbg_lightning.testing.grpo import small_tokenizer, train_small_grpo

ASKED = Question(({"role": "user", "content": "0 ?"},), "0", "numbers")


def answered(length):
    return Answer(Completion((3,) * length, (0.0,) * length, "stop", 0, 0, 0), "x", None, "x")


class Given(Reward):
    """Scores as given, in the order of the answers."""

    name = "given"

    def __init__(self, *scores):
        self.scores, self.steps, self.open = scores, [], 0

    def __enter__(self):
        self.open += 1
        return self

    def __exit__(self, *_):
        self.open -= 1

    def begin_step(self, step):
        self.steps.append(step)

    def check(self, question):
        return None if question.answer else "no gold"

    def score(self, groups):
        results = [
            RewardResult(s, "ok" if s is not None else "error", "" if s is not None else "x") for s in self.scores
        ]
        return [results[: len(group.answers)] for group in groups]


@pytest.fixture
def ledger(tmp_path):
    """A ledger in which the question has right answers of 4, 6 and 20 tokens."""
    rows = [
        PassRate(ASKED.key, "numbers", 4, 3, 0, 0.75, 9.0, 0, "c", right_lengths=[4, 6, 20]),
        PassRate("unsolved", "numbers", 4, 0, 0, 0.0, 9.0, 0, "c"),
    ]
    PassRateLedger(rows, {"sampling": {"n": 4}}).save(tmp_path / "rates.parquet")
    return str(tmp_path / "rates.parquet")


def test_the_formula_in_rational_numbers(ledger):
    """alpha 1/2, b_q = 6, L_max = 16: two of three scored answers are right."""
    lengths = (4, 6, 11, 16, 9)
    group = Group(ASKED, tuple(map(answered, lengths)))
    given = Given(1.0, 0.0, 1.0, None, 0.25)
    with LengthBudgetReward(given, ledger, 16, alpha=0.5) as reward:
        assert reward.budgets == {ASKED.key: 6.0} and given.open == 1
        (found,) = reward.score([group])
    assert given.open == 0
    share = Fraction(2, 4)
    expected = [
        None
        if score is None
        else float(Fraction(score) - Fraction(1, 2) * share * max(Fraction(length - 6, 10), Fraction(0)))
        for score, length in zip(given.scores, lengths, strict=True)
    ]
    assert [result.score for result in found] == pytest.approx(expected)
    assert [result.is_right for result in found] == [True, False, True, False, False]
    assert found[2].detail == "11 tokens of a budget of 6 cost 0.125" and found[3].status == "error"


def test_a_right_answer_is_worth_more_than_a_wrong_one_at_any_length(ledger):
    group = Group(ASKED, tuple(map(answered, (16, 1))))
    with LengthBudgetReward(Given(1.0, 0.0), ledger, 16, alpha=0.99) as reward:
        right, wrong = reward.score([group])[0]
    assert right.score > wrong.score


def test_questions_without_an_earlier_right_answer_have_no_budget(ledger):
    other = dataclasses.replace(ASKED, messages=({"role": "user", "content": "else"},))
    with LengthBudgetReward(Given(1.0, 1.0), ledger, 16) as reward:
        assert [result.score for result in reward.score([Group(other, (answered(16), answered(2)))])[0]] == [1.0, 1.0]


def test_quantile_and_least_budget(ledger):
    with (
        LengthBudgetReward(Given(), ledger, 30, quantile=0.0) as low,
        LengthBudgetReward(Given(), ledger, 30, quantile=1.0) as high,
    ):
        assert (low.budgets[ASKED.key], high.budgets[ASKED.key]) == (4.0, 20.0)
    with LengthBudgetReward(Given(), ledger, 30, least_budget=10) as floor:
        assert floor.budgets[ASKED.key] == 10.0


def test_a_budget_that_no_answer_exceeds_bounds_nothing(ledger, caplog):
    caplog.set_level(logging.INFO, logger="nbg_lightning")
    with LengthBudgetReward(Given(1.0), ledger, 5) as reward:
        assert reward.score([Group(ASKED, (answered(5),))])[0][0].score == 1.0
    assert "1 are not below max_tokens=5 and bound nothing" in caplog.text


def test_phases_follow_the_step(ledger):
    given = Given(1.0)
    with LengthBudgetReward(given, ledger, 16, alpha=0.5, constrained_steps=2, free_steps=1) as reward:
        scores = []
        for step in range(7):
            reward.begin_step(step)
            scores.append(reward.score([Group(ASKED, (answered(16),))])[0][0].score)
    assert scores == [0.5, 0.5, 1.0, 0.5, 0.5, 1.0, 0.5]
    assert given.steps == list(range(7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.0}, "alpha is invalid: 1.0; give a number between 0 and 1"),
        ({"alpha": 0.0}, "alpha is invalid: 0.0"),
        ({"alpha": float("nan")}, "alpha is invalid: nan"),
        ({"quantile": 1.5}, "quantile is invalid: 1.5"),
        ({"least_budget": 16}, "least_budget is invalid: 16; give at least 1, and less than max_tokens=16"),
        ({"constrained_steps": 0}, "constrained_steps and free_steps are invalid: 0, 0"),
        ({"free_steps": -1}, "constrained_steps and free_steps are invalid: 1, -1"),
    ],
)
def test_settings_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        LengthBudgetReward(Given(), "there.parquet", 16, **options)


def test_a_ledger_that_is_not_there_or_has_no_lengths(tmp_path):
    with pytest.raises(FileNotFoundError, match="make it by `nbg pass-rate CONFIG`"):
        LengthBudgetReward(Given(), str(tmp_path / "none.parquet"), 16).__enter__()
    rows = [PassRate("k", "s", 2, 1, 0, 0.5, 3.0, 0, "c")]
    PassRateLedger(rows, {}).save(tmp_path / "old.parquet")
    with pytest.raises(ValueError, match="has no lengths of right answers: it was written by an earlier version"):
        LengthBudgetReward(Given(), str(tmp_path / "old.parquet"), 16).__enter__()


class Right(Reward):
    """Every answer is right."""

    name = "right"

    def score(self, groups):
        return [[RewardResult(1.0)] * len(group.answers) for group in groups]


def test_answers_become_shorter_and_pass_rates_stay_those_of_the_reward(tmp_path):
    """All answers are right, so that only their length is learned: a model with random weights comes to end them."""
    from nbg_lightning.modules.optimizer import AdamWConfig

    questions = [
        Question(({"role": "user", "content": f"{number} ?"},), str(number), "numbers") for number in range(24)
    ]
    rows = [PassRate(q.key, "numbers", 4, 4, 0, 1.0, 2.0, 0, "c", right_lengths=(1, 2)) for q in questions]
    PassRateLedger(rows, {}).save(tmp_path / "rates.parquet")
    run = train_small_grpo(
        tmp_path / "run",
        tokenizer=small_tokenizer(tmp_path),
        steps=20,
        reward=LengthBudgetReward(Right(), str(tmp_path / "rates.parquet"), 12, alpha=0.9),
        callbacks=[Sentinel(stop=())],  # at the end all answers are as short as they can be
        module_options={
            "max_new_tokens": 12,
            "group_size": 16,
            "optimizer": AdamWConfig(lr=2e-2, weight_decay=0.0),
        },
    )
    lengths = run.column("rollout/length")
    assert sum(lengths[-5:]) < 0.6 * sum(lengths[:5])
    assert set(run.column("pass_rate/mean")) == {1.0}
    assert run.column("reward/mean")[0] < run.column("reward/mean")[-1] <= 1.0
