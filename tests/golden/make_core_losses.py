"""Writes core_losses.json: losses and gradient norms of the small run, to detect changes in them.

    python tests/golden/make_core_losses.py

Run it only when results are meant to change, and say in the commit why.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.testing import train_small

PATH = Path(__file__).with_name("core_losses.json")


def measure(folder: str) -> dict[str, dict[str, list[float]]]:
    """Losses and norms of the 12 steps of `train_small`, in float32 and with bf16 products."""
    results = {}
    for dtype in ("float32", "bfloat16"):
        options = {"parallel": ParallelConfig(compute_dtype=dtype)}
        run = train_small(Path(folder) / dtype, module_options=options)
        results[dtype] = {"losses": run.losses, "grad_norms": run.grad_norms}
        results[dtype]["chain"] = run.column("chain")[-1]
    return results


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        results = measure(folder)
    versions = {name: version(name) for name in ("torch", "lightning", "torchtitan", "numpy")}
    versions |= {"python": platform.python_version(), "machine": platform.machine()}
    PATH.write_text(json.dumps({"versions": versions, "results": results}, indent=2) + "\n")
    print(f"wrote {PATH}")
