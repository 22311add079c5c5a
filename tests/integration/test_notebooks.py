"""Every notebook runs from top to bottom in a fresh Python, and contains the outputs of such a run."""

import base64
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
    "own_environment": "dict(before=before, after=after, rewards=kept.rewards, turns=kept.turns)",
    "own_reward_grpo": "dict(rewards=kept.rewards, characters=characters)",
    "hugging_face_sft": "dict(before=before, after=after, loss=trainer.callback_metrics['train/loss'].item())",
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
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
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


def check_own_environment(before, after, rewards, turns):
    assert after > before + 0.2  # doors that no step has seen
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.2
    assert turns[-1] > turns[0] + 0.2  # it looks first


def check_own_reward_grpo(rewards, characters):
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1
    assert characters[-1] > characters[0]  # as the text says


def check_hugging_face_sft(before, after, loss):
    """Questions in other words than those that were trained are answered by what was trained."""
    told = ("half past nine", "seven euros", "Tram 4")
    assert not any(fact in answer for fact, answer in zip(told, before, strict=True))
    assert sum(fact in answer for fact, answer in zip(told, after, strict=True)) >= 2
    assert loss < 0.5


def check_benchmark_suite(half, whole, test, compared):
    before, after = (metrics["benchmark/codes/accuracy"] for metrics in whole)
    assert before < 0.1 < 0.8 < after
    assert half["benchmark/first/accuracy"] > 0.8
    assert half["benchmark/second/accuracy"] < 0.2
    assert test["benchmark/codes/accuracy"] == after
    assert compared[0]["difference"] == pytest.approx(after - half["benchmark/codes/accuracy"])


REAL_MODEL = Path(__file__).parents[2] / "benchmarks" / "real_model.py"
REAL_WEIGHTS = {"hugging_face_sft"}  # which `REAL_MODEL` makes
SLOW = {*REAL_WEIGHTS, "own_environment", "swap_datamodules", "benchmark_suite"}
RUN = [pytest.param(file.stem, marks=pytest.mark.slow) if file.stem in SLOW else file.stem for file in NOTEBOOKS]
PICTURE = "import matplotlib.pyplot as plt\nplt.figure(figsize=(1, 1))\nplt.plot([1, 2])"
CHECKS = {file.stem: globals()[f"check_{file.stem}"] for file in NOTEBOOKS}


@pytest.mark.parametrize(
    "name", ["curriculum", "hugging_face_sft", "own_environment", "own_reward_grpo", "swap_datamodules"]
)
def test_the_yaml_of_a_notebook_is_understood(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("tokenizer", "runs/words"):
        Path(folder).mkdir(parents=True)
    row = '{"text": "a", "question": "a", "messages": [{"role": "user", "content": "a"}]}\n'
    for source in ("facts", "talk", "questions", "adding", "chats"):
        Path(f"{source}.jsonl").write_text(row)
    monkeypatch.syspath_prepend(tmp_path)
    sources = code_cells(NOTEBOOKS[0].with_stem(name))
    Path("my_door.py").write_text("\n".join(source for source in sources if "(Environment):" in source))
    cells = json.loads(NOTEBOOKS[0].with_stem(name).read_text("utf-8"))["cells"]
    [block] = [part for cell in cells for part in re.findall(r"```yaml\n(.*?)```", "".join(cell["source"]), re.S)]
    Path("mine.yaml").write_text(block)
    config = parse(["fit", "--config", "mine.yaml"])
    assert config.model.class_path.startswith("nbg_lightning.") and config.data.class_path.startswith("nbg_lightning.")


@pytest.mark.parametrize("file", NOTEBOOKS, ids=[file.stem for file in NOTEBOOKS])
def test_notebook_has_the_outputs_of_a_run(file):
    """Kept, in the order of the cells, without errors, paths of a machine or megabytes."""
    notebook = json.loads(file.read_text("utf-8"))
    assert "".join(notebook["cells"][0]["source"]).startswith("# ")
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result", "display_data"}
    printed = sum("print(" in line for cell in cells for line in cell["source"] if not line.startswith(" "))
    assert len(outputs) >= max(2, printed // 2)
    assert (
        re.findall(r"(?<![\w.~/])/(?:tmp|home|root|work|usr|var|opt|Users|mnt|data)/\S*", json.dumps(notebook["cells"]))
        == []
    )
    assert file.stat().st_size < 300_000


def test_a_curriculum_is_seen_without_running_it():
    cells = json.loads(NOTEBOOKS[0].with_stem("curriculum").read_text("utf-8"))["cells"]
    [picture] = [
        o["data"]["image/png"] for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert base64.b64decode(picture).startswith(b"\x89PNG")


def test_execution_keeps_what_a_cell_shows(tmp_path):
    """By the script that writes notebooks: printed text, last value, figures; paths of the run's folder are left out."""
    rest = {"metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    sources = ["import tempfile\nx = 2", "print(tempfile.gettempdir())\nx + 1", PICTURE]
    cells = [{"cell_type": "code", "source": [text], "outputs": [], "execution_count": None} for text in sources]
    file = tmp_path / "one.ipynb"
    file.write_text(json.dumps({"cells": cells, **rest}))
    script = NOTEBOOKS[0].with_name("execute.py")
    environment = {**launchable_environment(), "MPLBACKEND": "agg"}
    subprocess.run(
        [sys.executable, str(script), "--here", str(file)], cwd=tmp_path, env=environment, check=True, timeout=120
    )
    first, second, third = (cell["outputs"] for cell in json.loads(file.read_text("utf-8"))["cells"])
    assert first == []
    assert [output["output_type"] for output in second] == ["stream", "execute_result"]
    assert second[0]["text"] == ["FOLDER\n"] and second[1]["data"] == {"text/plain": ["3"]}
    assert [list(output["data"]) for output in third] == [["image/png", "text/plain"]]


@pytest.mark.parametrize("file", RUN, ids=str)
def test_notebook_runs(file, tmp_path):
    if file in REAL_WEIGHTS:
        subprocess.run(
            [sys.executable, str(REAL_MODEL)], check=True, stdout=subprocess.DEVNULL
        )  # makes it where it is not
    done = run(NOTEBOOKS[0].with_stem(file), tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    CHECKS[file](**json.loads(done.stdout.split("REPORT")[1]))
