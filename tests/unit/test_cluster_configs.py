"""The 3 B configs, each merged with a cluster's, and the recipe that launches them."""

from pathlib import Path

import pytest
import yaml

from nbg_lightning.commands.trainer import parse
from nbg_lightning.config_files import resolve_arguments
from nbg_lightning.core import preset
from nbg_lightning.planning import Cluster, device_of, workload_of
from nbg_lightning.planning.estimate import estimated_memory
from nbg_lightning.planning.plan import room_of
from nbg_lightning.recipe.plan import Recipe
from nbg_lightning.schedule.tokens import parse_tokens

CONFIGS = Path(__file__).parents[2] / "configs"
TASKS = [
    "pretrain/nanbeige4-3b",
    "sft/cold_start",
    "sft/chain_completion",
    "sft/overall",
    "dpd/nanbeige4-3b",
    "grpo/stem",
    "grpo/coding",
    "grpo/preference",
]
RANKS_OF_A_NODE = 8


def merged(*contents):
    """Mappings into each other, as configs are merged; anything else is replaced."""
    result = {}
    for content in contents:
        for key, value in content.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def on_a_cluster(task):
    return merged(*(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in (task, "trainer/cluster")))


@pytest.mark.parametrize("task", TASKS)
def test_a_cluster_leaves_checkpointing_and_float8_to_the_task(task):
    alone = yaml.safe_load((CONFIGS / f"{task}.yaml").read_text())["model"]["init_args"]["parallel"]
    parallel = on_a_cluster(task)["model"]["init_args"]["parallel"]
    # 94 to 109 GiB a GPU with selective checkpointing at these lengths, 23 to 51 with full.
    assert parallel["activation_checkpointing"] == alone["activation_checkpointing"] == "full"
    assert parallel.get("float8", "none") == ("none" if task.startswith(("dpd", "grpo")) else "rowwise")
    assert parallel["replicate"] == "nodes"


@pytest.mark.parametrize("task", TASKS)
def test_ranks_are_the_launchers(task):
    trainer = on_a_cluster(task)["trainer"]
    assert "devices" not in trainer
    assert "num_nodes" not in trainer


def windows_of_a_step(config):
    """What the ranks of a step must divide, in its longest stage."""
    data = config["data"]["init_args"]
    if "prompts_per_step" in data:
        return data["prompts_per_step"]
    if "sequence_length" in data:
        return parse_tokens(data["tokens_per_step"]) // data["sequence_length"]
    table = next(c["init_args"] for c in config["trainer"]["callbacks"] if c["class_path"].endswith("FGWSD"))
    longest = max(stage.get("sequence_length", table["sequence_length"]) for stage in table["stages"])
    return parse_tokens(table["tokens_per_step"]) // longest


def test_every_step_of_the_recipe_can_start_on_its_nodes():
    recipe = Recipe.from_yaml(CONFIGS / "recipe/nanbeige4-3b.yaml")
    found = {}
    for step in recipe.steps.values():
        if step.command == "fit":
            contents = [yaml.safe_load((CONFIGS.parent / name).read_text()) for name in step.config]
            words = recipe.launcher(step.name, {"HEAD": "node0"})
            nodes = int(words[words.index("--nnodes") + 1])
            found[step.name] = windows_of_a_step(merged(*contents)) % (nodes * RANKS_OF_A_NODE)
    assert found == dict.fromkeys(found, 0)
    assert len(found) == 8


@pytest.mark.parametrize("task", TASKS)
def test_every_task_fits_the_gpus_of_its_nodes(task):
    """With an engine on the same GPUs, the update has the rest of their memory."""
    parsed = parse(resolve_arguments([
        "fit", "--config", str(CONFIGS / f"{task}.yaml"), "--config", str(CONFIGS / "trainer/cluster.yaml")
    ]))  # fmt: skip
    workload, device, cluster = workload_of(parsed.as_dict(), preset("nanbeige4-3b")), device_of("h100"), Cluster(32, 8)
    for phase in workload.phases:
        assert estimated_memory(workload, phase, cluster, "cuda").total < room_of(workload, cluster, device)
    if task.startswith("grpo"):
        assert 0.3 <= workload.engine_share <= 0.6
