"""Mixture plans: the order is independent of the learning rate, and a resumed run keeps the stages begun."""

import dataclasses

import pytest

from nbg_lightning.data.order import SampleOrder, sample_hash
from nbg_lightning.schedule.curriculum import Curriculum, Stage, saved_plan
from nbg_lightning.schedule.mixture import MixturePlan, MixtureStage, check_resumed

MIXTURES = [("first", 64, {"a": 1.0, "b": 3.0}, 4), ("second", 32, {"b": 1.0}, None)]


def plan(*, tokens=64) -> MixturePlan:
    stages = [MixtureStage(name, size, mixture, length) for name, size, mixture, length in MIXTURES]
    return MixturePlan([dataclasses.replace(stages[0], tokens=tokens), stages[1]], 16, 8)


def curriculum(lr: float = 1e-3, rope_theta: float | None = None) -> Curriculum:
    stages = [Stage(name, size, lr, mixture, sequence_length=length) for name, size, mixture, length in MIXTURES]
    return Curriculum([stages[0], dataclasses.replace(stages[1], rope_theta=rope_theta)], 16, 8)


def test_a_plan_and_a_curriculum_of_the_same_mixtures_have_the_same_order_and_chain_whatever_the_learning_rates():
    orders = [SampleOrder(3, each, lambda source, length: 7) for each in (plan(), curriculum(), curriculum(0.0))]
    hashes = [sample_hash(3, order.lookup(0, order.plan.num_samples)).tolist() for order in orders]
    assert hashes[0] == hashes[1] == hashes[2] and len(set(hashes[0])) == plan().num_samples == 20


@pytest.mark.parametrize("made", [plan(), curriculum(), curriculum(rope_theta=1e5)])
def test_a_plan_comes_back_from_a_checkpoint_as_what_it_was(made):
    assert saved_plan(dataclasses.asdict(made)) == made


def test_checkpoints_whose_plan_had_unused_learning_rates_go_on():
    check_resumed(saved_plan(dataclasses.asdict(curriculum(0.0))), plan(), step=5)


@pytest.mark.parametrize(
    ("saved", "here"),
    [
        (plan(), plan(tokens=48)),
        (curriculum(rope_theta=1e5), curriculum()),
        (curriculum(rope_theta=1e5), plan()),
    ],
)
def test_a_stage_that_has_begun_keeps_its_length_and_rope_base(saved, here):
    with pytest.raises(ValueError, match=r"already begun at the checkpoint \(step 6\)"):
        check_resumed(saved, here, step=6)
