"""The laptop agent with its shipped configs: a model that knows two tools learns by GRPO to chain them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CONFIGS = Path(__file__).parents[2] / "configs"


def test_a_first_run_with_tools_needs_no_more_than_30_keys():
    def keys(value):
        if isinstance(value, dict):
            return sum(1 + keys(inside) for inside in value.values())
        return sum(map(keys, value)) if isinstance(value, list) else 0

    assert keys(yaml.safe_load((CONFIGS / "grpo" / "tiny_agent.yaml").read_text())) <= 30


def nbg(folder, *arguments):
    """What a command prints."""
    command = [sys.executable, "-m", "nbg_lightning.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def pass_rate(folder, *arguments):
    """Share of right answers to the held-out purchases."""
    said = nbg(folder, "test", "--config", CONFIGS / "grpo" / "tiny_agent.yaml", *arguments)
    return float(re.search(r"val/pass_rate/held_out\s+([\d.]+)", said)[1])


@pytest.mark.slow
def test_a_tiny_model_learns_to_use_one_tool_after_the_other(tmp_path):
    for name in ("pretrain", "sft"):
        nbg(tmp_path, "fit", "--config", CONFIGS / name / "prices.yaml")
    assert pass_rate(tmp_path) <= 0.3
    nbg(tmp_path, "fit", "--config", CONFIGS / "grpo" / "tiny_agent.yaml")
    assert pass_rate(tmp_path, "--model.base_weights", "runs/prices/grpo") >= 0.8
