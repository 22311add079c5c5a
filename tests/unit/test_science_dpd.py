"""Assumptions of the experiments on DPD and the quickstart's seeds: correct derivations, and the steps a stage needs."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "science"))

import agents
import agents_rates
import dpd_arms
import dpd_plateau
import dpd_plateau_rates
import dpd_rates
import teacher_gap
import teacher_gap_rates
from derivations import derivations, worked
from dpd_seed import Seed
from harness import candidates
from quickstart_seeds import EXPERIMENT as QUICKSTART
from quickstart_seeds import RECIPE, needed
from stages import RESULTS_OF_A_STEP, draw_sums

from nbg_lightning.recipe.plan import Recipe

EXPERIMENTS = {"dpd_arms": dpd_arms, "dpd_plateau": dpd_plateau, "teacher_gap": teacher_gap, "agents": agents}
RATES = {
    "dpd_arms": dpd_rates,
    "dpd_plateau": dpd_plateau_rates,
    "teacher_gap": teacher_gap_rates,
    "agents": agents_rates,
}


def test_every_derivation_is_of_known_facts_and_ends_in_the_answer():
    made = draw_sums({"sums": 300}, seed=0)["sums"]
    both = 0
    for each in made:
        found = derivations(each)
        both += len(found) == 2
        assert found[0] == each
        for one in found:
            lines = one.steps.splitlines()
            assert lines[-1].endswith(f"={each.answer}")
            assert all(total in RESULTS_OF_A_STEP for total in one.totals[:-1])
    assert both > 150, "a task with one derivation would say nothing of a teacher's distribution"


def test_conversations_take_each_derivation():
    made = draw_sums({"sums": 40}, seed=0)["sums"]
    rows = worked(made, random.Random(0), each=8)
    assert len(rows) == 320
    for place, each in enumerate(made):
        own = rows[8 * place : 8 * place + 8]
        assert {row["messages"][0]["content"] for row in own} == {each.question}
        assert {row["messages"][1]["reasoning_content"] for row in own} <= {one.steps for one in derivations(each)}
    several = {row["messages"][0]["content"]: set() for row in rows}
    for row in rows:
        several[row["messages"][0]["content"]].add(row["messages"][1]["reasoning_content"])
    assert sum(len(found) == 2 for found in several.values()) > 20


def test_seeds_of_a_student_share_sums_and_no_sum_is_in_two_splits(tmp_path):
    settings = {**dpd_arms.SETTINGS, "sft": 20, "teacher_sft": 20, "pairs": 20, "validation": 10, "test": 10}
    first, second = (Seed(tmp_path, seed, settings) for seed in (1, 2))
    assert first.sums == second.sums
    assert first.sft_rows != second.sft_rows, "which derivation is shown is the seed's"
    asked = [each.question for own in first.sums.values() for each in own]
    assert len(set(asked)) == len(asked) == 80


@pytest.mark.parametrize("tuned", ["dpd_arms", "dpd_plateau", "teacher_gap", "agents"])
def test_the_settings_of_an_arm_are_candidates_of_its_tuning(tuned):
    experiment = EXPERIMENTS[tuned].EXPERIMENT
    tuning = RATES[tuned]
    seeds = {seed for budget in experiment.budgets.values() for seed in budget.seeds}
    assert seeds.isdisjoint(tuning.EXPERIMENT.tuning_seeds) and tuning.EXPERIMENT.tuning_seeds
    for budget in tuning.EXPERIMENT.budgets:
        settings = experiment.budgets[budget].settings
        assert tuning.EXPERIMENT.budgets[budget].settings == settings
        tried = [{**settings, **own} for own in tuning.EXPERIMENT.arms.values()]
        for arm in tuning.GRID:
            assert {**settings, **experiment.arms[arm]} in tried


def test_candidates_are_named_after_what_differs():
    arms = {"DPO": {"lr": 1.0, "beta": 0.1}, "SFT": {"lr": 1.0}}
    assert candidates(arms, {"SFT": [{}], "DPO": [{"lr": 1e-4}, {"lr": 2.0, "beta": 0.5}]}) == {
        "SFT": {"lr": 1.0},
        "DPO lr 0.0001": {"lr": 1e-4, "beta": 0.1},
        "DPO lr 2 beta 0.5": {"lr": 2.0, "beta": 0.5},
    }


@pytest.mark.parametrize(
    ("benchmark", "steps"),
    [
        ("test-pretrain", ["pretrain"]),
        ("test-sft", ["pretrain", "sft"]),
        ("test-teacher", ["teacher-pretrain", "teacher-sft"]),
        (
            "test-grpo",
            ["teacher-pretrain", "teacher-sft", "pretrain", "sft", "pairs", "cache", "dpd", "pass-rate", "grpo"],
        ),
    ],
)
def test_a_stage_of_the_quickstart_runs_what_it_needs(benchmark, steps):
    assert needed(Recipe.from_yaml(RECIPE), benchmark) == [*steps, benchmark]
    assert benchmark in {arm["benchmark"] for arm in QUICKSTART.arms.values()}
