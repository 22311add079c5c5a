"""DPD with a teacher of another tokenizer, live and from a cache: two gloo ranks equal one."""

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
    tie_word_embeddings=True,
)
PAIRS = [
    {
        "prompt": f"say {number} again",
        "chosen": f"{number} it is " * (number % 4 + 1),
        "rejected": "all of it, and " * (number % 3 + 1),
    }
    for number in range(24)
]
TERMS = ("loss", "dpo", "pos", "neg", "grad_norm")


def data_of(folder, cache=None):
    from nbg_lightning import PreferenceDataModule

    return PreferenceDataModule(
        {"a": PairList(PAIRS)},
        f"{folder}/tokenizer",
        sequence_length=256,
        tokens_per_step=1024,
        data_dir=f"{folder}/data",
        num_workers=0,
        prepare_workers=0,
        cache=cache,
    )


def build(folder):
    """A cache of the teacher and the reference."""
    from nbg_lightning.teachers import FrozenModel, build_cache
    from nbg_lightning.teachers.alignment import pair_with, tokenizer_of

    data = data_of(folder)
    data.setup("fit")
    teacher, reference = (FrozenModel(f"{folder}/{name}") for name in ("teacher", "student"))
    pair = pair_with("teacher", data.tokenizer, tokenizer_of(teacher.weights))
    form = data.tokenizer.fingerprint, data.template_identity, SHAPE.vocab_size
    return build_cache(
        data.sequences, teacher, reference, f"{folder}/cache", *form, SHAPE.vocab_size, progress=False, pair=pair
    )


def both(folder, devices):
    """A run with a live teacher, and one from the cache."""
    return train(folder, devices, None), train(folder, devices, f"{folder}/cache")


def train(folder, devices, cache):
    from nbg_lightning import DPDModule, Trainer, WarmupDecay

    data = data_of(folder, cache)
    module = DPDModule(
        base_weights=f"{folder}/student",
        teacher=None if cache else f"{folder}/teacher",
        parallel=ParallelConfig(compute_dtype="float32"),
        micro_batch_tokens=256,
        w_neg=0.5,
    )
    recorder = StepRecorder(TERMS)
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        default_root_dir=f"{folder}/run-{devices}-{cache is None}",
        logger=False,
        enable_progress_bar=False,
        log_every_n_steps=1,
        limit_val_batches=0,
        callbacks=[WarmupDecay(3e-3), recorder],
    )
    trainer.fit(module, datamodule=data)
    assert module.alignment is not None and (module.teacher is None) == (module.reference is None) == bool(cache)
    return [{key: step[key] for key in TERMS} for step in recorder.steps], full_tensors(module.model.named_parameters())


def test_two_ranks_are_one(tmp_path):
    for name, texts, seed in (
        ("student", ["say it and say it again, all of it"], 1),
        ("teacher", ["it is and it is again what it is"], 2),
    ):
        tokenizer = train_bpe(texts * 3, 276, tmp_path / ("tokenizer" if name == "student" else "theirs"))
        save_hugging_face(
            create_model(SHAPE, seed=seed), tmp_path / name, Tokenizer(tokenizer), "float32", verify=False
        )
    build(tmp_path)
    [one] = run_ranks(both, 1, str(tmp_path), 1, folder=tmp_path)
    for (steps, _), tolerance in zip(one, (0.0, 5e-3), strict=True):  # a cache keeps log-probs in half precision
        assert len(steps) >= 2 and all(step["pos"] > 0 for step in steps)
        for step, live in zip(steps, one[0][0], strict=True):
            assert step == pytest.approx(live, rel=tolerance)
    for two in run_ranks(both, 2, str(tmp_path), 2, folder=tmp_path):
        for (steps, weights), (their_steps, their_weights) in zip(one, two, strict=True):
            for step, their_step in zip(steps, their_steps, strict=True):
                assert their_step == pytest.approx(step, rel=2e-4, abs=1e-6)
            for name, weight in their_weights.items():
                assert torch.allclose(weight, weights[name], atol=1e-5), name
