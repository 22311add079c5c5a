"""Signals to whole runs, as terminals and schedulers send them (the cases of benchmarks/stopping.py)."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
stopping = importlib.import_module("stopping")
FAST = ("SIGTERM-group", "two-ranks-second", "setting-up", "validate")


@pytest.fixture(scope="module")
def configs(workshop):
    def longer(config):
        config["trainer"]["callbacks"][0]["init_args"]["stages"][1]["tokens"] = 512 * 50_000
        config["trainer"]["val_check_interval"] = 40_000
        config["data"]["init_args"]["num_workers"] = 1

    return stopping.make_inputs(workshop.folder / "stopped", workshop.changed("stopped.yaml", longer))


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=() if case.name in FAST else pytest.mark.slow) for case in stopping.CASES],
)
def test_signals(case, configs, tmp_path):
    """Exit code, last words, checkpoints, and what is left of it."""
    found = stopping.run(case, configs, tmp_path)
    assert found.faults(case) == [], found.output
    if case.moment.startswith("checkpoints/"):
        assert found.checkpoints, found.output
        if case.times == 1 and case.number != stopping.signal.SIGKILL:
            step = int(found.checkpoints[-1].removeprefix("step-"))
            assert f"stopped by {case.number.name} after step {step}; go on with: --ckpt_path last" in found.output


@pytest.mark.parametrize("last", ["", "stopped by SIGINT after step 5; go on", "Killed"])
def test_a_case_sees_other_words(last):
    case = stopping.CASES[0]
    assert not case.said(f"step 5\n{last}\n")
    assert case.said(
        "stopped by SIGTERM after step 5; go on with: --ckpt_path last (the last checkpoint is a/step-00000005)"
    )
