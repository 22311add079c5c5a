"""Processor seconds of `nbg fit` up to the end of its first step, relative to another checkout of this library.

    git worktree add ../before main~50
    python benchmarks/performance/startup.py --against ../before

The run is as small as possible (the `nano` core, one step of 1,024 tokens, no checkpoint, prepared texts), so that imports
and construction dominate. Three errors that need no run are measured too: a missing config, a misspelt key and a missing data
path. Sides alternate; processor time is that of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from paired import ratio, write_result

HERE = Path(__file__).parents[2]

CONFIG = """
model: {class_path: nbg_lightning.PretrainModule, init_args: {core: nano}}
data:
  class_path: nbg_lightning.CurriculumDataModule
  init_args:
    data_dir: data
    tokenizer: {train_vocab_size: 280}
    sources: {web: {class_path: nbg_lightning.data.JsonLines, init_args: {path: TEXTS}}}
trainer:
  default_root_dir: run
  accelerator: cpu
  enable_checkpointing: false
  limit_val_batches: 0
  max_steps: 1
  callbacks:
    - class_path: nbg_lightning.FGWSD
      init_args:
        tokens_per_step: 1024
        sequence_length: 128
        stages: [{name: only, tokens: 1024, lr: 1.0e-3, mixture: {web: 1}}]
"""
COMMANDS = {
    "first step": (["fit", "--config", "config.yaml"], 0),
    "no such config": (["fit", "--config", "confg.yaml"], 2),
    "misspelled key": (["fit", "--config", "config.yaml", "--model.init_args.micro_batch_token", "128"], 2),
    "no such data": (["fit", "--config", "lost.yaml"], 2),
}


def processor_seconds(tree: Path, folder: Path, arguments: list[str], code: int) -> float:
    """Of one command of a checkout.

    Raises:
        RuntimeError: it ends with another exit code.
    """
    variables = {"PYTHONPATH": str(tree), "TOKENIZERS_PARALLELISM": "false"}
    begin = _used()
    run = subprocess.run(
        [sys.executable, "-m", "nbg_lightning.cli", *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    if run.returncode != code:
        raise RuntimeError(f"{arguments} of {tree} ended with {run.returncode}: {run.stderr}")
    return _used() - begin


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(sides: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each side, alternating, after one warm-up of each."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name in list(sides) if repeat % 2 == 0 else reversed(sides):
            seconds[name].append(sides[name]())
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout; by default only this one is measured")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    trees = {"this": HERE} | ({"other": arguments.against.absolute()} if arguments.against else {})
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        texts = [f"Every number {number} has a word and another one.\n" * 8 for number in range(120)]
        (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        (folder / "config.yaml").write_text(CONFIG.replace("TEXTS", "texts.jsonl"))
        (folder / "lost.yaml").write_text(CONFIG.replace("TEXTS", "lost.jsonl"))
        for name, (command, code) in COMMANDS.items():
            sides = {
                side: lambda t=tree, c=command, e=code: processor_seconds(t, folder, c, e)
                for side, tree in trees.items()
            }
            seconds = measure(sides, arguments.repeats)
            results[name] = {f"{side}_seconds": round(median(values), 2) for side, values in seconds.items()}
            if "other" in seconds:
                results[name]["this_over_other"] = ratio(seconds["this"], seconds["other"])
            print(name, results[name], flush=True)
    write_result("startup", {"repeats": arguments.repeats, "seconds": "of the processor"}, results)


if __name__ == "__main__":
    main()
