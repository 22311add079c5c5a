"""`configs/grpo/tiny.yaml` through the command line on a test model, with the native engine and real vLLM."""

import json
import re
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CONFIGS = Path(__file__).parents[2] / "configs"
SETTINGS = """reward/mean pass_rate/sums rollout/zero_variance rollout/truncated rollout/errors rollout/length
    policy/entropy policy/clip_share policy/mismatch_kl policy/p99_ratio time/engine time/train
    rollout/tokens_per_second"""


@pytest.fixture
def launch(workshop, run):
    """Some steps of a config with a model of this workshop, whose answers are noise: even ids are what is rewarded."""
    checkpoint = str(run / "checkpoints" / "step-00000006")

    def launch(name, folder, *arguments, steps=3, every=None):
        override = {
            "model": {
                "init_args": {
                    "base_weights": checkpoint,
                    "reward": "nbg_lightning.testing.grpo.EvenReward",
                    "max_new_tokens": 6,
                    "loss": {"name": "grpo", "mask_truncated": False},
                    "group_size": 4,
                }
            },
            "data": {"init_args": {"tokenizer": checkpoint, "data_dir": str(workshop.folder / "small"), "prompts_per_step": 4}},
            "trainer": {
                "default_root_dir": str(workshop.folder / folder),
                "max_steps": steps,
                "log_every_n_steps": 1,
                "callbacks": [
                    {"class_path": "nbg_lightning.SampleTable", "init_args": {"every_n_steps": 1}},
                    {"class_path": "nbg_lightning.StepCheckpoint", "init_args": {"every_n_steps": every, "keep": 9}},
                ],
            },
        }  # fmt: skip
        file = workshop.write(f"small-{folder}.yaml", override)
        result = workshop.nbg("fit", "--config", CONFIGS / "grpo" / f"{name}.yaml", "--config", file, *arguments)
        assert result.code == 0, result.err
        return workshop.folder / folder

    return launch


def rollouts(folder):
    return [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]


def scalars(folder):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_first_run_needs_no_more_than_25_keys():
    import yaml

    def keys(value):
        if isinstance(value, dict):
            return sum(1 + keys(inside) for inside in value.values())
        return sum(map(keys, value)) if isinstance(value, list) else 0

    assert keys(yaml.safe_load((CONFIGS / "grpo" / "tiny.yaml").read_text())) <= 25


def test_a_run_and_its_resumption(launch):
    straight = launch("tiny", "grpo-straight")
    assert {line["step"] for line in rollouts(straight)} == {1, 2, 3}
    assert set(re.split(r"\s+", SETTINGS)) <= set(scalars(straight))
    launch("tiny", "grpo-broken", steps=2)
    resumed = launch("tiny", "grpo-broken", "--ckpt_path", "last")
    assert rollouts(resumed) == rollouts(straight)
    for folder in (straight, resumed):
        assert (folder / "checkpoints" / "step-00000003").is_dir()


def test_a_stage_goes_on_from_another(launch, workshop):
    """Multi-stage: the next stage begins with the last one's checkpoint, by whatever number of steps."""
    first = launch("tiny", "grpo-first", steps=1)
    last = first / "checkpoints" / "step-00000001"
    second = launch("tiny", "grpo-second", "--model.init_args.base_weights", str(last), steps=1)
    assert (second / "checkpoints" / "step-00000001").is_dir()


@pytest.mark.vllm
def test_the_same_run_by_vllm(launch):
    """Weights that are pushed after each step, compared by a probe, and log-probs that are the trainer's."""
    folder = launch("tiny-vllm", "grpo-vllm", steps=4)
    found = scalars(folder)
    assert max(found["policy/mismatch_kl"]) < 1e-4
    assert max(found["policy/p99_ratio"]) < 1.02
    assert min(found["time/sync"]) > 0
    assert found["rollout/errors"] == [0.0] * 4
    assert not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1
    launch("tiny-vllm", "grpo-vllm-broken", steps=2)
    resumed = launch("tiny-vllm", "grpo-vllm-broken", "--ckpt_path", "last", steps=4)
    assert [line["rewards"] for line in rollouts(resumed)] == [line["rewards"] for line in rollouts(folder)]
