"""Every notebook runs from top to bottom: its code cells, in order, in one fresh Python."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nbg_lightning.commands.trainer import parse
from nbg_lightning.testing import launchable_environment

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))

# What the test of a notebook looks at, as an expression over its names.
REPORTS = {
    "swap_datamodules": "dict(first=first, second=second, sizes=sizes, group=torch.distributed.is_initialized())",
    "curriculum": "dict(fine_grained=fine_grained, plain=plain, plan=[stage.steps for stage in plan.stages])",
    "own_reward_grpo": "dict(rewards=kept.rewards, characters=characters)",
    "benchmark_suite": "dict(half=half_results[-1][1].metrics, whole=[result.metrics for _, result in whole_results], "
    "test=metrics, compared=[each.paired._asdict() for each in found])",
}


def code_cells(file):
    cells = json.loads(file.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run(file, folder):
    cells = [*code_cells(file), f"import json; print('REPORT' + json.dumps({REPORTS[file.stem]}))"]
    # Each cell by its own exec, as in a kernel: no main module that worker processes could import.
    script = (
        f"import json\nscope = {{}}\nfor cell in json.loads({json.dumps(json.dumps(cells))}):\n    exec(cell, scope)\n"
    )
    environment = launchable_environment()
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def check_swap_datamodules(first, second, sizes, group):
    assert first["val/adding/token_accuracy"] > 0.4
    assert second["val/backwards/token_accuracy"] > 0.4
    assert sizes[-1] - sizes[1] < 40  # megabytes over four more fits
    assert group


def check_curriculum(fine_grained, plain, plan):
    assert list(fine_grained) == ["warmup", "diverse-stable", "hq-stable", "decay"]
    assert [row["step"] for row in fine_grained.values()] == [sum(plan[: index + 1]) for index in range(len(plan))]
    losses = [row["val/facts/loss"] for row in fine_grained.values()]
    assert losses == sorted(losses, reverse=True)  # each stage learns more of what the model should know
    assert list(plain) == ["warmup", "stable", "decay"]


def check_own_reward_grpo(rewards, characters):
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    assert characters[-1] > characters[0]  # as the text says


def check_benchmark_suite(half, whole, test, compared):
    before, after = (metrics["benchmark/codes/accuracy"] for metrics in whole)
    assert before < 0.1 < 0.8 < after
    assert half["benchmark/first/accuracy"] > 0.8
    assert half["benchmark/second/accuracy"] < 0.2
    assert test["benchmark/codes/accuracy"] == after
    assert compared[0]["difference"] == pytest.approx(after - half["benchmark/codes/accuracy"])


CHECKS = {file.stem: globals()[f"check_{file.stem}"] for file in NOTEBOOKS}


@pytest.mark.parametrize("name", ["curriculum", "own_reward_grpo", "swap_datamodules"])
def test_the_yaml_of_a_notebook_is_understood(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("tokenizer", "runs/words"):
        Path(folder).mkdir(parents=True)
    row = '{"text": "a", "question": "a", "messages": [{"role": "user", "content": "a"}]}\n'
    for source in ("facts", "talk", "questions", "adding"):
        Path(f"{source}.jsonl").write_text(row)
    cells = json.loads(NOTEBOOKS[0].with_stem(name).read_text("utf-8"))["cells"]
    [block] = [part for cell in cells for part in re.findall(r"```yaml\n(.*?)```", "".join(cell["source"]), re.S)]
    Path("mine.yaml").write_text(block)
    config = parse(["fit", "--config", "mine.yaml"])
    assert config.model.class_path.startswith("nbg_lightning.") and config.data.class_path.startswith("nbg_lightning.")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=[file.stem for file in NOTEBOOKS])
def test_notebook_is_clean_and_runs(file, tmp_path):
    assert all(not cell.get("outputs") for cell in json.loads(file.read_text("utf-8"))["cells"])  # outputs are not kept
    done = run(file, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    CHECKS[file.stem](**json.loads(done.stdout.split("REPORT")[1]))
