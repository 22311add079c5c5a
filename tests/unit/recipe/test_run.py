"""Steps that are finished, resumed, or repeated, with a real fast command: `nbg schedule`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nbg_lightning.recipe.plan import Recipe
from nbg_lightning.recipe.run import StepFailed, StepRecord, command_of, run_recipe, shown, state_of

CURRICULUM = {
    "class_path": "nbg_lightning.FGWSD",
    "init_args": {
        "tokens_per_step": 256,
        "sequence_length": 64,
        "stages": [{"name": "only", "tokens": 2560, "lr": 1e-3, "mixture": {"web": 1}}],
    },
}


@pytest.fixture
def content(tmp_path):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [CURRICULUM]}}))
    step = {
        "command": "schedule",
        "arguments": [str(tmp_path / "plan.yaml")],
        "set": {"png": "${folder}/picture.png"},
        "outputs": {"picture": "picture.png"},
    }
    after = {"command": "schedule", "arguments": [str(tmp_path / "plan.yaml")], "set": {"png": "${first.folder}/b.png"}}
    return {"name": "r", "folder": str(tmp_path / "runs"), "steps": {"first": step, "second": after}}


def recipe_of(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return Recipe.from_yaml(path)


def test_runs_once_and_again_only_what_changed(tmp_path, content):
    recipe = recipe_of(tmp_path, content)
    assert run_recipe(recipe, ["first", "second"]) == {"first": "run", "second": "run"}
    picture = recipe.find("first", "picture")
    assert picture.stat().st_size > 1000
    record = StepRecord.read(recipe.step_folder("first"))
    assert record is not None and record.done and record.parts == 1 and record.seconds > 0
    assert record.command[0] == "schedule"
    assert run_recipe(recipe, ["first", "second"]) == {"first": "done", "second": "done"}

    longer = json.loads(json.dumps(CURRICULUM))
    longer["init_args"]["stages"][0]["tokens"] = 5120
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [longer]}}))
    recipe = recipe_of(tmp_path, content)
    assert run_recipe(recipe, ["first", "second"]) == {"first": "redo", "second": "redo"}
    aside = [path.name for path in (tmp_path / "runs").iterdir() if path.name.startswith("first.")]
    assert aside == [f"first.{record.key[:8]}"], "what was made before is kept"
    assert picture.exists()


def test_a_step_that_names_its_own_output_is_done_once_that_is_there(tmp_path, content):
    content["steps"]["first"]["set"] = {"png": str(tmp_path / "runs" / "first" / "picture.png")}
    recipe = recipe_of(tmp_path, content)
    assert run_recipe(recipe, ["first"]) == {"first": "run"}
    assert run_recipe(recipe, ["first"]) == {"first": "done"}


def test_an_output_that_was_deleted_is_made_again(tmp_path, content):
    recipe = recipe_of(tmp_path, content)
    run_recipe(recipe, ["first"])
    recipe.find("first", "picture").unlink()
    assert state_of(recipe, "first") == "resume"
    run_recipe(recipe, ["first"])
    assert state_of(recipe, "first") == "done"


def test_a_step_without_its_input_is_refused(tmp_path, content):
    content["steps"]["second"]["set"] = {"png": "${first.picture}.copy.png"}
    recipe = recipe_of(tmp_path, content)
    with pytest.raises(ValueError, match=r"needs first\.picture, which is not there; run step 'first' first"):
        run_recipe(recipe, ["second"])


def test_a_failing_step_stops_the_recipe(tmp_path, content):
    content["steps"]["first"]["arguments"] = [str(tmp_path / "nothing.yaml")]
    recipe = recipe_of(tmp_path, content)
    with pytest.raises(StepFailed, match="'first' failed with exit code 2"):
        run_recipe(recipe, ["first", "second"])
    assert state_of(recipe, "first") == "resume"
    assert state_of(recipe, "second") == "run"


def test_a_step_that_makes_nothing_is_an_error(tmp_path, content):
    content["steps"]["first"]["outputs"] = {"picture": "other.png"}
    recipe = recipe_of(tmp_path, content)
    with pytest.raises(StepFailed, match="ended without its output 'picture'"):
        run_recipe(recipe, ["first"])


def test_killed_and_begun_again(tmp_path, content):
    """`kill -9` of the whole process group in the first step: the second call makes what is missing."""
    recipe = recipe_of(tmp_path, content)
    program = (
        "import sys; from nbg_lightning.recipe.plan import Recipe; from nbg_lightning.recipe.run import run_recipe; "
        "run_recipe(Recipe.from_yaml(sys.argv[1]), ['first', 'second'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "recipe.yaml")],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert "first: running: nbg schedule" in process.stdout.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert state_of(recipe, "first") == "resume"
    assert run_recipe(recipe, ["first", "second"]) == {"first": "resume", "second": "run"}
    record = StepRecord.read(recipe.step_folder("first"))
    assert record is not None and record.parts == 2


def test_a_fit_goes_on_from_its_checkpoint_and_is_launched_as_asked(tmp_path, content):
    content["steps"]["train"] = {"command": "fit"}
    content["launch"] = "torchrun --nproc-per-node 8 -m nbg_lightning.cli"
    recipe = recipe_of(tmp_path, content)
    words = command_of(recipe, "train", resume=True)
    assert words[:5] == ["torchrun", "--nproc-per-node", "8", "-m", "nbg_lightning.cli"]
    assert "--ckpt_path" not in words, "there is no checkpoint yet"
    checkpoint = recipe.step_folder("train") / "checkpoints" / "step-00000003"
    checkpoint.mkdir(parents=True)
    (checkpoint / "meta.pt").touch()
    (checkpoint / ".metadata").touch()
    assert recipe.find("train", "checkpoint") == checkpoint
    assert command_of(recipe, "train", resume=True)[-2:] == ["--ckpt_path", "last"]
    assert "torchrun" not in command_of(recipe, "first")
    assert shown(command_of(recipe, "first")).startswith("nbg schedule ")


def test_the_launch_takes_names_from_the_environment(tmp_path, content, monkeypatch):
    content["steps"]["train"] = {"command": "fit"}
    content["launch"] = "srun torchrun --nnodes $NBG_NODES -m nbg_lightning.cli"
    recipe = recipe_of(tmp_path, content)
    with pytest.raises(ValueError, match=r"needs \$NBG_NODES for step 'train'; set it"):
        run_recipe(recipe, ["first"])
    monkeypatch.setenv("NBG_NODES", "4")
    assert command_of(recipe, "train")[:4] == ["srun", "torchrun", "--nnodes", "4"]


def test_a_step_has_its_own_number_of_nodes(tmp_path, content):
    content["steps"]["train"] = {"command": "fit", "nodes": 2}
    content["steps"]["other"] = {"command": "fit"}
    content |= {"launch": "srun --nodes $NODES torchrun --nnodes ${NODES} -m nbg_lightning.cli", "nodes": 16}
    recipe = recipe_of(tmp_path, content)
    assert command_of(recipe, "train")[:6] == ["srun", "--nodes", "2", "torchrun", "--nnodes", "2"]
    assert command_of(recipe, "other")[:3] == ["srun", "--nodes", "16"]
    for wrong in (0, -1, True, "2", 1.5):
        content["steps"]["train"]["nodes"] = wrong
        with pytest.raises(ValueError, match="step 'train': nodes is invalid"):
            recipe_of(tmp_path, content)


def test_a_record_that_cannot_be_read(tmp_path, content):
    recipe = recipe_of(tmp_path, content)
    folder = recipe.step_folder("first")
    folder.mkdir(parents=True)
    (folder / "step.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read; move"):
        state_of(recipe, "first")
    assert Path(folder / "step.json").exists()
