"""The suite of configs/benchmark/real.yaml on a real model; writes metrics, intervals, cost and provenance as JSON.

    python benchmarks/real_model.py
    python benchmarks/real_suite.py

Runs `nbg test` in the repository's folder and stores the results. Items answered before, by the same weights with the
same settings, are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CONFIG = "configs/benchmark/real.yaml"
sys.path[:0] = [str(HERE), str(HERE / "performance")]


def main() -> None:
    from real_model import FOLDER

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="Hugging Face folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-real"))
    arguments = parser.parse_args()
    import torch
    from paired import write_result

    torch.set_num_threads(arguments.threads)
    folder = str(arguments.folder.expanduser())
    command = [sys.executable, "-m", "nbg_lightning.cli", "test", "--config", CONFIG]
    command += ["--model.init_args.base_weights", folder, "--trainer.default_root_dir", str(arguments.out)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, cwd=HERE.parent, env=environment)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    written = (HERE.parent / arguments.out / "benchmarks").glob("real-test-*/results.json")
    last = max(written, key=lambda path: path.stat().st_mtime)
    settings = {"model": arguments.folder.name, "config": CONFIG, "threads": arguments.threads}
    results = {"processor_seconds": round(used.ru_utime + used.ru_stime), "benchmarks": kept(last)}
    print(write_result("real_suite", settings, results))


def kept(file: Path) -> dict[str, Any]:
    """The stored part of a suite's results: without wall-clock times, which a busy machine distorts."""
    found = {}
    for each in json.loads(file.read_text())["benchmarks"]:
        about = each["about"]
        found[each["name"]] = {
            "primary": each["primary"],
            "metrics": each["metrics"],
            "intervals": each.get("intervals"),
            "items": each["items"],
            "errors": each["errors"],
            **{name: about.get(name) for name in ("origin", "num_shots", "prompt_hash", "prompt_tokens", "new_tokens")},
        }
    return found


if __name__ == "__main__":
    main()
