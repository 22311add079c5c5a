"""`nbg plan` on the command line."""

import json
import subprocess
import sys

import pytest

CONFIG = """
model: {class_path: nbg_lightning.SFTModule, init_args: {core: small, micro_batch_tokens: 8192}}
data:
  class_path: nbg_lightning.ChatDataModule
  init_args:
    tokenizer: nowhere/else
    sequence_length: 4096
    tokens_per_step: 65536
    sources: {chats: {class_path: nbg_lightning.data.ChatJsonLines, init_args: {path: nothing.jsonl}}}
"""
START = """
model: {class_path: nbg_lightning.PretrainModule, init_args: {core: nano}}
data:
  class_path: nbg_lightning.CurriculumDataModule
  init_args:
    tokenizer: {train_vocab_size: 280}
    validation_fraction: 0
    sources: {web: {class_path: nbg_lightning.data.JsonLines, init_args: {path: texts.jsonl}}}
trainer:
  default_root_dir: start
  accelerator: cpu
  callbacks:
    - class_path: nbg_lightning.FGWSD
      init_args:
        tokens_per_step: 128
        sequence_length: 128
        stages: [{name: only, tokens: 128, lr: 1.0e-3, mixture: {web: 1}}]
"""
CHATS = """
model: {class_path: nbg_lightning.SFTModule, init_args: {base_weights: start, micro_batch_tokens: 1024}}
data:
  class_path: nbg_lightning.ChatDataModule
  init_args:
    sequence_length: 512
    tokens_per_step: 1024
    sources: {chats: {class_path: nbg_lightning.data.ChatJsonLines, init_args: {path: chats.jsonl}}}
"""


def plan(*words, folder):
    words = [sys.executable, "-m", "nbg_lightning.cli", "plan", *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=300)


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "sft.yaml"
    file.write_text(CONFIG)
    return file


def test_a_plan_needs_neither_data_nor_gpus(config, tmp_path):
    done = plan(config, "--ranks", 16, "--device", "a100", "--json", tmp_path / "plan.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SFT of" in done.stdout
    assert "on 16 x A100 80GB (2 nodes" in done.stdout
    assert "fits: 72.2 GiB are free for it" in done.stdout
    (found,) = json.loads((tmp_path / "plan.json").read_text())
    assert found["fits"] is True
    assert found["phases"][0]["forwards"] == 1
    assert found["phases"][0]["rows"] == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_adapter_is_the_first_that_a_process_simulates(config, tmp_path, dtype):
    settings = f"core: small, lora: {{rank: 4}}, parallel: {{compute_dtype: {dtype}}}"
    config.write_text(CONFIG.replace("core: small", settings))
    done = plan(config, "--ranks", 2, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fits" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ranks", "7"], "7 ranks do not divide the 16 windows of a step"),
        (["--ranks", "0"], "0 is invalid; give a number above 0"),
        (["--device", "tpu"], "device is invalid: tpu"),
        (["--answer-tokens", "0"], "answer_tokens is invalid: 0; give a number above 0"),
        (["--answer-tokens", "20"], "answer_tokens is invalid with SFT, which samples no answers"),
        (["--answer-tokens", "runs/none"], "there is no ledger of rollouts in runs/none"),
        (["--prepared"], "no tokenizer can be loaded from 'nowhere/else'"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_line(config, tmp_path, words, said):
    done = plan(config, *words, folder=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr.strip().splitlines()[-1]


def test_weights_that_are_not_there_need_a_shape(config, tmp_path):
    config.write_text(CONFIG.replace("core: small", "base_weights: runs/nowhere"))
    done = plan(config, folder=tmp_path)
    assert done.returncode == 2
    assert "give --core PRESET where weights are not there yet" in done.stderr


def test_time_of_prepared_data(tmp_path):
    """Short conversations, of which a row is padded, and whose answers alone have logits: less time, the same memory."""
    (tmp_path / "texts.jsonl").write_text(
        json.dumps({"text": "How many are there? There are two of them. " * 40}) + "\n"
    )
    (tmp_path / "start.yaml").write_text(START)
    words = [sys.executable, "-m", "nbg_lightning.cli", "fit", "--config", "start.yaml"]
    subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=True)
    asked, said = "How many are there? " * 4, "There are two of them."
    chats = [{"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}] * 12
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    (tmp_path / "sft.yaml").write_text(CHATS)
    found = []
    for words in ([], ["--prepared"]):
        done = plan("sft.yaml", "--device", "cpu", "--json", "plan.json", *words, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        found += [json.loads((tmp_path / "plan.json").read_text())[0]["phases"][0]]
    full, held = found
    assert full["steps"] is None
    assert held["steps"] >= 1
    assert held["attended"] < full["attended"] == 512
    assert held["predicted"] < 0.5
    assert held["memory_gib"] == full["memory_gib"]
    assert held["step_seconds"]["compute"] < 0.9 * full["step_seconds"]["compute"]
    assert "documents of" in done.stdout
