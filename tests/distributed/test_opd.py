"""On-policy distillation on two gloo ranks equals one rank: several teachers, a policy term, and replayed answers."""

import dataclasses
from pathlib import Path

import pytest
import torch

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data import Tokenizer
from nbg_lightning.data.question_sources import QuestionList
from nbg_lightning.modules.opd import OPDModule
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.testing import run_ranks
from nbg_lightning.testing.grpo import GRPO_SHAPE, EvenReward, small_tokenizer, train_small_grpo

# With a large eps AdamW's update is proportional to the gradient, and does not make signs of its rounding.
SMOOTH = AdamWConfig(lr=1.0, eps=1.0, weight_decay=0.0)
WORDS = [
    {"question": f"say {number}", "answer": str(number)} for number in range(3)
]  # of few: ranks have different numbers
NUMBERS = [{"question": f"{number} ?", "answer": str(number)} for number in range(9)]


def train(folder, devices, name, **options):
    root = Path(folder)
    run = train_small_grpo(
        root / f"{name}-{devices}",
        tokenizer=root / "tokenizer",
        module=OPDModule,
        devices=devices,
        steps=2,
        data_options={
            "sources": {"numbers": QuestionList(NUMBERS), "words": QuestionList(WORDS)},
            "validation_fraction": 0.25,
        },
        module_options={"optimizer": SMOOTH, "micro_batch_tokens": 60, "share_prefixes": devices > 1, **options},
        limit_val_batches=1,
        val_check_interval=1,
    )
    return {"metrics": run.metrics, "weights": run.weights}


def everything(folder, devices):
    """All that is compared between one rank and two."""
    teacher, other = f"{folder}/teacher", f"{folder}/other"
    found = {
        "two": train(
            folder, devices, "two", teacher={"numbers": teacher, "words": other}, w_policy=0.5, reward=EvenReward()
        ),
        "kept": train(
            folder, devices, "kept", teacher=teacher, reward=None, cache=f"{folder}/kept-{devices}", top_k=30
        ),
    }
    return found if devices == 1 else found | shared(folder, devices, teacher, other, context=2)


def shared(folder, devices, teacher, other, **settings):
    """The same, where ranks have a part of the tokens of all answers each."""
    parallel = ParallelConfig(compute_dtype="float32", **settings)
    both = {"teacher": {"numbers": teacher, "words": other}, "w_policy": 0.5, "reward": EvenReward()}
    kept = {"teacher": teacher, "reward": None, "cache": f"{folder}/kept-shared", "top_k": 30}
    return {
        "two, shared": train(folder, devices, "two-shared", parallel=parallel, **both),
        "kept, shared": train(folder, devices, "kept-shared", parallel=parallel, **kept),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opd")
    tokenizer = Tokenizer(small_tokenizer(folder))
    for seed, name in enumerate(("teacher", "other"), start=11):
        shape = dataclasses.replace(GRPO_SHAPE, hidden_size=48, intermediate_size=64)
        save_hugging_face(create_model(shape, seed=seed), folder / name, tokenizer, "float32", verify=False)
    one = run_ranks(everything, 1, str(folder), 1, folder=folder)[0]
    return one, run_ranks(everything, 2, str(folder), 2, folder=folder)


@pytest.mark.parametrize("name", ["two", "kept", "two, shared", "kept, shared"])
def test_two_ranks_are_one(runs, name):
    one = runs[0][name.partition(",")[0]]
    for rank in runs[1]:
        for step, expected in zip(rank[name]["metrics"], one["metrics"], strict=True):
            compared = {key: value for key, value in expected.items() if key.startswith(("train/", "val/", "rollout/"))}
            compared.pop("rollout/tokens_per_second")
            assert {"train/loss", "train/grad_norm"} <= compared.keys()
            for metric, value in compared.items():
                assert step[metric] == pytest.approx(value, rel=2e-3, abs=1e-6), metric
        assert "val/distillation" in one["metrics"][-1]
        for weight, expected in one["weights"].items():
            torch.testing.assert_close(rank[name]["weights"][weight], expected, rtol=1e-5, atol=1e-5, msg=weight)
