"""The shipped laptop recipe with few steps per stage: killed repeatedly, it gives the same numbers."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nbg_lightning.core.fingerprint import source_fingerprint
from nbg_lightning.core.weights import open_weights
from nbg_lightning.recipe.gather import gather
from nbg_lightning.recipe.plan import Recipe
from nbg_lightning.recipe.run import StepRecord

CONFIGS = Path(__file__).parents[2] / "configs"
KILLS = 8
# Models that have learned nothing are right nowhere: what is scored here is the length of their answers.
REWARD = {
    "class_path": "nbg_lightning.rewards.FunctionReward",
    "init_args": {"function": "lengths.even", "text": "all", "workers": 1},
}
FUNCTION = "def even(question, answers):\n    return [float(len(answer) % 2 == 0) for answer in answers]\n"


def shrunk(content):
    """The recipe with less of everything; its steps and what they take from each other stay as they are."""
    steps = content["steps"]
    for name in ("teacher-pretrain", "teacher-sft", "pretrain", "sft", "dpd", "grpo"):
        callbacks = yaml.safe_load((CONFIGS.parent / steps[name]["config"]).read_text())["trainer"]["callbacks"]
        for callback in callbacks:
            if callback["class_path"] == "nbg_lightning.StepCheckpoint":
                callback["init_args"] = {"every_n_steps": 2, "keep": 1}
        trainer = {"max_steps": 4, "limit_val_batches": 0, "callbacks": callbacks}
        steps[name].setdefault("changes", {})["trainer"] = trainer
    steps["pairs"]["changes"] |= {
        "questions": {"sums": {"init_args": {"count": 24}}},
        "teacher": None,
        "solutions": "answer",
        "max_new_tokens": 8,
    }
    for name in ("pass-rate", "grpo"):
        model, data = (steps[name]["changes"][part]["init_args"] for part in ("model", "data"))
        model |= {"reward": REWARD, "max_new_tokens": 8}
        data |= {"prompts_per_step": 4, "sources": {"sums": {"init_args": {"count": 24}}}}
    for step in steps.values():
        if step["command"] == "test":
            step["changes"]["data"] = {"init_args": {"suite": {"sampling": {"max_new_tokens": 4}}}}
    return content


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which the recipe runs, twice."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "configs").symlink_to(CONFIGS)
    (folder / "lengths.py").write_text(FUNCTION)
    content = yaml.safe_load((CONFIGS / "recipe" / "quickstart.yaml").read_text())
    (folder / "recipe.yaml").write_text(yaml.safe_dump(shrunk(content), sort_keys=False))
    return folder


def start(place, folder):
    words = [sys.executable, "-m", "nbg_lightning.cli", "recipe", "recipe.yaml", "--folder", folder]
    with (place / f"{folder}.log").open("ab") as log:
        return subprocess.Popen(words, cwd=place, stdout=log, stderr=log, start_new_session=True)


def outcome(place, folder, monkeypatch):
    """What every suite found, item by item, and the last weights of every training."""
    monkeypatch.chdir(place)
    runs = dataclasses.replace(Recipe.from_yaml("recipe.yaml"), folder=folder)
    found = {}
    for report in gather(runs):
        assert report.state == "done", f"{report.step.name}: {(place / f'{folder}.log').read_text()[-3000:]}"
        if report.suite is not None:
            found[report.step.name] = [r["samples"] for rows in report.suite.records.values() for r in rows]
        if report.step.command == "fit":
            found[report.step.name] = source_fingerprint(open_weights(str(runs.find(report.step.name, "checkpoint"))))
    return found


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_numbers(place, monkeypatch):
    straight = start(place, "straight")
    assert straight.wait() == 0, (place / "straight.log").read_text()[-3000:]
    chance = random.Random(0)
    kills = 0
    while True:
        process = start(place, "killed")
        if kills < KILLS:
            try:
                assert process.wait(chance.uniform(8, 40)) == 0
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
        else:
            assert process.wait() == 0, (place / "killed.log").read_text()[-3000:]
            break
    assert kills >= 4
    expected, found = outcome(place, "straight", monkeypatch), outcome(place, "killed", monkeypatch)
    assert found == expected
    records = [StepRecord.read(folder) for folder in (place / "killed").iterdir() if folder.is_dir()]
    assert sum(record.parts for record in records if record is not None) > len(records), "some steps were broken off"
