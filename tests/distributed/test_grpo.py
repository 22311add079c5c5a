"""GRPO on two ranks: the same step as on one, also with unequal work per rank; failures are shared."""

import dataclasses
from pathlib import Path

import pytest
import torch

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.modules.grpo import GRPOModule
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.rewards.protocol import RewardResult
from nbg_lightning.rl.rollout_settings import RolloutSettings
from nbg_lightning.testing import run_ranks
from nbg_lightning.testing.grpo import EvenReward, small_tokenizer, train_small_grpo

# With a large eps AdamW's update is proportional to the gradient, and does not make signs of its rounding.
SMOOTH = AdamWConfig(lr=1.0, eps=1.0, weight_decay=0.0)
LOSSES = ("grpo", "dr_grpo", "dapo", "gspo", "cispo")
STEPS = 2


class Uneven(EvenReward):
    """No score for most answers to some questions: ranks have different numbers of answers to train."""

    def score(self, groups):
        results = super().score(groups)
        for group, row in zip(groups, results, strict=True):
            if int(group.question.answer) % 3 == 0:
                row[1:] = [RewardResult(None, "error", "no verdict")] * (len(row) - 1)
        return results


class Ending(GRPOModule):
    """Of random weights some answers end early."""

    def sampling(self, n, seed):
        return dataclasses.replace(super().sampling(n, seed), stop_ids=tuple(range(0, 290, 11)))


class DiesOnOneRank(NativeEngine):
    """The second rank's engine dies in its second call. Not before ranks have gathered the weights: that they do together."""

    calls = 0

    def generate(self, prompts, sampling, deadline=None):
        found = super().generate(prompts, sampling, deadline)
        self.calls += 1
        if torch.distributed.get_rank() == 1 and self.calls == 2:
            raise OSError("gone")
        return found


class AlwaysDead(NativeEngine):
    def generate(self, prompts, sampling, deadline=None):
        found = super().generate(prompts, sampling, deadline)
        if torch.distributed.get_rank() == 1:
            raise OSError("gone")
        return found


def train(folder, tokenizer, devices, name, **options):
    # Two ranks share prompts, one does not: sharing changes nothing either.
    defaults = {"optimizer": SMOOTH, "micro_batch_tokens": 60, "share_prefixes": devices > 1}
    module_options = {**defaults, **options.pop("module_options", {})}
    run = train_small_grpo(
        Path(folder) / f"{name}-{devices}",
        tokenizer=tokenizer,
        devices=devices,
        steps=STEPS,
        module_options=module_options,
        **options,
    )
    return {"scores": run.scores, "metrics": run.metrics, "weights": run.weights}


def everything(folder, tokenizer, devices):
    """All that is compared between one rank and two."""
    options = {
        name: {"module_options": {"loss": {"name": name, "mask_truncated": False}, "inner_updates": 2}}
        for name in LOSSES
    }
    found = {name: train(folder, tokenizer, devices, name, **of_name) for name, of_name in options.items()}
    dropped = {"loss": {"name": "grpo", "mask_truncated": False, "zero_variance": "drop"}, "max_new_tokens": 9}
    found["uneven"] = train(folder, tokenizer, devices, "uneven", reward=Uneven(), module_options=dropped)
    budget = {"loss": {"name": "grpo", "mask_truncated": False}, "max_new_tokens": 24}
    budget["rollouts"] = RolloutSettings(token_budget=140)
    found["budget"] = train(folder, tokenizer, devices, "budget", module=Ending, module_options=budget)
    if devices > 1:
        balanced = {**dropped, "rollouts": RolloutSettings(balance_ranks=True)}
        found["uneven, balanced"] = train(
            folder, tokenizer, devices, "balanced", reward=Uneven(), module_options=balanced
        )
        found |= shared(folder, tokenizer, devices, context=2)
    return found


def shared(folder, tokenizer, devices, **settings):
    """The runs whose answers ranks share: of each loss that has sums over an answer, and with ranks of unlike work."""
    parallel = ParallelConfig(compute_dtype="float32", **settings)
    gspo = {"loss": {"name": "gspo", "mask_truncated": False}, "inner_updates": 2, "parallel": parallel}
    dropped = {"loss": {"name": "grpo", "mask_truncated": False, "zero_variance": "drop"}, "max_new_tokens": 9}
    dropped |= {"parallel": parallel, "micro_batch_tokens": 30}
    return {
        "gspo, shared": train(folder, tokenizer, devices, "gspo-shared", module_options=gspo),
        "uneven, shared": train(folder, tokenizer, devices, "uneven-shared", reward=Uneven(), module_options=dropped),
    }


def on_four_ranks(folder, tokenizer):
    """A group of four, and two groups of two; and a run that resumes with another size."""
    found = {name: shared(Path(folder) / name, tokenizer, 4, context=int(name[0])) for name in ("4 of 4", "2 of 4")}
    options = {"loss": {"name": "gspo", "mask_truncated": False}, "inner_updates": 2}
    first = {"module_options": {**options, "parallel": ParallelConfig(compute_dtype="float32", context=4)}}
    train(folder, tokenizer, 4, "first", checkpoint_every=1, **first)
    other = {"module_options": {**options, "parallel": ParallelConfig(compute_dtype="float32", context=2)}}
    middle = Path(folder) / "first-4/checkpoints/step-00000001"
    found["resumed"] = {"gspo, shared": train(folder, tokenizer, 4, "resumed", resume=middle, **other)}
    return found


def with_failures(folder, tokenizer, devices):
    """One rank's engine dies, once and for good."""
    found = {"once": train(folder, tokenizer, devices, "once", module_options={"engine": DiesOnOneRank()})}
    try:
        train(folder, tokenizer, devices, "dead", module_options={"engine": AlwaysDead()})
    except RuntimeError as error:
        found["dead"] = str(error)
    return found


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return small_tokenizer(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("grpo")
    return everything(folder, tokenizer, 1), run_ranks(everything, 2, folder, tokenizer, 2, folder=folder)


@pytest.fixture(scope="module")
def four(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("four")
    return run_ranks(on_four_ranks, 4, folder, tokenizer, folder=folder, timeout=600)


def together(of_ranks):
    """The samples of all ranks, step by step."""
    return [dict(sorted(item for own in step for item in own.items())) for step in zip(*of_ranks, strict=True)]


GROUPS = ("reward/", "pass_rate/", "policy/", "rollout/", "train/")
OWN = ("tokens_per_second", "p99_ratio")  # times, and a percentile that is each rank's own


@pytest.mark.parametrize("name", [*LOSSES, "uneven", "budget", "uneven, balanced", "gspo, shared", "uneven, shared"])
def test_two_ranks_are_one(runs, name):
    """``shared``: each has its part of the tokens of all answers. ``balanced``: answers of one rank are trained by the other."""
    assert_same(runs[0][name.partition(",")[0]], [rank[name] for rank in runs[1]])


def test_ranks_with_unlike_work_share_it(runs):
    """Of one answer's positions at most is a rank ahead of the mean; without balance it is as they drew."""
    for rank in runs[1]:
        for step, plain in zip(rank["uneven, balanced"]["metrics"], rank["uneven"]["metrics"], strict=True):
            assert plain["rollout/imbalance"] == plain["rollout/imbalance_trained"] == step["rollout/imbalance"]
            assert step["rollout/imbalance_trained"] <= step["rollout/imbalance"]
        assert max(step["rollout/imbalance"] for step in rank["uneven, balanced"]["metrics"]) > 1.1
        assert max(step["rollout/imbalance_trained"] for step in rank["uneven, balanced"]["metrics"]) < 1.1
    assert "rollout/imbalance" not in runs[0]["uneven"]["metrics"][0]  # of one rank


@pytest.mark.slow
@pytest.mark.parametrize("size", ["4 of 4", "2 of 4", "resumed"])
def test_four_ranks_that_share_answers_are_one(runs, tokenizer, four, size):
    names = ["gspo, shared"] if size == "resumed" else ["gspo, shared", "uneven, shared"]
    for name in names:
        assert_same(runs[0][name.partition(",")[0]], [rank[size][name] for rank in four], done=size == "resumed")


def assert_same(one, ranks, done=0):
    """Samples, metrics and weights, of the steps after those that are done."""
    expected = [dict(sorted(step.items())) for step in one["scores"][done:]]
    assert together([rank["scores"] for rank in ranks]) == expected
    for rank in ranks:
        for step, expected in zip(rank["metrics"], one["metrics"][done:], strict=True):
            compared = {
                name: value for name, value in expected.items() if name.startswith(GROUPS) and not name.endswith(OWN)
            }
            assert {name.partition("/")[0] for name in compared} == {
                "reward",
                "pass_rate",
                "policy",
                "rollout",
                "train",
            }
            for metric, value in compared.items():
                assert step[metric] == pytest.approx(value, rel=1e-3, abs=1e-6), metric
        for weight, expected in one["weights"].items():
            torch.testing.assert_close(rank["weights"][weight], expected, rtol=2e-6, atol=2e-6, msg=weight)


def test_the_uneven_run_is_uneven(runs):
    """Otherwise the test above proves nothing."""
    shares = [step["rollout/errors"] for step in runs[0]["uneven"]["metrics"]]
    assert any(0 < share < 1 for share in shares)


def test_an_engine_dies_on_one_rank(runs, tokenizer, tmp_path):
    found = run_ranks(with_failures, 2, tmp_path, tokenizer, 2, folder=tmp_path)
    expected = train(tmp_path, tokenizer, 1, "straight")
    assert together([rank["once"]["scores"] for rank in found]) == [
        dict(sorted(step.items())) for step in expected["scores"]
    ]
    assert all("the engine died twice at step 0: gone" in rank["dead"] for rank in found)
