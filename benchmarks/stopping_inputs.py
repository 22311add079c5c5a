"""Inputs for the cases of stopping.py: a tiny model and one config per command, each of which takes minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 290
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": VOCABULARY,
}
OTHERS = ("suite", "pairs", "corpus", "preferences", "recipe")
REWARD = {"class_path": "nbg_lightning.rewards.MathReward", "init_args": {"workers": 1}}


def make_inputs(folder: Path, fit: str) -> dict[str, str]:
    """Write the model, the data and the configs.

    Args:
        folder: target folder.
        fit: a pretraining config.

    Returns:
        The path of each config, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _make_model(folder / "model")
    pairs = [
        {"prompt": f"what is {n}?", "chosen": f"it is {n} " * (1 + n % 7), "rejected": f"nothing {n % 3}"}
        for n in range(4000)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    written = {name: folder / f"{name}.yaml" for name in ("grpo", "ahead", *OTHERS)}
    contents = {
        "grpo": _grpo(folder),
        "ahead": _grpo(folder, rollouts={"max_staleness": 1}),
        "suite": _suite(folder),
        "pairs": _pairs(folder),
        "corpus": _corpus(folder),
        "preferences": _preferences(folder),
        "recipe": {"name": "stopped", "folder": str(folder), "steps": {"pretrain": {"command": "fit", "config": fit}}},
    }
    for name, content in contents.items():
        written[name].write_text(json.dumps(content, indent=1))  # JSON is YAML
    return {"fit": fit} | {name: str(file) for name, file in written.items()}


def _make_model(folder: Path) -> None:
    from nbg_lightning.core import create_model, preset
    from nbg_lightning.core.hf_folder import save_hugging_face
    from nbg_lightning.data import Tokenizer, train_bpe

    train_bpe(
        ["what is the answer? it is 42, and nothing else than that."] * 3, VOCABULARY, folder.parent / "tokenizer"
    )
    torch.manual_seed(0)
    model = create_model(preset("nano", **SHAPE), seed=1)
    save_hugging_face(model, folder, Tokenizer(folder.parent / "tokenizer"), dtype="float32", verify=False)


def _module(folder: Path, kind: str, **arguments: Any) -> dict[str, Any]:
    own = {"base_weights": str(folder / "model"), "parallel": {"compute_dtype": "float32"}}
    return {"class_path": f"nbg_lightning.{kind}", "init_args": {**own, **arguments}}


def _questions(count: int) -> dict[str, Any]:
    arguments = {"tasks": ["chain_sum"], "count": count, "config": {"chain_sum": {"max_terms": 2, "max_digits": 2}}}
    return {"sums": {"class_path": "nbg_lightning.data.ReasoningGymQuestions", "init_args": arguments}}


def _grpo(folder: Path, **arguments: Any) -> dict[str, Any]:
    answers = {"max_new_tokens": 150, "group_size": 8, "mask_truncated": False, **arguments}
    return {
        "model": _module(folder, "GRPOModule", reward="nbg_lightning.testing.grpo.EvenReward", **answers),
        "data": {
            "class_path": "nbg_lightning.PromptDataModule",
            "init_args": {
                "sources": _questions(2000),
                "tokenizer": str(folder / "model"),
                "prompts_per_step": 16,
                "steps": 1000,
                "data_dir": str(folder / "data"),
            },
        },
        "trainer": {
            "accelerator": "cpu",
            "callbacks": [{"class_path": "nbg_lightning.StepCheckpoint", "init_args": {"every_n_steps": 2}}],
        },
    }


def _suite(folder: Path) -> dict[str, Any]:
    arithmetic = {"class_path": "nbg_lightning.evaluation.Arithmetic", "init_args": {"count": 5000}}
    suite = {
        "benchmarks": [arithmetic],
        "format": "text",
        "items_per_call": 32,
        "sampling": {"max_new_tokens": 150, "temperature": 1.0},
    }
    return {
        "model": _module(folder, "PretrainModule"),
        "data": {"class_path": "nbg_lightning.BenchmarkDataModule", "init_args": {"suite": suite}},
        "trainer": {"accelerator": "cpu", "logger": False},
    }


def _pairs(folder: Path) -> dict[str, Any]:
    engine = {"class_path": "nbg_lightning.engines.LocalEngine", "init_args": {"weights": str(folder / "model")}}
    writer = {"engine": engine, "template": "nanbeige"}
    counts = {"negatives": 4, "positives": 2, "max_new_tokens": 150, "pairs_per_question": 2}
    return {"questions": _questions(2000), "reward": REWARD, "student": writer, "teacher": writer, **counts}


def _corpus(folder: Path) -> dict[str, Any]:
    source = {"packages": ["stdlib", "numpy", "torch"], "content": "code"}
    return {"sources": {"code": {"class_path": "nbg_lightning.data.PackageSource", "init_args": source}}}


def _preferences(folder: Path) -> dict[str, Any]:
    source = {"class_path": "nbg_lightning.data.PairJsonLines", "init_args": {"path": str(folder / "pairs.jsonl")}}
    data = {
        "sources": {"pairs": source},
        "tokenizer": str(folder / "model"),
        "sequence_length": 256,
        "tokens_per_step": 512,
        "data_dir": str(folder / "data"),
        "num_workers": 0,
        "prepare_workers": 0,
    }
    model = {"teacher": str(folder / "model"), "base_weights": str(folder / "model")}
    return {
        "model": {"init_args": model},
        "data": {"class_path": "nbg_lightning.PreferenceDataModule", "init_args": data},
    }
