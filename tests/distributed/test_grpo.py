"""GRPO on two ranks: the same step as on one, also where ranks have different amounts of work, and failures that are shared."""

from pathlib import Path

import pytest
import torch

from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.rewards.protocol import RewardResult
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


def together(of_ranks):
    """The samples of all ranks, step by step."""
    return [dict(sorted({**first, **second}.items())) for first, second in zip(*of_ranks, strict=True)]


GROUPS = ("reward/", "pass_rate/", "policy/", "rollout/", "train/")
OWN = ("tokens_per_second", "p99_ratio")  # times, and a percentile that is each rank's own


@pytest.mark.parametrize("name", [*LOSSES, "uneven"])
def test_two_ranks_are_one(runs, name):
    one, two = runs[0][name], [rank[name] for rank in runs[1]]
    assert together([rank["scores"] for rank in two]) == [dict(sorted(step.items())) for step in one["scores"]]
    for rank in two:
        for step, expected in zip(rank["metrics"], one["metrics"], strict=True):
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
    """Else the test above says nothing of it."""
    shares = [step["rollout/errors"] for step in runs[0]["uneven"]["metrics"]]
    assert any(0 < share < 1 for share in shares)


def test_an_engine_dies_on_one_rank(runs, tokenizer, tmp_path):
    found = run_ranks(with_failures, 2, tmp_path, tokenizer, 2, folder=tmp_path)
    expected = train(tmp_path, tokenizer, 1, "straight")
    assert together([rank["once"]["scores"] for rank in found]) == [
        dict(sorted(step.items())) for step in expected["scores"]
    ]
    assert all("the engine died twice at step 0: gone" in rank["dead"] for rank in found)
