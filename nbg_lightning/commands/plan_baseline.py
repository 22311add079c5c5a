"""How large a process is that trains, without its tensors: measured on a run that is as small as one can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from nbg_lightning.core.products import fill_caches

_CONFIG = """
model:
  class_path: nbg_lightning.PretrainModule
  init_args:
    core: {vocab_size: 280, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 1,
      num_key_value_heads: 1, head_dim: 16, max_position_embeddings: 128}
data:
  class_path: nbg_lightning.CurriculumDataModule
  init_args:
    data_dir: data
    tokenizer: {train_vocab_size: 280}
    sources: {texts: {class_path: nbg_lightning.data.JsonLines, init_args: {path: texts.jsonl}}}
trainer:
  default_root_dir: run
  accelerator: cpu
  enable_checkpointing: false
  limit_val_batches: 0
  max_steps: 3
  callbacks:
    - class_path: nbg_lightning.commands.plan_baseline.StepPeak
      init_args: {file: peak}
    - class_path: nbg_lightning.FGWSD
      init_args:
        tokens_per_step: 128
        sequence_length: 128
        stages: [{name: only, tokens: 384, lr: 1.0e-3, mixture: {texts: 1}}]
"""
_LONGEST = 600.0  # seconds


_PROCESS = Path("/proc/self")


class StepPeak(pl.Callback):
    """Writes the largest resident set, in bytes, of the steps after the first into a file; nothing where /proc is not."""

    def __init__(self, file: str):
        self.file, self.largest = Path(file), 0

    @override
    def on_train_start(self, *_: Any) -> None:
        fill_caches()  # batches of many lengths do

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step and _PROCESS.exists():
            (_PROCESS / "clear_refs").write_text("5")  # reset the peak: data and imports must not count

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step > 1:
            self.largest = max(self.largest, _peak())
            self.file.write_text(str(self.largest))


def process_size() -> float:
    """GiB resident at the peak of a step of hardly any tensors: imports, process group, datamodule, callbacks.

    Raises:
        RuntimeError: the run failed.
    """
    with tempfile.TemporaryDirectory(prefix="nbg-plan-") as temporary:
        folder = Path(temporary)
        texts = [f"Every number {number} has a word and another one.\n" * 8 for number in range(120)]
        (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        (folder / "config.yaml").write_text(_CONFIG)
        words = [sys.executable, "-m", "nbg_lightning.cli", "fit", "--config", "config.yaml"]
        # Freed blocks go back at once: what is held is asked for, not what glibc keeps.
        variables = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MALLOC_MMAP_THRESHOLD_": "131072"}
        try:
            run = subprocess.run(
                words, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True, timeout=_LONGEST
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(
                f"the small run that is measured takes more than {_LONGEST:.0f} s; run again on an idle machine"
            ) from error
        if run.returncode:
            raise RuntimeError(
                f"the small run that is measured failed; see its output: {(run.stdout + run.stderr)[-2000:]}"
            )
        return int((folder / "peak").read_text()) / 2**30


def _peak() -> int:
    """The largest resident set of this process, in bytes; 0 where it is not known."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
