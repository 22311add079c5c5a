import logging
import math
import re
from types import SimpleNamespace

import pytest

from nbg_lightning.callbacks import Sentinel, StepCheckpoint
from nbg_lightning.rewards.protocol import RewardResult

GOOD = {
    "train/loss": 0.1,
    "reward/mean": 0.4,
    "pass_rate/mean": 0.4,
    "rollout/zero_variance": 0.5,
    "rollout/errors": 0.0,
    "rollout/truncated": 0.1,
    "policy/entropy": 1.0,
    "policy/mismatch_kl": 1e-4,
    "policy/p99_ratio": 1.05,
}


class Saved(StepCheckpoint):
    def __init__(self):
        super().__init__()
        self.saved = []

    def save(self, trainer):
        self.saved.append(trainer.global_step)


class Run:
    """Steps with given metrics."""

    def __init__(self, sentinel, **module):
        self.sentinel, self.module = sentinel, SimpleNamespace(skipped_steps=0, **module)
        self.checkpoint = Saved()
        self.trainer = SimpleNamespace(global_step=0, callback_metrics={}, callbacks=[sentinel, self.checkpoint])
        sentinel.on_train_start(self.trainer, self.module)

    def step(self, skipped=0, **changed):
        self.trainer.global_step += 1
        self.module.skipped_steps += skipped
        names = {name.rpartition("/")[2]: name for name in GOOD if name != "pass_rate/mean"}
        self.trainer.callback_metrics = {**GOOD, **{names[name]: value for name, value in changed.items()}}
        self.sentinel.on_train_batch_end(self.trainer, self.module, None, None, 0)


def warnings(caplog):
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_a_good_run_is_left_alone(caplog):
    run = Run(Sentinel(patience=1))
    for _ in range(20):
        run.step()
    assert not warnings(caplog)
    assert run.checkpoint.saved == []


STOPS = {
    "never solved": (
        dict(zero_variance=1.0, mean=0.0),
        "100% of the groups.*too hard.*nbg pass-rate.*zero_advantage, 3 steps",
    ),
    "errors": (dict(errors=0.5), "50% of the answers have no score.*model.init_args.reward.*errors, 3 steps"),
    "mismatch": (dict(mismatch_kl=0.3), r"policy/mismatch_kl is 0.3 \(limit 0.05\).*compute_dtype"),
    "ratio": (dict(p99_ratio=math.nan), "policy/p99_ratio is nan"),
    "non-finite": (dict(skipped=1), "not finite.*lower the learning rate"),
    "loss": (dict(loss=math.inf), r"loss \(inf\)"),
}


@pytest.mark.parametrize(("bad", "message"), STOPS.values(), ids=STOPS)
def test_it_stops_after_bad_steps_in_a_row_and_saves(bad, message):
    run = Run(Sentinel(patience=3))
    run.step()
    run.step(**bad)
    run.step(**bad)
    run.step()  # in a row, not in all
    run.step(**bad)
    run.step(**bad)
    with pytest.raises(RuntimeError, match=rf"stopped after step 7: .*{message}"):
        run.step(**bad)
    assert run.checkpoint.saved == [7]


WARNS = {
    "entropy": (dict(entropy=0.01), "entropy is 0.01 nats a token, 1 when the run began"),
    "truncation": (dict(truncated=0.8), "80% of the answers are cut off at 256 tokens.*max_new_tokens"),
}


@pytest.mark.parametrize(("bad", "message"), WARNS.values(), ids=WARNS)
def test_it_warns_once_until_it_is_good_again(caplog, bad, message):
    run = Run(Sentinel(patience=2), max_new_tokens=256)
    for _ in range(3):
        run.step()
    for _ in range(5):
        run.step(**bad)
    assert len(warnings(caplog)) == 1
    assert re.search(message, warnings(caplog)[0])
    run.step()
    run.step(**bad)
    run.step(**bad)
    assert len(warnings(caplog)) == 2


def test_what_stops_is_a_setting(caplog):
    run = Run(Sentinel(patience=1, stop=["truncation"]))
    run.step(errors=1.0)
    assert "100% of the answers have no score" in warnings(caplog)[0]
    with pytest.raises(RuntimeError, match="cut off"):
        run.step(truncated=1.0)


def test_causes_of_zero_advantage_are_told_apart():
    for changed, cause in (
        (dict(mean=0.0), "too hard"),
        (dict(mean=0.0, truncated=0.9), "cut off; raise model.init_args.max_new_tokens"),
        (dict(mean=0.5), "tells them apart"),
    ):
        with pytest.raises(RuntimeError, match=cause):
            Run(Sentinel(patience=1)).step(zero_variance=1.0, **changed)
    run = Run(Sentinel(patience=1))
    run.trainer.callback_metrics = {**GOOD, "rollout/zero_variance": 1.0, "reward/mean": 1.0, "pass_rate/mean": 1.0}
    with pytest.raises(RuntimeError, match="too easy"):
        run.sentinel.on_train_batch_end(run.trainer, run.module, None, None, 0)


def test_the_first_failing_verdict_is_quoted():
    result = RewardResult(None, "error", "the worker was killed after 5 s")
    run = Run(Sentinel(patience=1), last_rollouts=[SimpleNamespace(results=(RewardResult(1.0), result))])
    with pytest.raises(RuntimeError, match="for example: the worker was killed after 5 s"):
        run.step(errors=0.5)


def test_rules_are_switched_off_by_null(caplog):
    run = Run(
        Sentinel(
            patience=1, max_zero_variance=None, max_errors=None, max_mismatch_kl=None, max_p99_ratio=None,
            min_entropy_share=None, max_truncation=None,
        )
    )  # fmt: skip
    run.step(zero_variance=1.0, errors=1.0, mismatch_kl=9.0, p99_ratio=99.0, entropy=0.0, truncated=1.0)
    assert not warnings(caplog) and run.checkpoint.saved == []


def test_it_watches_sft_too():
    """Only the rule for which there are metrics applies."""
    sentinel = Sentinel(patience=2)
    run = Run(sentinel)
    for skipped in (1, 2):
        run.trainer.global_step = run.module.skipped_steps = skipped
        run.trainer.callback_metrics = {"train/loss": math.nan, "train/grad_norm": math.nan}
        if skipped == 1:
            sentinel.on_train_batch_end(run.trainer, run.module, None, None, 0)
    with pytest.raises(RuntimeError, match="non_finite, 2 steps"):
        sentinel.on_train_batch_end(run.trainer, run.module, None, None, 0)


def test_entropy_is_compared_with_the_beginning_of_the_run_after_a_resume(caplog):
    run = Run(Sentinel(patience=2))
    run.step(entropy=2.0)
    run.step(entropy=4.0)
    again = Sentinel(patience=2, min_entropy_share=0.5)
    again.load_state_dict(run.sentinel.state_dict())
    resumed = Run(again)
    resumed.step(entropy=1.4)
    resumed.step(entropy=1.4)
    assert "3 when the run began" in warnings(caplog)[0]


def test_settings_that_cannot_be():
    for options, problem in (
        (dict(patience=0), "at least 1 step"),
        (dict(max_errors=2.0), "max_errors is invalid: 2.0; give a share"),
        (dict(max_p99_ratio=0), "above 0"),
        (dict(stop=["boredom"]), "stop is invalid: boredom"),
    ):
        with pytest.raises(ValueError, match=problem):
            Sentinel(**options)
