"""The three tiny stages with an untrained model: all of their YAML works, and failures say why."""

from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "configs" / "grpo"


@pytest.fixture
def small(workshop, run, tmp_path):
    """A stage's config with the least of everything: two steps, from an untrained model, without a filter."""
    checkpoint = str(run / "checkpoints" / "step-00000006")

    def small(stage, **model):
        config = {
            "model": {
                "init_args": {
                    "base_weights": checkpoint,
                    "group_size": 2,
                    "max_new_tokens": 4,
                    "loss": {"name": "grpo", "mask_truncated": False},
                    **model,
                }
            },
            "data": {
                "init_args": {
                    "tokenizer": checkpoint,
                    "prompts_per_step": 2,
                    "steps": 2,
                    "ledger": None,
                    "data_dir": str(tmp_path / "data"),
                }
            },
            "trainer": {"default_root_dir": str(tmp_path / stage), "logger": False},
        }
        override = workshop.write(f"{stage}-small.yaml", config)
        return workshop.nbg("fit", "--config", CONFIGS / f"tiny_{stage}.yaml", "--config", override)

    small.checkpoint = checkpoint
    return small


@pytest.mark.parametrize("stage", ["stem", "coding"])
def test_a_stage_runs_two_steps(small, tmp_path, stage):
    result = small(stage)
    assert result.code == 0, result.err
    assert (tmp_path / stage / "checkpoints" / "step-00000002").is_dir()
    assert (tmp_path / stage / "rollouts.jsonl").read_text()


def test_a_judge_that_cannot_judge_stops_the_run(small):
    """The untrained model as judge: no comparison can be read, and that is no preference."""
    judge = {"class_path": "nbg_lightning.engines.LocalEngine", "init_args": {"weights": small.checkpoint}}
    reward = {
        "class_path": "nbg_lightning.rewards.PairwisePreferenceReward",
        "init_args": {"judge": judge, "judge_tokenizer": small.checkpoint, "template": "nanbeige", "judge_tokens": 2},
    }
    result = small("preference", reward=reward)
    assert result.code == 2
    assert "has a score" in result.err
    assert "the judge" in result.err
