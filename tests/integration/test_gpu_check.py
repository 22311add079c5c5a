"""The GPU check at small scale on a CPU: the code of every check, the table, the JSON, and the report of a failing check."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_check import older_torch
from benchmarks.gpu_check.__main__ import checks, main, rows, run
from benchmarks.gpu_check.setting import LeftOut, Setting, within

ROOT = Path(__file__).parents[2]
COMPILED = {"compile", "recompilations"}  # a minute of a compiler
NEEDS_MORE = {"context parallelism", "GRPO against TRL"}  # than a CPU has


def found_by(names, folder):
    file = folder / "found.json"
    words = [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--output", str(file), "--only", *names]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(file.read_text()), done.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return found_by(sorted(set(checks()) - COMPILED), tmp_path_factory.mktemp("check"))


@pytest.mark.slow
def test_checks_that_compile(tmp_path):
    found, _ = found_by(sorted(COMPILED), tmp_path)
    assert {each["state"] for each in found["checks"].values()} == {"ok"}
    assert found["checks"]["recompilations"]["found"]["graphs"] >= 1


def test_every_check_runs(report):
    found, table = report
    assert set(found["checks"]) == set(checks()) - COMPILED
    left_out = {name for name, each in found["checks"].items() if each["state"] != "ok"}
    assert left_out == NEEDS_MORE
    assert all(f"| {name}" in table for name in found["checks"]) and "no check failed" in table


def test_what_the_checks_found(report):
    found = {name: each.get("found") for name, each in report[0]["checks"].items()}
    assert found["environment"]["torch"] and found["environment"]["TFLOP/s"] > 0
    assert max(found["attention"].values()) < 1e-5
    assert found["host synchronizations"] == {"waits": 0}
    assert set(found["GRPO update"]) == {"shared", "each by itself"}
    assert found["planned against measured"]["planned GiB"] > 0
    assert all(each["tokens/s"] > 0 for each in found["steps"].values())


def test_a_check_that_fails_is_a_row():
    here = Setting("cpu", 1)

    def fail(_):
        return within({"values": 0.5, "gradient": 0.1}, {"values": 0.1, "gradient": 0.2})

    found = run(fail, here, 10)
    assert (found["state"], found["why"]) == ("FAILED", "AssertionError: values is 0.5, more than 0.1")
    assert rows("attention", found) == ["| attention | FAILED | AssertionError: values is 0.5, more than 0.1 |"]
    with pytest.raises(AssertionError, match="values is nan"):
        within({"values": float("nan")}, {"values": 1.0})

    def leave_out(_):
        raise LeftOut("needs CUDA")

    assert run(leave_out, here, 10)["state"] == "left out"
    assert run(fail, here, 0)["why"].startswith("no time is left")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_missing_device_is_said(capsys):
    assert main([]) == 2
    assert "there is no CUDA device" in capsys.readouterr().err


def test_a_check_that_there_is_not_is_said(capsys):
    assert main(["--device", "cpu", "--only", "atention"]) == 2
    assert "no check 'atention'; there are: environment, attention" in capsys.readouterr().err


def test_this_torch_has_what_is_expected_or_gets_it():
    older_torch.fill_in()
    assert older_torch.fill_in() == []
