"""DPDModule without its token terms gives the losses and gradients of TRL's DPOTrainer, recorded by make_dpo_losses.py."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.names import hf_name
from nbg_lightning.data.pair_batch import pair_row, stack_pairs
from nbg_lightning.data.pairs import RenderedPair
from nbg_lightning.modules.dpd import PAIR_TERMS, DPDModule
from nbg_lightning.teachers.live import LiveTeacher

FOLDER = Path(__file__).parent
GOLDEN = json.loads((FOLDER / "dpo_losses.json").read_text())
SETTINGS = {
    "sigmoid": {},
    "hinge": {"preference": "hinge"},
    "ipo": {"preference": "ipo", "length_normalised": True},  # as TRL has it
    "sigmoid_norm": {"length_normalised": True},
}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """Policy and reference, from the folders that TRL read."""
    spec = importlib.util.spec_from_file_location("make_dpo_losses", FOLDER / "make_dpo_losses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.pairs() == GOLDEN["pairs"] and GOLDEN["scale"] == module.SCALE
    folder = tmp_path_factory.mktemp("golden")
    names = {"policy": GOLDEN["policy_seed"], "reference": GOLDEN["reference_seed"]}
    exact = ParallelConfig(compute_dtype="float32")
    return {name: LiveTeacher(module.model_folder(folder / name, seed), exact) for name, seed in names.items()}


def batch():
    pairs = []
    for row in GOLDEN["pairs"]:
        sides = []
        for answer in ("chosen_ids", "rejected_ids"):
            ids = np.array([*row["prompt_ids"], *row[answer]])
            sides += [ids, np.arange(len(ids)) >= len(row["prompt_ids"])]
        pairs.append(RenderedPair(*sides))
    rows = [pair_row(pairs[begin : begin + 3], 96) for begin in (0, 3)]
    return stack_pairs(rows, np.zeros(2), np.zeros(2))


@pytest.mark.parametrize("kind", SETTINGS)
def test_loss_gradients_and_metrics_are_those_of_trl(frozen, kind):
    golden = GOLDEN["results"][kind]
    policy = frozen["policy"]
    module = DPDModule(policy.shape, beta=GOLDEN["beta"], w_pos=0, w_neg=0, **SETTINGS[kind])
    module.model, module.reference, module.terms = policy.model.requires_grad_(), frozen["reference"], PAIR_TERMS
    module.model.zero_grad()
    micro_batches = batch().split(96)
    assert len(micro_batches) == 2
    counts = [module.count(micro) for micro in micro_batches]
    assert sum(count["dpo"] for count in counts) == 6
    scores = [module.scores(micro, {"dpo": 1 / 6}) for micro in micro_batches]
    loss = torch.stack([part.loss for part in scores]).sum()
    assert loss.item() == pytest.approx(golden["loss"], rel=1e-5)
    loss.backward()
    for name, parameter in module.model.named_parameters():
        assert parameter.grad.norm().item() == pytest.approx(golden["gradients"][hf_name(name)], rel=1e-4), name
    values = {name: torch.cat([part.values[name] for part in scores]).mean().item() for name in PAIR_TERMS}
    metrics = golden["metrics"]
    assert values["dpo"] == pytest.approx(golden["loss"], rel=1e-5)
    theirs = {"margin": metrics["rewards/margins"], "accuracy": metrics["rewards/accuracies"]}
    # TRL's margins are of sums also where the loss divides by lengths.
    compared = {} if "length_normalised" in SETTINGS[kind] else theirs
    assert {name: values[name] for name in compared} == pytest.approx(compared, rel=1e-5)
    for side in ("chosen", "rejected"):
        assert values[f"{side}_shift"] * GOLDEN["beta"] == pytest.approx(metrics[f"rewards/{side}"], rel=1e-5)
