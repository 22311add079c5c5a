"""The quality-order experiment: one multiset of windows, clean and damaged problems, a loop that equals the trainer's."""

import dataclasses
import functools
import math
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "science"))

import quality_order
from core_loop import RunCheckpoint, average, pretrain
from harness import Job
from harness.jobs import Jobs
from quality_order import ARMS, PRIMARY, STEP, datamodule, experiment, shape, stages
from worked_problems import DOCUMENT, WRONG, Problem, after, damaged_documents, draw_problem, worked

from nbg_lightning import FGWSD, AdamWConfig, ParallelConfig, PretrainModule, StepCheckpoint, Trainer
from nbg_lightning.callbacks import MergeCheckpoints
from nbg_lightning.core.weight_sources import HuggingFaceFolder, LiveWeights
from nbg_lightning.data.order import SampleOrder
from nbg_lightning.schedule.curriculum import Curriculum

PROBLEM = Problem(3, (("+", 4), ("-", 2), ("+", 4), ("-", 1)))
SETTINGS = {"tokens": 40 * STEP, "size": {"width": 32, "layers": 1}, "rate": 1e-3, "repeats": 1}


def curriculum(arm: str, settings=SETTINGS) -> Curriculum:
    return Curriculum(stages({**settings, **ARMS[arm]}), STEP, quality_order.LENGTH)


def test_problems_are_worked_out_and_damaged_by_the_dial():
    assert (PROBLEM.question, PROBLEM.solution) == ("3+4-2+4-1=", "7,5,9,8")
    assert len(PROBLEM.question + PROBLEM.solution) + 2 == DOCUMENT
    assert (after(8, "+", 4), after(1, "-", 3)) == (9, 0)  # the counter stops at both ends
    assert worked(PROBLEM, [False] * 4, layout=1) == "7;5;9;8"
    assert worked(PROBLEM, [False] * 4, layout=2) == "8,9,5,7"
    wrong = worked(PROBLEM, [False, True, False, False], draw=random.Random(0)).split(",")
    assert wrong[0] == "7"
    assert wrong[1] != "5"
    assert int(wrong[2]) == after(int(wrong[1]), "+", 4)  # what follows goes on from the wrong result


def test_damaged_documents_have_their_shares_of_wrong_steps_and_layouts():
    draw = random.Random(1)
    problems = [draw_problem(draw) for _ in range(3000)]
    documents = list(damaged_documents(problems, random.Random(2)))
    assert {len(each) + 2 for each in documents} == {DOCUMENT}
    right: Counter[int] = Counter()
    layouts: Counter[str] = Counter()
    for number, (problem, document) in enumerate(zip(problems, documents, strict=True)):
        text = document.removeprefix(problem.question)
        layouts["marks" if ";" in text else "lines"] += 1
        clean = {worked(problem, [False] * 4, layout) for layout in range(3)}
        right[number % 2] += text in clean
    assert layouts["marks"] / 3000 == pytest.approx(1 / 3, abs=0.03)
    for half, share in enumerate(WRONG):
        assert right[half] / 1500 == pytest.approx((1 - share) ** 4, abs=0.04)


def test_arms_have_the_same_windows_and_one_learning_rate():
    settings = dict(experiment.budgets[PRIMARY].settings)
    rows, rates = {}, {}
    for arm in ARMS:
        plan = curriculum(arm, settings)
        order = SampleOrder(1, plan, lambda source, length: {"clean": 10_000, "damaged": 10_000}[source])
        samples = order.lookup(0, plan.num_steps * STEP // quality_order.LENGTH)
        rows[arm] = {source: set(samples.window[samples.source == source].tolist()) for source in (0, 1)}
        rates[arm] = [plan.learning_rate(step) for step in range(plan.num_steps)]
        assert plan.num_steps == 220
    for arm in ARMS:
        for source in (0, 1):
            assert (
                len(rows[arm][source] ^ rows["uniform"][source]) <= 4
            )  # of 440 windows: a step's share in whole windows
    assert len(rows["uniform"][0]) == pytest.approx(0.6 * 440, abs=3)
    assert [arm for arm in ARMS if rates[arm] != rates["uniform"]] == ["FG merged"]
    assert rates["FG merged"][:176] == rates["FG"][:176]
    assert set(rates["FG merged"][176:]) == {settings["rate"]}


def test_the_pool_of_a_seed_is_seen_as_often_as_asked(tmp_path):
    counts = {}
    for repeats in (1, 4):
        job = Job("uniform", 5, "small", {**SETTINGS, "repeats": repeats}, tmp_path / str(repeats) / "job")
        data, _, problems = datamodule(job)
        data.prepare_data()
        data.setup("fit")
        counts[repeats] = data.source_tokens
        texts = {text[: text.index("=") + 1] for source in data.sources.values() for text in source.texts}
        assert not texts & {each.question for each in problems}
    need = 0.6 * SETTINGS["tokens"]
    assert need <= counts[1]["clean"] <= need + 5 * quality_order.LENGTH
    assert need / 4 <= counts[4]["clean"] <= need / 4 + 5 * quality_order.LENGTH
    assert counts[1]["damaged"] == counts[4]["damaged"]


def test_the_loop_gives_the_weights_of_the_trainer(tmp_path):
    job = Job("FG", 3, "small", SETTINGS, tmp_path / "runs" / "job")
    core, optimizer = shape(SETTINGS["size"]), AdamWConfig(weight_decay=0.1, betas=(0.9, 0.95))
    plan, merged = curriculum("FG merged"), 4
    data, _, _ = datamodule(job)
    model = pretrain(core, optimizer, plan, data, job.seed, merged)

    data, _, _ = datamodule(job)
    module = PretrainModule(core, optimizer, ParallelConfig(compute_dtype="float32"), micro_batch_tokens=STEP, seed=3)
    table = FGWSD(plan.stages, STEP, quality_order.LENGTH)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=str(tmp_path / "trainer"),
        logger=False,
        enable_progress_bar=False,
        limit_val_batches=0,
        callbacks=[table, StepCheckpoint(every_n_steps=2, keep=merged), MergeCheckpoints(merged)],
    )
    trainer.fit(module, datamodule=data)
    (folder,) = (tmp_path / "trainer" / "merged").iterdir()
    theirs, own = HuggingFaceFolder(folder), LiveWeights(model)
    for name in own.shapes:
        torch.testing.assert_close(own.whole(name), theirs.read([name])[name], msg=name)


@pytest.mark.parametrize("merged", [0, 4])
def test_a_killed_run_goes_on_with_the_same_weights(tmp_path, monkeypatch, merged):
    job = Job("FG", 3, "small", SETTINGS, tmp_path / "runs" / "job")
    core, optimizer, plan = shape(SETTINGS["size"]), AdamWConfig(weight_decay=0.1), curriculum("FG merged")

    def trained(checkpoint=None):
        return pretrain(core, optimizer, plan, datamodule(job)[0], job.seed, merged, checkpoint)

    whole, clip, steps = trained(), torch.nn.utils.clip_grad_norm_, []

    def killed(*given):
        steps.append(1)
        if len(steps) == plan.num_steps - 2:  # in the decay, between two points
            raise KeyboardInterrupt
        return clip(*given)

    file = tmp_path / "checkpoint" / "run.pt"
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(RunCheckpoint(file, seconds=0.0))
    resumed = trained(RunCheckpoint(file, seconds=1e6))
    assert len(steps) == plan.num_steps - 2 + 3  # the one that was killed is computed again
    for (name, own), theirs in zip(resumed.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(own, theirs), name


def test_a_run_has_a_checkpoint_until_its_numbers_are_stored(tmp_path, monkeypatch):
    saved = []

    class Watched(RunCheckpoint):
        def save(self, *given):
            super().save(*given)
            saved.append(self.file.is_file())

    monkeypatch.setattr(quality_order, "RunCheckpoint", functools.partial(Watched, seconds=0.0))
    monkeypatch.setattr(quality_order, "measure", lambda *given: {"bits": [math.nan], "accuracy": [1.0]})
    budgets = {PRIMARY: dataclasses.replace(experiment.budgets[PRIMARY], settings=SETTINGS)}
    changed = dataclasses.replace(experiment, budgets={**experiment.budgets, **budgets})
    jobs = Jobs(changed, tmp_path)
    job = jobs.job(PRIMARY, 1, "FG")
    with pytest.raises(ValueError, match=r"bits of .* is invalid: nan"):
        jobs.run([job])
    assert saved == [True] * 40
    whole = job.checkpoint.read_bytes()
    for damaged in (b"", whole[:-500]):
        job.checkpoint.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"checkpoint-.*\.pt is damaged .*; remove it, and the run begins anew"):
            jobs.run([job])
    job.checkpoint.write_bytes(whole)
    monkeypatch.setattr(quality_order, "measure", lambda *given: {"bits": [1.0], "accuracy": [1.0]})
    assert jobs.run([job]) == 1
    assert saved == [True] * 40  # nothing was left to train
    assert sorted(file.name for file in job.folder.iterdir()) == [".job.lock", "result.json"]


def test_the_average_is_of_all_points():
    model = torch.nn.Linear(2, 1, bias=False)
    average(model, [{"weight": torch.tensor([[1.0, 2.0]])}, {"weight": torch.tensor([[3.0, 6.0]])}])
    assert model.weight.tolist() == [[2.0, 4.0]]


def test_a_run_gives_every_metric_of_the_plan(tmp_path):
    budget = dataclasses.replace(experiment.budgets[PRIMARY], settings=SETTINGS)
    job = Job("FG", 1, PRIMARY, {**budget.settings, **ARMS["FG"]}, tmp_path / "runs" / "job")
    found = experiment.run(job)
    assert set(found["metrics"]) == set(experiment.metrics) == set(found["items"])
    assert found["metrics"]["bits"] == pytest.approx(sum(found["items"]["bits"]) / quality_order.TESTS)
    assert job.charges.total == pytest.approx(shape(SETTINGS["size"]).flops_per_token(quality_order.LENGTH) * 40 * STEP)
