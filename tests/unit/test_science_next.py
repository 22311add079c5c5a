"""The experiments on bands, the teacher gap and reconstruction: training data of the arms, and shared folders."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "science"))

import band_controls
import dpd_plateau
import reconstruction
import teacher_gap
from band_controls import BEYOND, rows_of
from dpd_arms import EXPERIMENT as DPD
from dpd_seed import Seed
from harness import Charges, Job
from quickstart_seeds import RECIPE, TEACHER, link_teacher, seeded
from stages import draw_sums

from nbg_lightning.recipe.plan import Recipe
from nbg_lightning.recipe.run import StepRecord, state_of


def test_seeds_of_the_quickstart_share_the_teacher_and_nothing_else(tmp_path):
    recipe = Recipe.from_yaml(RECIPE)
    first, second = (seeded(recipe, seed, tmp_path) for seed in (1, 2))
    for name in recipe.steps:
        assert (first.key(name) == second.key(name)) == (name in TEACHER)
    for name in TEACHER:
        folder = tmp_path / "teacher" / name
        (folder / "checkpoints" / "step-00000001").mkdir(parents=True)
        StepRecord(first.key(name), done=True).write(folder)
    for each in (first, second, first):
        link_teacher(each)
        assert each.step_folder("teacher-sft").resolve() == tmp_path / "teacher" / "teacher-sft"
        assert state_of(each, "teacher-sft") in ("done", "resume"), "it would be trained again"


def test_a_band_and_its_lot_have_as_many_questions_and_unsolvable_ones_are_out_of_reach(tmp_path):
    sums = draw_sums({"rl": 12}, seed=1)["rl"]
    rows = rows_of(sums, 1 / 3)
    assert [row["answer"] for row in rows[:8]] == [each.answer for each in sums[:8]]
    assert all(int(row["answer"]) == int(each.answer) + BEYOND for row, each in zip(rows[8:], sums[8:], strict=True))
    rates = [0.0, 0.1, 0.5, 0.5, 0.8, 0.9, 1.0, 0.2, 0.0, 0.0, 0.0, 0.0]
    band, lot = (
        SimpleNamespace(settings=band_controls.ARMS[arm], rows={"rl": rows}, seed=3)
        for arm in ("10-90", "random 10-90")
    )
    inside, drawn = (band_controls.Seed.kept(each, rates) for each in (band, lot))
    assert inside == [rows[2], rows[3], rows[4], rows[7]]
    assert len(drawn) == 4
    assert all(row in rows for row in drawn)
    assert drawn != inside


def test_arms_of_reconstruction_differ_in_one_side():
    sums = draw_sums({"pairs": 3}, seed=1)["pairs"]
    wrong = {"role": "assistant", "content": "99", "reasoning_content": "01+1=03"}
    chains = [[{"role": "assistant", "content": each.answer, "reasoning_content": each.steps}] for each in sums]
    seed = SimpleNamespace(
        sums={"pairs": sums},
        drawn=lambda name: {"answers": [[wrong], [chains[1][0]], []], "right": [[False], [True], []]},
        right=lambda name: chains,
    )
    rows = {arm: reconstruction.rows_of(arm, seed) for arm in reconstruction.ARMS}
    assert {arm: len(own) for arm, own in rows.items()} == {**dict.fromkeys(rows, 2), "right drafts": 1}
    answers = {arm: own[0]["messages"][1] for arm, own in rows.items()}
    assert answers["drafts"] == wrong
    assert answers["right drafts"] == chains[1][0]
    assert answers["refined"] == {**wrong, "content": sums[0].answer}
    assert answers["reconstructed"] == chains[0][0]
    assert "reasoning_content" not in answers["answers alone"]
    assert reconstruction.EXPERIMENT.budgets["reconstruction"].settings == DPD.budgets["sums"].settings


def test_gaps_have_folders_of_their_own_and_worse_negatives_are_charged(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(teacher_gap, "run_arm", lambda job, kind, seed: asked.append((job.folder, job.charges, seed)))
    charges = Charges()
    for arm, budget in (("joint", teacher_gap.PRIMARY), ("joint, worse negatives", "weak teacher, early student")):
        teacher_gap.run(Job(arm, 1, budget, {}, tmp_path / f"{budget}-1-{arm}", charges))
    assert len({folder.parent for folder, _, _ in asked}) == 2
    assert [kind for _, _, kind in asked] == [teacher_gap.GapSeed, teacher_gap.WorseNegatives]
    assert all(own is charges for _, own, _ in asked)
    settings = {**DPD.budgets["sums"].settings, "sft": 20, "teacher_sft": 20, "pairs": 4, "validation": 1, "test": 1}
    seed = teacher_gap.WorseNegatives(tmp_path / "gap", 1, settings)
    monkeypatch.setattr(Seed, "drawn", lambda self, name: {"tokens": {"worse": 700}[name], "mean_tokens": 35})
    seed.charge_drawing(charges, "student")
    assert charges.by_purpose == {"worse draws": pytest.approx(seed.shape("student").flops_per_token(35) * 700 / 3)}


def test_gaps_of_one_teacher_share_it_and_those_of_one_student_share_its_training(tmp_path, monkeypatch):
    small = {"sft": 20, "teacher_sft": 20, "pairs": 4, "validation": 1, "test": 1}
    seeds = {
        name: teacher_gap.GapSeed(tmp_path / name, 1, {**teacher_gap.GAPS[name], **small})
        for name in ("weak teacher, late student", "weak teacher, early student", "best teacher, late student")
    }
    trained = []
    monkeypatch.setattr(Seed, "base", lambda self, *_: trained.append(self.folder) or "base")
    monkeypatch.setattr(Seed, "sft", lambda self, *_: f"{self.folder}/sft")
    late, early, better = seeds.values()
    assert late.teachers_folder == early.teachers_folder != better.teachers_folder
    assert late.student == better.student != early.student
    assert {folder.parent.name for folder in trained} == {"student-900", "student-500"}
    assert late.folder != better.folder, "their answers are of other teachers"


def test_grpo_of_all_arms_asks_what_no_arm_has_seen(tmp_path, monkeypatch):
    settings = {
        **dpd_plateau.SETTINGS,
        "sft": 20,
        "teacher_sft": 20,
        "pairs": 4,
        "validation": 1,
        "test": 1,
        "grpo": 6,
        "rl_steps": 2,
    }
    seed, asked = Seed(tmp_path, 1, settings), []
    monkeypatch.setattr(Seed, "drawn", lambda self, name: {"mean_tokens": 35})
    monkeypatch.setattr(Seed, "prompts", lambda self, made, per_step, steps: asked.append((made, per_step, steps)))
    monkeypatch.setattr(Seed, "options", lambda self: {})
    monkeypatch.setattr(Seed, "reinforce", lambda self, *given: ("after", {"tokens": 700}))
    monkeypatch.setattr("nbg_lightning.GRPOModule", lambda *given, **options: options["base_weights"])
    charges = Charges()
    assert (
        dpd_plateau.PlateauArm(Job("start", 1, "plateau", settings, tmp_path, charges), seed).grpo("before") == "after"
    )
    [(made, per_step, steps)] = asked
    seen = {each for name, part in seed.sums.items() if name != "grpo" for each in part}
    assert (len(made), per_step, steps) == (6, settings["rl_prompts"], 2)
    assert not seen & set(made)
    one = seed.shape("student").flops_per_token(35) * 700
    assert charges.by_purpose == {"answers of GRPO": pytest.approx(one / 3), "steps of GRPO": pytest.approx(one)}
