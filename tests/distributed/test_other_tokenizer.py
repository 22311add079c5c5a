"""DPD against a teacher of another tokenizer on two gloo ranks is DPD on one."""

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


def train(folder, devices):
    from nbg_lightning import DPDModule, PreferenceDataModule, Trainer, WarmupDecay

    data = PreferenceDataModule(
        {"a": PairList(PAIRS)},
        f"{folder}/tokenizer",
        sequence_length=256,
        tokens_per_step=1024,
        data_dir=f"{folder}/data",
        num_workers=0,
        prepare_workers=0,
    )
    module = DPDModule(
        base_weights=f"{folder}/student",
        teacher=f"{folder}/teacher",
        parallel=ParallelConfig(compute_dtype="float32"),
        micro_batch_tokens=256,
        w_neg=0.5,
    )
    recorder = StepRecorder(TERMS)
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        default_root_dir=f"{folder}/run-{devices}",
        logger=False,
        enable_progress_bar=False,
        log_every_n_steps=1,
        limit_val_batches=0,
        callbacks=[WarmupDecay(3e-3), recorder],
    )
    trainer.fit(module, datamodule=data)
    assert module.alignment is not None
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
    [(steps, weights)] = run_ranks(train, 1, str(tmp_path), 1, folder=tmp_path)
    assert len(steps) >= 2 and all(step["pos"] > 0 for step in steps)
    for two, their_weights in run_ranks(train, 2, str(tmp_path), 2, folder=tmp_path):
        for step, one in zip(two, steps, strict=True):
            assert step == pytest.approx(one, rel=2e-4, abs=1e-6)
        for name, weight in their_weights.items():
            assert torch.allclose(weight, weights[name], atol=1e-5), name
