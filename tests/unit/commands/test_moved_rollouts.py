"""Rollout settings in their former place are accepted, in files and options, for every module that samples answers."""

import pytest
import yaml

from nbg_lightning.commands.trainer import parse

DATA = {"class_path": "nbg_lightning.PromptDataModule", "init_args": {"sources": {}}}
REWARD = {"class_path": "nbg_lightning.rewards.MathReward"}
MODELS = {
    "GRPOModule": {"core": "nano", "reward": REWARD},
    "OPDModule": {"core": "nano", "teacher": "runs/teacher"},
}


@pytest.mark.parametrize("kind", MODELS)
def test_old_keys_are_the_new_ones(tmp_path, kind):
    def rollouts(extra, *options):
        model = {"class_path": f"nbg_lightning.{kind}", "init_args": {**MODELS[kind], **extra}}
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump({"model": model, "data": DATA}))
        return parse(["fit", "--config", str(file), *options])["model"]["init_args"]["rollouts"]

    old = rollouts({"rollout_deadline": 60.0, "validation_samples": 3, "rollouts": {"max_staleness": 2}})
    assert old == rollouts({"rollouts": {"deadline": 60.0, "validation_samples": 3, "max_staleness": 2}})
    assert (old["deadline"], old["validation_samples"], old["max_staleness"]) == (60.0, 3, 2)
    assert rollouts({}, "--model.init_args.rollout_deadline", "7")["deadline"] == 7.0
    assert rollouts({}, "--model.rollout_deadline=8")["deadline"] == 8.0
