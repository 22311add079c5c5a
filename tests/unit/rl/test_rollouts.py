import math

import pytest
import torch

from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion, Prompt
from nbg_lightning.rewards.protocol import Reward, RewardResult
from nbg_lightning.rl.metrics import PolicyRecord, RolloutSummary
from nbg_lightning.rl.rollouts import Rollout, score_rollouts


def answer(length=2, reason="stop", error=None):
    completion = Completion(tuple(range(length)), (-1.0,) * length, reason, 0, 0, 0, error)
    return Answer(completion, "text", None, "text")


def rollout(*answers, source="a", results=(), **more):
    return Rollout(Question(({"role": "user", "content": "?"},), source=source), Prompt((1,)), answers, results, **more)


class Ones(Reward):
    name = "ones"

    def __init__(self):
        self.seen = []

    def score(self, groups):
        self.seen += [len(group.answers) for group in groups]
        return [[RewardResult(1.0) for _ in group.answers] for group in groups]


def test_the_reward_sees_finished_answers_only():
    reward = Ones()
    late, dead = answer(reason="deadline"), answer(0, "error", "out of memory")
    first, second = score_rollouts(
        reward, [rollout(answer(), late, answer(reason="length"), dead), rollout(dead, late)]
    )
    assert reward.seen == [2]
    assert [result.status for result in first.results] == ["ok", "timeout", "ok", "error"]
    assert [result.status for result in second.results] == ["error", "timeout"]
    assert second.results[0].detail == "engine: out of memory"


def test_a_summary_by_hand():
    ok, wrong, failed = RewardResult(1.0), RewardResult(0.25), RewardResult(None, "timeout", "too slow")
    parts = [
        RolloutSummary.of(
            [
                rollout(answer(2), answer(4, "length"), results=(ok, wrong), advantages=(1.0, -1.0), trained=(True, False)),
                rollout(answer(6), answer(8), results=(ok, failed), advantages=(0.0, 0.0), trained=(True, False), source="b"),
            ],
            {"engine": 2.0},
            3,
        ),
        RolloutSummary.of([], {"engine": 4.0}, 0),
    ]  # fmt: skip
    joined = RolloutSummary.joined(parts)
    assert (joined.micro_batches, joined.answers, joined.truncated) == (3, 4, 1)
    assert joined.first_problem == "timeout: too slow"
    assert joined.metrics() == {
        "reward/mean": 0.75,
        "reward/a": 0.625,
        "reward/b": 1.0,
        "pass_rate/mean": pytest.approx(2 / 3),
        "pass_rate/a": 0.5,
        "pass_rate/b": 1.0,
        "rollout/zero_variance": 0.5,
        "rollout/trained": 0.5,
        "rollout/bad_cases": 0.25,  # the one that the limit cut
        "rollout/no_end": 0.25,
        "rollout/loop": 0.0,
        "rollout/malformed": 0.0,
        "rollout/length": 5.0,
        "rollout/longest": 8.0,
        "rollout/truncated": 0.25,
        "rollout/dropped": 0.0,
        "rollout/errors": 0.25,
        "rollout/tokens_per_second": 5.0,
        "time/engine": 4.0,
    }


def test_a_policy_record_by_hand():
    """Two ranks, of which one has nothing; ratios 2 (cut to 1.5), 1 and 1/4."""
    record = PolicyRecord()
    engine = torch.tensor([0.25, 0.5, 0.8]).log()
    trainer = torch.tensor([0.5, 0.5, 0.2]).log()
    record.add_update(torch.tensor([True, False, False]))
    record.add_rollouts(trainer, torch.tensor([1.0, 2.0, 3.0]), engine, torch.tensor([1.5, 1.0, 0.25]))
    record.add_update(torch.tensor([False, False, True]))
    found = PolicyRecord.joined([record.on_host(), PolicyRecord().on_host()])
    mismatch = sum(ratio - 1 - math.log(ratio) for ratio in (2.0, 1.0, 0.25)) / 3
    assert found == {
        "policy/clip_share": pytest.approx(1 / 3),
        "policy/entropy": pytest.approx(2.0),
        "policy/mismatch_kl": pytest.approx(mismatch, rel=1e-5),
        "policy/corrected_share": pytest.approx(1 / 3),
        "policy/p99_ratio": pytest.approx(4.0),
    }
    assert PolicyRecord.joined([PolicyRecord().on_host()]) == {}
