"""A suite gives the same numbers on two ranks as on one, and does not affect training."""

import json
from pathlib import Path

import pytest
import torch

from nbg_lightning.callbacks.benchmark_suite import BenchmarkSuiteCallback
from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.datamodules.benchmark import BenchmarkDataModule
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.evaluation import Arithmetic, Questions, Suite, TextPerplexity
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.testing import SMALL_SHAPE, run_ranks, train_small
from nbg_lightning.testing.benchmarks import character_tokenizer, write_rows
from nbg_lightning.trainer import Trainer


def suite(folder):
    """Seven, eight and one items: shares of ranks differ, and one has none of the last."""
    folder = Path(folder)
    return Suite(
        [
            Arithmetic(count=7, n=2, temperature=1.0),
            Questions(path=str(folder / "choices.jsonl"), answers="rated"),
            TextPerplexity(path=str(folder / "texts.jsonl")),
        ],
        name="tiny",
        sampling=Sampling(max_new_tokens=6, temperature=0.0),
        items_per_call=2,
    )


def train_and_test(folder, ranks):
    """Training with and without the suite, then the suite through the Trainer."""
    tokenizer = str(Path(folder) / "tokenizer")
    own = Path(folder) / f"ranks-{ranks}"
    plain = train_small(own / "plain", devices=ranks)
    callback = BenchmarkSuiteCallback(suite(folder), at_stage_ends=True, tokenizer=tokenizer)
    with_suite = train_small(own / "with", devices=ranks, callbacks=[callback])
    trainer = Trainer(
        accelerator="cpu", devices=ranks, default_root_dir=str(own / "test"), logger=False, enable_progress_bar=False
    )
    module = PretrainModule(SMALL_SHAPE, parallel=ParallelConfig(compute_dtype="float32"))
    data = BenchmarkDataModule(suite(folder), tokenizer)
    checkpoint = own / "with" / "checkpoints" / "step-00000012"
    (tested,) = trainer.test(module, datamodule=data, ckpt_path=checkpoint, verbose=False)
    return {
        "plain": plain.losses,
        "with": with_suite.losses,
        "same weights": all(torch.equal(w, with_suite.weights[name]) for name, w in plain.weights.items()),
        "steps": [step for step, _ in callback.results],
        "metrics": [result.metrics for _, result in callback.results],
        "folder": callback.results[-1][1].folder,
        "records": {name: len(own) for name, own in callback.results[-1][1].records.items()},
        "tested": {name: value for name, value in tested.items() if name.startswith("benchmark/")},
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    character_tokenizer(folder / "tokenizer")
    rows = [{"question": f"pick {i}", "choices": ["one", "three hundred", "2"], "answer": i % 3} for i in range(8)]
    write_rows(folder / "choices.jsonl", rows)
    write_rows(folder / "texts.jsonl", [{"text": "one text only, for one of the ranks."}])
    (one,) = run_ranks(train_and_test, 1, str(folder), 1, folder=folder)
    return one, run_ranks(train_and_test, 2, str(folder), 2, folder=folder)


def test_training_is_identical_with_and_without(found):
    for rank in found[1]:
        assert rank["with"] == rank["plain"]
        assert rank["same weights"]


def test_all_ranks_have_the_same_numbers_and_the_first_the_records(found):
    first, second = found[1]
    assert first["steps"] == second["steps"] == [4, 8, 12]
    assert first["metrics"] == second["metrics"]
    assert first["tested"] == second["tested"]
    assert first["records"] == {"arithmetic": 7, "questions": 8, "perplexity": 1}
    assert second["records"] == {}
    assert first["folder"] == second["folder"]


def test_one_rank_and_two_have_the_same_numbers(found):
    one, (two, _) = found
    for at_one, at_two in zip(one["metrics"], two["metrics"], strict=True):
        assert at_one == pytest.approx(at_two, abs=1e-5)


def test_callback_and_trainer_have_the_same_numbers(found):
    for rank in (found[0], *found[1]):
        assert rank["tested"] == pytest.approx(rank["metrics"][-1], rel=1e-6), "Lightning logs in float32"


def test_records_are_whole(found):
    one, (two, _) = found
    for name in ("arithmetic", "questions", "perplexity"):
        at_one, at_two = (
            sorted(
                (json.loads(line) for line in Path(each["folder"], f"{name}.jsonl").read_text().splitlines()),
                key=lambda r: r["index"],
            )
            for each in (one, two)
        )
        assert [r["id"] for r in at_one] == [r["id"] for r in at_two]
        assert [r.get("prompt_hash") for r in at_one] == [r.get("prompt_hash") for r in at_two]
        for first, second in zip(at_one, at_two, strict=True):
            assert [s["text"] for s in first.get("samples", [])] == [s["text"] for s in second.get("samples", [])]
