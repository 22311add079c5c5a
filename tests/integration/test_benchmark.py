"""Benchmarks in a callback, through the Trainer and from the command line: the same numbers, without side effects on training."""

import json
from pathlib import Path

import pytest
import torch

from nbg_lightning.callbacks.benchmark_suite import BenchmarkSuiteCallback
from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.data.tokenizer import TokenizerConfig
from nbg_lightning.datamodules.benchmark import BenchmarkDataModule
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.evaluation import Arithmetic, Questions, Suite
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.modules.sft import SFTModule
from nbg_lightning.testing import SMALL_SHAPE, SMALL_STEP_TOKENS, train_small
from nbg_lightning.testing.benchmarks import character_tokenizer, write_rows
from nbg_lightning.trainer import Trainer

EXACT = ParallelConfig(compute_dtype="float32")


def suite(folder):
    rows = [{"question": f"pick {i}", "choices": ["one", "three hundred", "2"], "answer": i % 3} for i in range(8)]
    return Suite(
        [
            Arithmetic(count=6, n=2, temperature=1.0, num_shots=1),
            Questions(path=write_rows(folder / "c.jsonl", rows), answers="rated"),
        ],
        name="tiny",
        sampling=Sampling(max_new_tokens=6, temperature=0.0),
    )


def numbers(metrics):
    return {name: round(float(value), 6) for name, value in metrics.items() if name.startswith("benchmark/")}


def trainer(folder):
    return Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=str(folder),
        logger=False,
        enable_progress_bar=False,
        callbacks=[],
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same small training without benchmarks and with them, with averaged weights."""
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = character_tokenizer(folder / "tokenizer")
    options = {"ema_decay": 0.5}
    plain = train_small(folder / "plain", module_options=options)
    callback = BenchmarkSuiteCallback(
        suite(folder),
        every_n_tokens=5 * SMALL_STEP_TOKENS,
        at_stage_ends=True,
        at_fit_start=True,
        tokenizer=TokenizerConfig(str(tokenizer.folder)),
    )
    with_suite = train_small(folder / "with", module_options=options, callbacks=[callback])
    return folder, tokenizer, plain, with_suite, callback


def test_training_is_identical_with_and_without(runs):
    _, _, plain, with_suite, _ = runs
    assert with_suite.losses == plain.losses
    assert with_suite.grad_norms == plain.grad_norms
    for name, weight in plain.weights.items():
        assert torch.equal(weight, with_suite.weights[name]), name
    for name, average in plain.averages.items():
        assert torch.equal(average, with_suite.averages[name]), name


def test_it_runs_when_it_should_and_once(runs):
    *_, callback = runs
    assert [step for step, _ in callback.results] == [0, 4, 5, 8, 10, 12], (
        "stages end at 4, 8, 12; every 5 steps; fit ends at 12"
    )


def test_results_are_written(runs):
    folder, _, _, _, callback = runs
    lines = [json.loads(line) for line in (folder / "with" / "benchmarks" / "tiny.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 4, 5, 8, 10, 12]
    assert lines[1]["tokens"] == 4 * SMALL_STEP_TOKENS
    assert lines[-1]["metrics"] == callback.results[-1][1].metrics
    records = [json.loads(line) for line in Path(lines[-1]["folder"], "arithmetic.jsonl").read_text().splitlines()]
    assert len(records) == 6
    assert all(len(record["samples"]) == 2 for record in records)


def test_rng_and_mode_are_kept(runs):
    from nbg_lightning.evaluation.live import run_on_module

    folder, tokenizer, *_ = runs
    module = PretrainModule(SMALL_SHAPE, parallel=EXACT)
    trainer(folder / "rng").validate(
        module, datamodule=BenchmarkDataModule(suite(folder), str(tokenizer.folder)), verbose=False
    )
    module.train()
    before = torch.get_rng_state()
    run_on_module(suite(folder), module, tokenizer, None, "x")
    assert torch.equal(before, torch.get_rng_state())
    assert module.training
    assert module.model.training


@pytest.mark.parametrize("kind", [PretrainModule, SFTModule])
def test_same_numbers_through_the_trainer(runs, kind):
    """On the checkpoint of the run, with its averaged weights, as the callback asked them."""
    folder, tokenizer, _, _, callback = runs
    checkpoint = folder / "with" / "checkpoints" / "step-00000012"
    module = kind(SMALL_SHAPE, parallel=EXACT, ema_decay=0.5)
    data = BenchmarkDataModule(suite(folder), str(tokenizer.folder))
    (found,) = trainer(folder / kind.__name__).test(module, datamodule=data, ckpt_path=checkpoint, verbose=False)
    assert numbers(found) == numbers(callback.results[-1][1].metrics)
    (validated,) = trainer(folder / kind.__name__).validate(
        module, datamodule=data, ckpt_path=checkpoint, verbose=False
    )
    assert numbers(validated) == numbers(found)


def test_a_trainer_goes_on_with_other_data(runs):
    folder, tokenizer, *_ = runs
    own = trainer(folder / "both")
    module = PretrainModule(SMALL_SHAPE, parallel=EXACT)
    first = BenchmarkDataModule(suite(folder), str(tokenizer.folder))
    own.test(module, datamodule=first, verbose=False)
    second = BenchmarkDataModule(suite(folder), str(tokenizer.folder))
    own.test(module, datamodule=second, verbose=False)
    assert first.result.metrics == second.result.metrics
    assert len([c for c in own.callbacks if type(c).__name__ == "_RunSuite"]) == 1


def test_what_cannot_be_is_said_before_training(runs, tmp_path):
    folder, tokenizer, *_ = runs
    missing = Suite([Questions(path=str(tmp_path / "none.jsonl"))])
    with pytest.raises(FileNotFoundError, match="there is no file of items"):
        train_small(tmp_path / "a", callbacks=[BenchmarkSuiteCallback(missing, tokenizer=str(tokenizer.folder))])
    with pytest.raises(ValueError, match="has no tokenizer"):
        train_small(tmp_path / "b", callbacks=[BenchmarkSuiteCallback(suite(folder))])
    with pytest.raises(ValueError, match="never runs"):
        BenchmarkSuiteCallback(missing, at_fit_end=False)
    with pytest.raises(ValueError, match="train_vocab_size is invalid here"):
        BenchmarkSuiteCallback(missing, tokenizer=TokenizerConfig(train_vocab_size=400))
    module = PretrainModule(SMALL_SHAPE, parallel=EXACT)
    with pytest.raises(ValueError, match="BenchmarkDataModule has no data for fit"):
        trainer(tmp_path / "c").fit(module, datamodule=BenchmarkDataModule(suite(folder), str(tokenizer.folder)))
    with pytest.raises(ValueError, match="there is no tokenizer"):
        trainer(tmp_path / "d").test(module, datamodule=BenchmarkDataModule(suite(folder)))


def test_command_line_on_a_hugging_face_folder(runs, tmp_path, capsys):
    """`nbg test`: the tokenizer is that of the folder, and the results are where the table says."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from nbg_lightning.cli import main

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    character_tokenizer(tmp_path / "model")
    whole = {
        "model": {
            "class_path": "nbg_lightning.PretrainModule",
            "init_args": {"base_weights": str(tmp_path / "model"), "parallel": {"compute_dtype": "float32"}},
        },
        "data": {
            "class_path": "nbg_lightning.BenchmarkDataModule",
            "init_args": {
                "suite": {
                    "name": "mine",
                    "sampling": {"max_new_tokens": 4, "temperature": 0.0},
                    "benchmarks": [{"class_path": "nbg_lightning.evaluation.Arithmetic", "init_args": {"count": 3}}],
                }
            },
        },
        "trainer": {"default_root_dir": str(tmp_path / "run"), "accelerator": "cpu", "devices": 1, "logger": False},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(whole))
    assert main(["test", "--config", str(tmp_path / "run.yaml")]) == 0
    assert "arithmetic" in capsys.readouterr().out
    (folder,) = (tmp_path / "run" / "benchmarks").iterdir()
    assert folder.name.startswith("mine-test-")
    assert json.loads((folder / "results.json").read_text())["benchmarks"][0]["items"] == 3


def test_shipped_suites_can_be_read():
    folder = Path(__file__).parents[2] / "configs" / "benchmark"
    names = {path.stem: Suite.from_yaml(path) for path in folder.glob("*.yaml")}
    assert {"small", "standard", "base"} <= set(names)
    assert names["standard"].benchmarks[0].n == 8
    assert names["standard"].sampling == Sampling(max_new_tokens=32768, temperature=0.6, top_p=0.95, n=3)
