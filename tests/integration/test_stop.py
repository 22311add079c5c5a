"""Signals to whole runs, as terminals and schedulers send them (the cases of benchmarks/stopping.py)."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "stopping.py"
SPEC = importlib.util.spec_from_file_location("stopping_cases", SCRIPT)
stopping_cases = importlib.util.module_from_spec(SPEC)
sys.modules["stopping_cases"] = stopping_cases
SPEC.loader.exec_module(stopping_cases)
FAST = ("SIGTERM-group", "two-ranks-second", "setting-up", "validate")


@pytest.fixture(scope="module")
def config(workshop):
    def longer(config):
        config["trainer"]["callbacks"][0]["init_args"]["stages"][1]["tokens"] = 512 * 50_000
        config["trainer"]["val_check_interval"] = 40_000
        config["data"]["init_args"]["num_workers"] = 1

    return workshop.changed("stopped.yaml", longer)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=() if case.name in FAST else pytest.mark.slow)
        for case in stopping_cases.CASES
    ],
)
def test_signals(case, config, tmp_path):
    found = stopping_cases.run(case, config, tmp_path)
    assert found.code == case.code, found.output
    assert found.left == 0
    assert "Traceback" not in found.output
    assert not any(name.endswith(".partial") for name in found.checkpoints)
    if case.number == case.number.SIGKILL:
        return
    said = found.output.splitlines()[-1]
    assert case.number.name in said
    if not found.checkpoints:
        assert "nothing was saved: the first checkpoint comes at step 2" in said or case.moment != ".lock"
    elif case.times == 1:
        step = int(found.checkpoints[-1].removeprefix("step-"))
        assert said.startswith(f"stopped by {case.number.name} after step {step}; go on with: --ckpt_path last")
