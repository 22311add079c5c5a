"""DPD with a live teacher and reference: two gloo ranks equal one, and a resumed run equals an uninterrupted one."""

import pytest
import torch

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data import PairList, Tokenizer, train_bpe
from nbg_lightning.testing import StepRecorder, full_tensors, run_ranks

SHAPE = LanguageModelConfig(
    vocab_size=280,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
)
WIDER = {**vars(SHAPE), "hidden_size": 48, "num_hidden_layers": 3}
PAIRS = [
    {
        "prompt": f"say {number} again",
        "chosen": f"{number} it is " * (number % 7 + 1),
        "rejected": "all of it, and " * (number % 5 + 1),
    }
    for number in range(90)
]
TERMS = ("loss", "dpo", "pos", "neg", "margin", "accuracy", "chosen_shift", "rejected_shift", "grad_norm")


def prepare(folder):
    """A tokenizer, a student and a larger teacher with a tied head."""
    tokenizer = train_bpe(["say it and say it again, all of it"] * 3, 280, folder / "tokenizer")
    for name, shape in (("student", SHAPE), ("teacher", LanguageModelConfig(**{**WIDER, "tie_word_embeddings": True}))):
        save_hugging_face(
            create_model(shape, seed=len(name)), folder / name, Tokenizer(tokenizer), "float32", verify=False
        )


def train(folder, devices, resume=None, name="run", every=None, context=1, share_prefixes=None):
    from nbg_lightning import DPDModule, PreferenceDataModule, StepCheckpoint, Trainer, WarmupDecay

    data = PreferenceDataModule(
        {"a": PairList(PAIRS[:60]), "b": PairList(PAIRS[60:])},
        f"{folder}/tokenizer",
        sequence_length=256,
        tokens_per_step=1024,
        data_dir=f"{folder}/data",
        validation_fraction=0.2,
        num_workers=0,
        prepare_workers=0,
    )
    module = DPDModule(
        base_weights=f"{folder}/student",
        teacher=f"{folder}/teacher",
        parallel=ParallelConfig(compute_dtype="float32", compile=False, context=context),
        micro_batch_tokens=256,
        w_neg=0.5,
        # One rank does not: sharing changes nothing either.
        share_prefixes=devices > 1 if share_prefixes is None else share_prefixes,
    )
    recorder = StepRecorder(TERMS)
    checkpoints = StepCheckpoint(every_n_steps=every, keep=9)
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        default_root_dir=f"{folder}/{name}",
        logger=False,
        enable_progress_bar=False,
        log_every_n_steps=1,
        callbacks=[WarmupDecay(3e-3), recorder, checkpoints],
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    steps = [{key: step[key] for key in (*TERMS, "chain")} for step in recorder.steps]
    assert not any("teacher" in key or "reference" in key for key, _ in module.named_parameters())
    return steps, full_tensors(module.model.named_parameters()), metrics


def straight_and_resumed(folder):
    straight = train(folder, 1, name="straight", every=2)
    again = train(folder, 1, resume=f"{folder}/straight/checkpoints/step-00000002", name="again")
    return straight, again


def on_two_ranks(folder):
    """Each rank with its own rows, and both ranks with parts of the same rows."""
    return train(folder, 2), train(folder, 2, name="context", context=2)


def on_four_ranks(folder):
    options = {"context": 2, "share_prefixes": False, "every": 2}
    straight = train(folder, 4, name="four", **options)
    return straight, train(folder, 4, resume=f"{folder}/straight/checkpoints/step-00000002", name="resumed", **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dpd")


@pytest.fixture(scope="module")
def runs(folder):
    """A run on one rank, what was resumed from its second step, and the runs on two ranks."""
    prepare(folder)
    straight, again = run_ranks(straight_and_resumed, 1, str(folder), folder=folder)[0]
    return straight, again, run_ranks(on_two_ranks, 2, str(folder), folder=folder)


def test_one_rank(runs):
    steps, _, metrics = runs[0]
    assert len(steps) >= 5
    assert steps[0]["margin"] == pytest.approx(0.0, abs=1e-6)
    assert steps[0]["dpo"] == pytest.approx(0.6931, abs=1e-4)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert all(step["loss"] == pytest.approx(step["dpo"] + step["pos"] + 0.5 * step["neg"]) for step in steps)
    assert {"val/a/accuracy", "val/b/pos", "val/neg", "val/margin", "val/loss"} <= metrics.keys()


def test_two_ranks_are_one(runs):
    steps, weights, metrics = runs[0]
    for two, _ in runs[2]:
        for step, one in zip(two[0], steps, strict=True):
            assert step["chain"] == one["chain"]
            expected = {name: one[name] for name in TERMS}
            assert {name: step[name] for name in TERMS} == pytest.approx(expected, rel=2e-4, abs=1e-6)
        for name, weight in two[1].items():
            assert torch.allclose(weight, weights[name], atol=1e-5), name
        assert two[2] == pytest.approx(metrics, rel=2e-4, abs=1e-6)


def assert_same(found, expected, done=0):
    steps, weights, metrics = expected
    for step, one in zip(found[0], steps[done:], strict=True):
        assert step["chain"] == one["chain"]
        assert [step[name] for name in ("loss", "grad_norm")] == pytest.approx(
            [one["loss"], one["grad_norm"]], rel=1e-5
        )
        assert {name: step[name] for name in TERMS} == pytest.approx(
            {name: one[name] for name in TERMS}, rel=2e-4, abs=1e-6
        )
    for name, weight in found[1].items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-5)
    assert found[2] == pytest.approx(metrics, rel=2e-4, abs=1e-6)


def test_ranks_that_share_pairs_are_one(runs):
    for _, shared in runs[2]:
        assert_same(shared, runs[0])


@pytest.mark.slow
def test_two_pairs_of_ranks_are_one(runs, folder):
    for straight, resumed in run_ranks(on_four_ranks, 4, str(folder), folder=folder, timeout=400):
        assert_same(straight, runs[0])
        assert_same(resumed, runs[0], done=2)


def test_resume_is_exact(runs):
    straight, again, _ = runs
    assert again[0] == straight[0][2:]
    assert all(torch.equal(weight, straight[1][name]) for name, weight in again[1].items())
