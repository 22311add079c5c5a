"""SFT from the command line: from a pretraining run's checkpoint, with its tokenizer, to a checkpoint that resumes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nbg_lightning import CurriculumDataModule
from nbg_lightning.data import InMemory, TokenizerConfig
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.schedule.curriculum import Stage
from nbg_lightning.testing import SMALL_SHAPE, launchable_environment, train_small

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "sft").glob("*.yaml"))
TINY = next(file for file in CONFIGS if file.stem == "tiny")


def nbg(*arguments, folder, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "nbg_lightning.cli", *map(str, arguments)],
        cwd=folder,
        env=launchable_environment() | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A checkpoint of two pretraining steps, which knows its tokenizer."""
    folder = tmp_path_factory.mktemp("pretrained")
    texts = [
        f"one and {n} make {n + 1}. What is the answer? Give it as a number. State the result." for n in range(400)
    ]
    data = CurriculumDataModule(
        {"text": InMemory(texts)},
        TokenizerConfig(train_vocab_size=290),
        data_dir=str(folder / "data"),
        num_workers=0,
        prepare_workers=0,
    )
    module = PretrainModule(core=type(SMALL_SHAPE)(**{**vars(SMALL_SHAPE), "vocab_size": 290}), micro_batch_tokens=256)
    train_small(folder, stages=[Stage("only", 512, 1e-3, {"text": 1.0})], module=module, datamodule=data)
    return folder / "checkpoints" / "step-00000002"


def short(pretrained, folder):
    """The tiny config, shortened."""
    data = "--data.init_args."
    return [
        *("fit", "--config", TINY, "--model.init_args.base_weights", pretrained, f"{data}tokenizer", pretrained),
        *(f"{data}data_dir", folder / "data", f"{data}prepare_workers", 0, f"{data}num_workers", 0),
        *(f"{data}sources.math.init_args.count", 30, f"{data}sources.arithmetic.init_args.count", 30),
        *(f"{data}sources.logic.init_args.count", 60, f"{data}tokens_per_step", 2048),
        *("--trainer.default_root_dir", folder / "run", "--trainer.val_check_interval", 2),
    ]


def test_tiny_config_from_a_checkpoint(pretrained, tmp_path):
    output = nbg(*short(pretrained, tmp_path), "--trainer.max_steps", 2, folder=tmp_path)
    assert "windows of 1,024" in output and "learning rate  0 -> 0.001" in output
    assert (tmp_path / "run" / "checkpoints" / "step-00000002" / "meta.pt").is_file()
    output = nbg(*short(pretrained, tmp_path), "--trainer.max_steps", 3, "--ckpt_path", "last", folder=tmp_path)
    assert (tmp_path / "run" / "checkpoints" / "step-00000003" / "meta.pt").is_file()
    # A wrong setting is one line.
    output = nbg(*short(pretrained, tmp_path), "--data.init_args.max_length", 4096, folder=tmp_path, code=2)
    assert "max_length is invalid: 4096; lower it to fit into sequence_length 1024" in output.splitlines()[-1]


def test_preview_shows_what_is_trained(pretrained, tmp_path):
    config = yaml.safe_load(TINY.read_text())
    config["data"]["init_args"] |= {"tokenizer": str(pretrained), "data_dir": str(tmp_path / "data")}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    output = nbg("data", "preview", "tiny.yaml", "--samples", 1, "--look-at", 50, folder=tmp_path)
    for text in ("special tokens: bos", "math (ReasoningGymChat)", "<think>", "in 1 spans", "50 samples: ", "best_fit"):
        assert text in output, text
    assert not list((tmp_path / "data").glob("math-*"))  # nothing is prepared
    output = nbg("data", "preview", "tiny.yaml", "--source", "physics", folder=tmp_path, code=2)
    assert "nbg data: error: --source is invalid: physics; there are math, arithmetic, logic" in output
    output = nbg("data", "preview", "nothing.yaml", folder=tmp_path, code=2)
    assert "no config nothing.yaml" in output


def test_pretraining_takes_the_tokenizer_of_a_checkpoint(pretrained, tmp_path):
    config = {
        "class_path": "nbg_lightning.CurriculumDataModule",
        "init_args": {
            "tokenizer": str(pretrained),
            "data_dir": str(tmp_path / "data"),
            "sources": {
                "texts": {"class_path": "nbg_lightning.data.InMemory", "init_args": {"texts": ["it is", "that"]}}
            },
        },
    }
    (tmp_path / "pretrain.yaml").write_text(yaml.safe_dump({"data": config}))
    output = nbg("data", "preview", "pretrain.yaml", folder=tmp_path)
    assert "it is" in output and "longer than a window of" in output.replace("\n", " ")


@pytest.mark.parametrize("file", CONFIGS, ids=[file.stem for file in CONFIGS])
def test_config_parses_and_says_what_it_needs(file, tmp_path):
    head = file.read_text().splitlines()
    assert head[0].startswith("# ") and all(any(word in line for line in head) for word in ("needs:", "launch:"))
    output = nbg("fit", "--config", file, "--print_config", folder=tmp_path)
    assert yaml.safe_load(output)["model"]["class_path"] == "nbg_lightning.SFTModule"


def test_shares_of_the_paper():
    shares = {
        "cold_start": (32768, {"math": 50, "science": 30, "code": 20}),
        "overall": (65536, {"reasoning": 40, "general": 30, "agent": 20, "code": 10}),
    }
    for name, (length, weights) in shares.items():
        data = yaml.safe_load((TINY.parent / f"{name}.yaml").read_text())["data"]["init_args"]
        assert data["sequence_length"] == length
        assert {n: s["init_args"]["weight"] for n, s in data["sources"].items()} == weights
