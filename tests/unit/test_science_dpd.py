"""Assumptions of the experiments on DPD and the quickstart's seeds: correct derivations, and the steps a stage needs."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "science"))

import dpd_plateau
from derivations import derivations, worked
from dpd_arms import ARMS, TUNING_SEEDS
from dpd_arms import EXPERIMENT as DPD
from dpd_plateau_rates import CANDIDATES as PLATEAU
from dpd_plateau_rates import EXPERIMENT as RATES
from dpd_rates import CANDIDATES
from dpd_seed import Seed
from quickstart_seeds import EXPERIMENT as QUICKSTART
from quickstart_seeds import RECIPE, needed
from stages import RESULTS_OF_A_STEP, draw_sums

from nbg_lightning.recipe.plan import Recipe


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
    settings = {**DPD.budgets["sums"].settings, "sft": 20, "teacher_sft": 20, "pairs": 20, "validation": 10, "test": 10}
    first, second = (Seed(tmp_path, seed, settings) for seed in (1, 2))
    assert first.sums == second.sums
    assert first.sft_rows != second.sft_rows, "which derivation is shown is the seed's"
    asked = [each.question for own in first.sums.values() for each in own]
    assert len(set(asked)) == len(asked) == 80


def test_rates_are_chosen_for_arms_of_the_experiment_on_no_seed_of_it():
    assert set(TUNING_SEEDS).isdisjoint(DPD.budgets["sums"].seeds)
    for name, candidate in CANDIDATES.items():
        arm = name.rsplit(" ", 2)[0]
        assert {**ARMS[arm], "lr": candidate["lr"], "beta": candidate["beta"]} == candidate


def test_the_rates_at_the_plateau_are_candidates_of_its_tuning():
    chosen = {
        arm for arm, own in dpd_plateau.ARMS.items() for name, each in PLATEAU.items() if own == each and arm in name
    }
    assert chosen == set(dpd_plateau.ARMS)
    assert set(RATES.tuning_seeds).isdisjoint(dpd_plateau.EXPERIMENT.budgets["plateau"].seeds)


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
