"""How large a process is that trains, without its tensors: measured on a run that is as small as one can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_CONFIG = """
model: {class_path: nbg_lightning.PretrainModule, init_args: {core: nano}}
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
  max_steps: 2
  callbacks:
    - class_path: nbg_lightning.FGWSD
      init_args:
        tokens_per_step: 1024
        sequence_length: 128
        stages: [{name: only, tokens: 2048, lr: 1.0e-3, mixture: {texts: 1}}]
"""
_LONGEST = 600.0  # seconds


def process_size() -> float:
    """GiB resident at the end of a run of two steps of the ``nano`` core: imports, process group, datamodule, callbacks.

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
        environment = {**os.environ, **variables}
        with (folder / "output").open("w+") as output:
            run = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
            largest, end = 0, time.monotonic() + _LONGEST
            while run.poll() is None and time.monotonic() < end:
                largest = max(largest, _peak(run.pid))
                time.sleep(0.02)
            if run.poll() is None:
                run.kill()
                run.wait()
            if run.returncode:
                output.seek(0)
                raise RuntimeError(f"the small run that is measured failed: {output.read()[-2000:]}")
    return largest / 2**30


def _peak(process: int) -> int:
    """The largest resident set of a process so far, in bytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
