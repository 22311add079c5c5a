"""From questions to a DPD checkpoint through the command line: build-pairs, build-cache, fit."""

import contextlib
import io
import json

import pytest
import torch

from nbg_lightning.cli import main
from nbg_lightning.core import create_model, preset
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data import Tokenizer, train_bpe


def nbg(*arguments, code=0):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = main([str(argument) for argument in arguments])
    assert found == code, out.getvalue()[-2000:] + err.getvalue()[-2000:]
    return out.getvalue() + err.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A student and a larger teacher with one tokenizer; both write noise, which is all that negatives need."""
    root = tmp_path_factory.mktemp("pipeline")
    train_bpe(["What is 1 plus 2 and 3? It is 6, as 1 + 2 = 3."] * 3, 280, root / "tokenizer")
    small = dict(vocab_size=280, intermediate_size=48, num_hidden_layers=1, num_key_value_heads=1, head_dim=16)
    for seed, (name, size) in enumerate((("student", 16), ("teacher", 32))):
        model = create_model(preset("nano", hidden_size=size, num_attention_heads=2, **small), seed=seed)
        save_hugging_face(model, root / name, Tokenizer(root / "tokenizer"), dtype="float32", verify=False)
    rows = [
        {"question": f"What is {n} + {n}?", "answer": str(2 * n), "data": {"worked": f"It is {2 * n}."}}
        for n in range(40)
    ]
    (root / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def write(file, content):
    file.write_text(json.dumps(content))  # JSON is YAML
    return file


@pytest.fixture(scope="module")
def pairs(root):
    """The folder of pairs that the command has built, and what it said."""
    source = {
        "class_path": "nbg_lightning.data.QuestionJsonLines",
        "init_args": {"path": str(root / "questions.jsonl")},
    }
    config = {
        "out": str(root / "pairs"),
        "questions": {"sums": source},
        "reward": {"class_path": "nbg_lightning.rewards.MathReward", "init_args": {"find": "number"}},
        "student": {
            "engine": {
                "class_path": "nbg_lightning.engines.LocalEngine",
                "init_args": {"weights": str(root / "student")},
            },
            "template": "nanbeige",
        },
        "solutions": "worked",
        "max_new_tokens": 250,
        "questions_per_call": 16,
    }
    file = write(root / "pairs.yaml", config)
    return root / "pairs", nbg("build-pairs", "--config", file), file


def dpd_config(root):
    """A config of `nbg fit` on the pairs."""
    source = {
        "class_path": "nbg_lightning.data.PairJsonLines",
        "init_args": {"path": str(root / "pairs" / "pairs.jsonl")},
    }
    data = {
        "sources": {"sums": source},
        "tokenizer": str(root / "tokenizer"),
        "sequence_length": 1024,
        "tokens_per_step": 2048,
        "data_dir": str(root / "data"),
        "validation_fraction": 0.2,
        "cache": str(root / "caches"),
        "num_workers": 0,
        "prepare_workers": 0,
    }
    config = {
        "model": {
            "class_path": "nbg_lightning.DPDModule",
            "init_args": {
                "base_weights": str(root / "student"),
                "teacher": str(root / "teacher"),
                "parallel": {"compute_dtype": "float32"},
            },
        },
        "data": {"class_path": "nbg_lightning.PreferenceDataModule", "init_args": data},
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 2,
            "default_root_dir": str(root / "run"),
            "callbacks": [{"class_path": "nbg_lightning.WarmupDecay", "init_args": {"lr": 1.0e-3}}],
        },
    }
    return write(root / "dpd.yaml", config)


def test_build_pairs(pairs):
    folder, said, file = pairs
    report = json.loads((folder / "report.json").read_text())
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert 5 < len(rows) == report["pairs"] and f"{len(rows)} pairs" in said and "pairs.jsonl" in said
    assert all(row["chosen"][0]["content"].startswith("It is") for row in rows)
    assert len(rows[0]["provenance"]["student"]["weights"]) == 16
    assert report["questions_with_pairs"] + sum(x["count"] for x in report["dropped_questions"].values()) == 40
    before = (folder / "pairs.jsonl").read_bytes()
    nbg("build-pairs", "--config", file)
    assert (folder / "pairs.jsonl").read_bytes() == before
    output = nbg("build-pairs", "--config", file, "--seed", 3, code=2)
    assert "is invalid: a build with other settings" in output.splitlines()[-1]
    output = nbg("build-pairs", "--config", file, "--teacher", "null", "--solutions", "null", code=2)
    assert "give one of teacher" in output
    assert "give --config FILE" in nbg("build-pairs", code=2)


def test_cache_and_fit(root, pairs):
    file = dpd_config(root)
    output = nbg("fit", "--config", file, code=2)
    assert "nbg build-cache" in output.splitlines()[-1]  # there is none yet
    output = nbg("build-cache", "--config", file, "-k", 8)
    assert "bytes a token" in output
    output = nbg("fit", "--config", file)
    assert (root / "run" / "checkpoints" / "step-00000002" / "meta.pt").is_file()
    # Another student or teacher than the cache's is refused.
    for name, other in (("base_weights", "teacher"), ("teacher", "student")):
        changed = json.loads(file.read_text())
        changed["model"]["init_args"][name] = str(root / other)
        output = nbg("fit", "--config", write(root / "changed.yaml", changed), code=2)
        assert "is of something else" in output.splitlines()[-1], output
    assert torch.load(root / "run" / "checkpoints" / "step-00000002" / "meta.pt", weights_only=True)["global_step"] == 2
