"""The harness of benchmarks/science: registered plans, resumable jobs, and the analysis of results."""

import dataclasses
import json
import os
import re
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "science"))

import harness.experiment
import seeds
import tables
from harness import Budget, Charges, Contrast, Experiment, Metric, Trend, main
from harness.analysis import holm, seeds_needed, summarize
from harness.command import collect
from harness.jobs import LOCK, Jobs
from harness.published import Published
from harness.tables import experiment_tables, told_p, trends_table

from nbg_lightning import LanguageModelConfig, stopping
from nbg_lightning.data.folder_lock import folder_lock

PAGE = Path(__file__).parents[2] / "docs" / "science" / "own_experiment.md"
SHAPE = LanguageModelConfig(280, 32, 64, 1, 2, 1, 16)


def plain_run(job):
    """Scores of four items: the arm's gain on top of the seed's own level."""
    items = [0.1 * job.seed + job.settings["gain"] * (1 + 0.1 * item + 0.01 * job.seed) for item in range(4)]
    job.charges.train("model", SHAPE, job.settings["tokens"], length=8)
    return {"metrics": {"score": sum(items) / 4}, "items": {"score": items}}


def experiment(**changes) -> Experiment:
    given = {
        "name": "plain",
        "question": "Does the arm gain what it was given?",
        "metrics": {"score": Metric("score", scale=100, digits=1)},
        "arms": {"none": {"gain": 0.0}, "some": {"gain": 0.2}, "same": {"gain": 0.0}},
        "budgets": {
            "small": Budget({"tokens": 10}, seeds=(1, 2, 3)),
            "large": Budget({"tokens": 20}, seeds=(1, 2), arms=("none", "some")),
        },
        "primary": Contrast("none", "some", "score", "small"),
        "secondary": (Contrast("none", "same", "score", "small"), Contrast("none", "some", "score", "large")),
        "tuning_seeds": (101, 102),
        "run": plain_run,
    }
    return Experiment(**{**given, **changes})


@pytest.fixture(autouse=True)
def own_files(tmp_path, monkeypatch):
    monkeypatch.setattr(harness.experiment, "REGISTERED", tmp_path / "registered")
    monkeypatch.setattr("harness.command.quiet", lambda threads: None)
    monkeypatch.setattr(seeds, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("nbg_lightning.data.folder_lock.DYING_SECONDS", 0.1)  # those that hold a lock here are alive


def test_a_plan_is_registered_before_it_runs_and_changed_only_with_a_reason(tmp_path):
    folder = str(tmp_path / "runs")
    with pytest.raises(SystemExit, match="plain is not registered; run the command register"):
        main(experiment(), ["run", "--folder", folder])
    main(experiment(), ["register"])
    main(experiment(), ["run", "--folder", folder, "--seeds", "1"])
    more = experiment(arms={**experiment().arms, "much": {"gain": 1.0}})
    with pytest.raises(SystemExit, match="another plan; register --change 'why'"):
        main(more, ["run", "--folder", folder])
    for reason in ([], ["--change", " "]):
        with pytest.raises(SystemExit, match="another plan"):
            main(more, ["register", *reason])
    main(more, ["register", "--change", "a larger dose"])
    assert json.loads(more.registration.read_text())["changes"] == ["a larger dose"]
    main(more, ["run", "--folder", folder, "--seeds", "1"])
    assert (tmp_path / "runs" / "runs" / "small-1-much" / "result.json").is_file()


@pytest.mark.parametrize(
    ("gains", "told"),
    [
        ({101: 0.2, 102: 0.3}, "+0.2500 (-0.3853 to +0.8853); 3 seeds would tell it"),
        ({101: 0.3, 102: -0.3001}, "-0.0000 (-3.8125 to +3.8124); more than 10,000 seeds would be needed to tell it"),
        ({101: 0.1, 102: -0.1}, "+0.0000 (-1.2706 to +1.2706)\n"),  # no effect, which no number of seeds would tell
    ],
)
def test_tuning_tells_how_many_seeds_an_effect_needs(tmp_path, capsys, gains, told):
    def run(job):
        return {"metrics": {"score": gains[job.seed] if job.arm == "some" else 0.0}}

    main(experiment(run=run), ["tune", "--folder", str(tmp_path)])
    assert f"small, some - none, score: {told}" in capsys.readouterr().out


def test_plans_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="arm of a contrast is invalid: 'other'; choose none, some, same"):
        experiment(primary=Contrast("none", "other", "score", "small"))
    with pytest.raises(ValueError, match="metric of a contrast is invalid: 'loss'"):
        experiment(primary=Contrast("none", "some", "loss", "small"))
    with pytest.raises(ValueError, match="tuning_seeds is invalid: 3 is a seed of budget small"):
        experiment(tuning_seeds=(3,))
    with pytest.raises(ValueError, match="a contrast is there twice"):
        experiment(secondary=(Contrast("none", "some", "score", "small"),))
    with pytest.raises(ValueError, match="seeds of budget small are invalid"):
        experiment(budgets={"small": Budget({}, (1, 1)), "large": Budget({}, (1,))})
    with pytest.raises(ValueError, match="arm of budget small is invalid: 'nobody'"):
        experiment(budgets={"small": Budget({}, (1,), ("nobody",)), "large": Budget({}, (1,))})
    with pytest.raises(ValueError, match="a contrast is invalid: budget large does not run 'same'; choose none, some"):
        experiment(secondary=(Contrast("none", "same", "score", "large"),))
    with pytest.raises(ValueError, match="a contrast is there twice"):
        experiment(secondary=(Contrast("some", "none", "score", "small"),))
    with pytest.raises(ValueError, match="arm of a contrast is invalid: 'some' is compared with itself"):
        experiment(primary=Contrast("some", "some", "score", "small"))
    with pytest.raises(ValueError, match="seeds of budget small are invalid: a contrast needs two or more"):
        experiment(budgets={**experiment().budgets, "small": Budget({}, (1,))})
    with pytest.raises(ValueError, match="trend over small, large is invalid: they share fewer than two seeds"):
        experiment(
            budgets={**experiment().budgets, "large": Budget({}, (5, 6))},
            trends=(Trend("none", "some", "score", {"small": 1.0, "large": 2.0}),),
        )
    for value in (Path("file"), float("nan"), SHAPE):
        with pytest.raises(ValueError, match=r"settings of arm none are invalid: .*; give what JSON can hold"):
            experiment(arms={**experiment().arms, "none": {"gain": value}})
    assert Budget({}, range(1, 4)).seeds == (1, 2, 3)


@pytest.mark.parametrize(
    ("arm", "metric", "places", "told"),
    [
        ("some", "score", {"huge": 1.0}, "budget of a trend is invalid: 'huge'; choose small, large"),
        ("some", "scor", {"small": 1.0, "large": 2.0}, "metric of a trend is invalid: 'scor'; choose score"),
        ("same", "score", {"small": 1.0, "large": 2.0}, "arm of a trend is invalid: budget large does not run 'same'"),
        ("some", "score", {"small": 1.0}, "give two different ones or more, above 0"),
        ("some", "score", {"small": 1.0, "large": 1.0}, "give two different ones or more, above 0"),
        ("some", "score", {"small": 0.0, "large": 1.0}, "give two different ones or more, above 0"),
    ],
)
def test_trends_that_cannot_be_computed_are_refused(arm, metric, places, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        experiment(trends=(Trend("none", arm, metric, places),))


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", "[]", "{}", '{"plan": {}, "changes": null}'])
def test_a_damaged_plan_is_told_with_its_file(tmp_path, text):
    experiment().register()
    experiment().registration.write_text(text)
    for command in ("register", "run", "summary"):
        with pytest.raises(SystemExit, match=r"plain\.json is damaged .*; restore it from git"):
            main(experiment(), [command, "--folder", str(tmp_path)])


def test_what_the_plan_does_not_run_is_not_selected(tmp_path):
    experiment().register()
    for selection, told in (
        (["--seeds", "99"], "--seeds has 99, which the plan does not run"),
        (["--seeds", "3", "--budgets", "large"], "no run of the plan has all of --arms, --budgets and --seeds"),
    ):
        with pytest.raises(SystemExit, match=told):
            main(experiment(), ["run", "--folder", str(tmp_path), *selection])


def test_a_killed_experiment_goes_on_and_several_processes_share_the_work(tmp_path):
    ran: list[tuple[str, int, str]] = []

    def failing(job):
        if (job.budget, job.seed, job.arm) == ("small", 2, "some") and len(ran) < 6:
            raise KeyboardInterrupt
        ran.append((job.budget, job.seed, job.arm))
        return plain_run(job)

    jobs = Jobs(experiment(run=failing), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        jobs.run(jobs.all())
    assert [seed for _, seed, _ in ran] == [1, 1, 1, 2]  # whole seeds first
    ran.extend([("", 0, "")] * 2)
    held = jobs.job("small", 3, "none")
    with folder_lock(held.folder, "runs", LOCK):  # another process has this one
        assert jobs.run(jobs.all()) == len(jobs.all()) - 5
    assert jobs.found(held) is None
    assert jobs.run(jobs.all()) == 1
    assert jobs.run(jobs.all()) == 0
    assert len(ran) - 2 == len(jobs.all()) == 13


def test_jobs_whose_seed_is_trained_by_another_process_are_left_for_later(tmp_path, capsys):
    def shares_its_seed(job):
        with folder_lock(job.folder.parent / f"shared-{job.seed}", "trains this seed"):
            return plain_run(job)

    jobs = Jobs(experiment(run=shares_its_seed), tmp_path)
    of_seed = [job for job in jobs.all() if job.seed == 2]
    with folder_lock(of_seed[0].folder.parent / "shared-2", "trains this seed"):
        assert jobs.run(jobs.all()) == len(jobs.all()) - len(of_seed)
    assert f"{len(of_seed)} runs are left, since other processes run them" in capsys.readouterr().err
    assert jobs.run(jobs.all()) == len(of_seed)
    assert "are left" not in capsys.readouterr().err


def test_what_was_left_is_tried_again_before_the_end(tmp_path):
    other = ExitStack()  # a process that ends while this one runs

    def last(job):
        if len(ran := [each for each in jobs.all() if jobs.found(each)]) == len(jobs.all()) - 2:
            other.close()
        assert job not in ran
        return plain_run(job)

    jobs = Jobs(experiment(run=last), tmp_path)
    with other:
        other.enter_context(folder_lock(jobs.job("small", 2, "none").folder, "runs", LOCK))
        assert jobs.run(jobs.all()) == len(jobs.all())


def summarized(experiment, folder, *more):
    """The JSON that the command writes."""
    main(experiment, ["summary", "--folder", str(folder), *more])
    return json.loads((seeds.RESULTS / f"{experiment.name}.json").read_text())["results"]


@pytest.fixture
def published(tmp_path, monkeypatch):
    """An experiment whose two first seeds have been run in a folder that is lost, and its results."""
    monkeypatch.setattr("harness.picture.draw", lambda result: result)
    monkeypatch.setattr("tables.write_tables", list)
    first = experiment()
    first.register()
    main(first, ["run", "--folder", str(tmp_path / "first"), "--seeds", "1", "2"])
    return first, summarized(first, tmp_path / "first")


def test_published_runs_are_neither_run_again_nor_lost(tmp_path, published, capsys):
    (first, before), ran, folder = published, [], ["--folder", str(tmp_path / "second")]

    def counted(job):
        ran.append((job.budget, job.seed, job.arm))
        return plain_run(job)

    more = experiment(run=counted, arms={**first.arms, "much": {"gain": 1.0}})
    more.register("a larger dose")
    capsys.readouterr()
    main(more, ["run", *folder, "--published"])
    assert capsys.readouterr().err.startswith("10 of 16 runs are done, here or in results/\n")
    assert ran == [*(("small", seed, "much") for seed in (1, 2)), *(("small", 3, arm) for arm in more.arms)]
    main(more, ["status", *folder, "--published"])
    assert "small, some: 3 of 3 seeds (2 of them only in results/)\n" in capsys.readouterr().out
    with pytest.raises(
        SystemExit, match="would drop: small, seed 1, none and 9 more; --published keeps it; --drop drops it"
    ):
        summarized(more, tmp_path / "second")
    after = summarized(more, tmp_path / "second", "--published")
    assert after["arms"]["large"] == before["arms"]["large"]
    assert [after["arms"]["small"][arm]["seeds"] for arm in ("some", "much")] == [[1, 2, 3], [1, 2, 3]]
    assert after["primary"]["by_seed"][:2] == before["primary"]["by_seed"]
    assert "interval_95_over_items" not in after["primary"]  # seed 3 has items, the published ones have none
    assert after["secondary"][1] == {**before["secondary"][1], "p_holm": after["secondary"][1]["p_holm"]}
    assert list(after["secondary"][1]) == list(before["secondary"][1])
    assert summarized(more, tmp_path / "second", "--published") == after
    assert summarized(more, tmp_path / "second", "--drop")["arms"]["large"] == {}


def test_a_summary_that_is_written_again_is_the_same(tmp_path, published):
    first, before = published
    costlier = experiment(run=lambda job: job.charges.forward("judge", SHAPE, 1e6, 8) or plain_run(job))
    main(costlier, ["run", "--folder", str(tmp_path / "second"), "--published"])
    found, *again = [summarized(first, tmp_path / "second", "--published") for _ in "123"]
    assert again == [found, found]
    old, judge = before["arms"]["small"]["some"]["operations"], 1e6 * SHAPE.flops_per_token(8) / 3
    assert found["arms"]["small"]["some"]["operations"] == pytest.approx(old + judge / 3)
    more = experiment(budgets={**first.budgets, "small": Budget({"tokens": 10}, seeds=(1, 2, 3, 4))})
    more.register("a further seed")
    main(more, ["run", "--folder", str(tmp_path / "second"), "--published"])
    of_each = summarized(more, tmp_path / "second", "--published")["arms"]["small"]["some"]["operations_by_seed"]
    assert of_each == pytest.approx([old, old, old + judge, old])


def test_runs_of_other_settings_replace_published_ones_only_if_told(tmp_path, published, capsys):
    first, before = published
    stronger = experiment(arms={**first.arms, "some": {"gain": 0.5}})
    stronger.register("a larger dose")
    main(stronger, ["run", "--folder", str(tmp_path / "second")])
    for more in ([], ["--published"]):
        with pytest.raises(SystemExit, match="would drop: small, seed 1, some and 3 more; "):
            summarized(stronger, tmp_path / "second", *more)
    assert json.loads((seeds.RESULTS / "plain.json").read_text())["results"] == before
    assert summarized(stronger, tmp_path / "second", "--drop")["primary"]["difference"] == pytest.approx(0.585)


def test_what_another_process_has_written_meanwhile_is_not_replaced(tmp_path, published, monkeypatch):
    first, _ = published
    file = seeds.RESULTS / "plain.json"
    monkeypatch.setattr(
        "harness.command.summarize",
        lambda *given: (file.write_text(file.read_text().replace('"date": "', '"date": "x')), summarize(*given))[1],
    )
    with pytest.raises(SystemExit, match=r"another process has written .*plain\.json meanwhile; run this again"):
        summarized(first, tmp_path / "first")


def test_published_runs_of_other_settings_do_not_count(published):
    first, _ = published
    assert sum(map(len, Published(first).runs.values())) == 10
    fewer = {**first.budgets, "small": Budget({"tokens": 10}, seeds=(2, 4))}
    assert Published(experiment(budgets=fewer)).runs["small", "some"].keys() == {2}
    for other in (11, 10.0, True):
        changed = {**first.budgets, "small": Budget({"tokens": other}, seeds=(1, 2, 3))}
        assert {budget for budget, _ in Published(experiment(budgets=changed)).runs} == {"large"}
    stronger = Published(experiment(arms={**first.arms, "some": {"gain": 0.3}})).runs
    assert ("small", "some") not in stronger and ("small", "none") in stronger
    score = first.metrics["score"]
    for metrics in (
        {"score": score, "other": Metric("another number")},
        {"score": dataclasses.replace(score, text="loss")},
        {"score": dataclasses.replace(score, higher_is_better=False)},
    ):
        assert Published(experiment(metrics=metrics)).runs == {}
    assert len(Published(experiment(metrics={"score": dataclasses.replace(score, digits=2)})).runs) == 5
    assert Published(experiment(name="new")).runs == {}


def test_runs_that_the_plan_has_no_more_are_dropped_only_if_told(tmp_path, published):
    first, before = published
    stronger = experiment(arms={**first.arms, "some": {"gain": 0.3}})
    stronger.register("a larger dose")
    with pytest.raises(
        SystemExit, match="small, seed 1, some and 3 more; the plan has it no more, or with other settings or metrics"
    ):
        summarized(stronger, tmp_path / "empty", "--published")
    assert json.loads((seeds.RESULTS / "plain.json").read_text())["results"] == before
    after = summarized(stronger, tmp_path / "empty", "--published", "--drop")
    assert list(after["arms"]["small"]) == ["none", "same"]


def test_an_interval_over_items_is_of_the_very_runs_of_the_file(tmp_path, published):
    """Other runs may have the same differences by chance, as of accuracies that are all 1."""
    first, before = published
    contrast = first.primary
    file = Published(first)
    assert file.over_items(contrast, file.runs) == before["primary"]["interval_95_over_items"]
    assert file.over_items(contrast, Published(first).runs) is None  # equal, but not known to be the same
    fewer = {key: dict(list(own.items())[1:]) for key, own in file.runs.items()}
    assert file.over_items(contrast, fewer) is None
    assert file.over_items(dataclasses.replace(contrast, second="much"), file.runs) is None


def test_the_folders_runs_count_where_results_has_others(tmp_path, published, capsys):
    _, before = published
    code = experiment(run=lambda job: {"metrics": {"score": 5.0 * (job.arm == "some")}})
    main(code, ["run", "--folder", str(tmp_path / "second"), "--seeds", "1", "--budgets", "small"])
    after = summarized(code, tmp_path / "second", "--published")
    assert "small, seed 1, none has other numbers in the folder than in results/; and 2 more: the folder's count" in (
        capsys.readouterr().err
    )
    assert after["primary"]["by_seed"] == [5.0, before["primary"]["by_seed"][1]]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text[:-20], "damaged (JSONDecodeError"),
        (lambda text: "[]", "damaged (TypeError"),
        (lambda text: text.replace('"benchmark": "plain"', '"benchmark": "other"'), "it is not of plain"),
        (lambda text: text.replace('"operations"', '"none"'), "damaged (KeyError: 'operations')"),
        (lambda text: re.sub(r'"seeds": \[\s+1,\s+2\s+\]', '"seeds": [1, 1]', text), "none is there twice"),
        (lambda text: re.sub(r'"seeds": \[\s+1,\s+2\s+\]', '"seeds": [1]', text), "damaged (ValueError: zip()"),
        (lambda text: re.sub(r'"score": \[\s+[\d.]+', '"score": [ NaN', text), "a number of small, none is not finite"),
        (lambda text: text.replace('"primary"', '"first"'), "damaged (KeyError: 'primary')"),
        (lambda text: text.replace('"date"', '"day"'), "damaged (KeyError: 'date')"),
        (lambda text: text.replace('"versions"', '"earlier": 3, "versions"'), "damaged (TypeError"),
        (lambda text: text.replace('"scale"', '"factor"'), "damaged (KeyError: 'scale')"),
        (lambda text: re.sub(r'"score": \[', '"points": [', text), "metrics of small, none are not those of its plan"),
        (lambda text: re.sub(r'"operations": [\d.e+]+', '"operations": null', text), "damaged (TypeError"),
    ],
)
def test_damaged_results_are_told_with_their_file(published, damage, told):
    first, _ = published
    file = seeds.RESULTS / "plain.json"
    text = file.read_text()
    file.write_text(damage(text))
    assert file.read_text() != text
    for command in ("run", "status", "summary"):
        with pytest.raises(SystemExit, match=re.escape(told)) as refused:
            main(first, [command, "--published"])
        assert str(file) in str(refused.value)
        assert str(refused.value).endswith("; restore it from git")


@pytest.mark.usefixtures("published")
def test_a_metric_of_the_file_is_not_dropped_unless_told(tmp_path):
    renamed = experiment(
        metrics={"points": Metric("points")},
        run=lambda job: {"metrics": {"points": plain_run(job)["metrics"]["score"]}},
        primary=Contrast("none", "some", "points", "small"),
        secondary=(),
    )
    renamed.register("another name")
    main(renamed, ["run", "--folder", str(tmp_path / "second"), "--published"])
    with pytest.raises(SystemExit, match="would drop: metric score; the plan has it no more"):
        summarized(renamed, tmp_path / "second", "--published")


def test_a_summary_tells_on_which_machines_its_runs_were(tmp_path, published):
    first, _ = published
    file = seeds.RESULTS / "plain.json"
    written = json.loads(file.read_text())
    assert "earlier" not in written
    there = {key: written[key] for key in ("date", "machine", "versions")}
    there["machine"]["processor"] = "another"
    file.write_text(json.dumps({**written, **there}))
    for _ in range(2):
        main(first, ["run", "--folder", str(tmp_path / "second"), "--published"])
        summarized(first, tmp_path / "second", "--published")
        again = json.loads(file.read_text())
        assert again["earlier"][0] == there and again["machine"]["processor"] != "another"
    assert len(again["earlier"]) == 2
    main(first, ["run", "--folder", str(tmp_path / "second")])
    summarized(first, tmp_path / "second", "--published")
    assert "earlier" not in json.loads(file.read_text())


def test_a_metric_that_the_plan_has_no_more_is_not_another_number(tmp_path, published, capsys):
    first, _ = published
    more = experiment(run=lambda job: {"metrics": {**plain_run(job)["metrics"], "time": 1.0}})
    main(more, ["run", "--folder", str(tmp_path / "second")])
    summarized(first, tmp_path / "second", "--published")
    assert "other numbers" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [("tune", "--published"), ("run", "--drop"), ("summary", "--change=why"), ("summary", "--seeds=1")],
)
def test_an_option_without_effect_is_refused(capsys, command, option):
    with pytest.raises(SystemExit):
        main(experiment(), [command, option])
    assert f"{option.partition('=')[0]} has no effect on {command}; it is an option of " in capsys.readouterr().err


def test_a_picture_without_a_run_of_the_primary_budget_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.picture.IMAGES", tmp_path)
    monkeypatch.setattr("tables.write_tables", list)
    whole = experiment()
    whole.register()
    main(whole, ["run", "--folder", str(tmp_path / "runs"), "--budgets", "large"])
    assert summarized(whole, tmp_path / "runs")["primary"] is None
    assert (tmp_path / "science-plain.png").is_file()


def test_a_time_limit_starts_no_further_run(tmp_path, capsys):
    jobs = Jobs(experiment(), tmp_path)
    assert jobs.run(jobs.all(), seconds=-1.0) == 0
    assert capsys.readouterr().err == "runs are left: the time is over; the same command goes on\n"
    jobs.run(jobs.all())
    capsys.readouterr()
    assert jobs.run(jobs.all(), seconds=-1.0) == 0
    assert capsys.readouterr().err == ""


def test_results_of_other_settings_are_refused(tmp_path):
    jobs = Jobs(experiment(), tmp_path)
    jobs.run(jobs.all())
    other = Jobs(experiment(arms={**experiment().arms, "some": {"gain": 0.3}}), tmp_path)
    with pytest.raises(ValueError, match="of other settings than the experiment's"):
        collect(other)
    measured = {**experiment().metrics, "time": Metric("seconds")}
    with pytest.raises(ValueError, match="has no time, a metric of the plan; remove it, or give another --folder"):
        collect(Jobs(experiment(metrics=measured), tmp_path))


@pytest.mark.parametrize(
    ("metrics", "items", "told"),
    [
        ({}, [], "has no score"),
        ({"score": float("nan")}, [], "score of small-1-none is invalid: nan"),
        ({"score": 1.0}, [1.0, float("inf")], "an item's score of small-1-none is invalid: inf"),
        ({"score": None}, [], "score of small-1-none is invalid: None"),
        ({"score": 1.0}, [], "items of score of small-1-none are empty"),
    ],
)
def test_a_missing_or_infinite_number_is_an_error_not_a_seed_less(tmp_path, metrics, items, told):
    jobs = Jobs(experiment(run=lambda job: {"metrics": metrics, "items": {"score": items}}), tmp_path)
    with pytest.raises(ValueError, match=told):
        jobs.run(jobs.all())
    assert collect(jobs) == {}


@pytest.mark.parametrize(
    ("score", "items"),
    [
        (np.float32(0.5), np.array([True, False])),
        (torch.tensor([0.5]), torch.tensor([1.0, 0.0])),
        (torch.tensor(0.5), {7: 1, 3: 0}),
        (0.5, (1, np.int64(0))),
    ],
)
def test_numbers_of_numpy_and_torch_are_stored_as_numbers(tmp_path, score, items):
    def run(job):
        more = {"losses": np.array([[1, 2]]), "steps": (np.int64(3),), "file": Path("model"), "best": None}
        scores = (value for value in items) if isinstance(items, tuple) else items
        return {
            "metrics": {"score": score, "unplanned": "text"},
            "items": {"score": scores},
            **more,
            "at": {2: 1}.values(),
        }

    jobs = Jobs(experiment(run=run), tmp_path)
    jobs.run(jobs.all()[:1])
    found = jobs.found(jobs.all()[0])
    assert (found["metrics"], found["items"]) == ({"score": 0.5, "unplanned": "text"}, {"score": [1.0, 0.0]})
    assert [found[name] for name in ("losses", "steps", "file", "best", "at")] == [[[1, 2]], [3], "model", None, [1]]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "small-1-none gave no metrics"),
        ({"score": 1.0}, "small-1-none gave no metrics"),
        ({"metrics": {"score": 1.0}, "key": 1}, "small-1-none gave 'key', which the harness writes itself"),
        ({"metrics": {"score": "good"}}, "small-1-none gave what is no number"),
        ({"metrics": {"score": 1.0}, "items": [1.0]}, "small-1-none gave what is no number"),
        ({"metrics": {"score": 1.0}, "items": {"score": [None]}}, "small-1-none gave what is no number"),
    ],
)
def test_what_a_run_gives_is_told_by_its_name(tmp_path, given, told):
    first = experiment(run=lambda job: given)
    first.register()
    with pytest.raises(SystemExit, match=told):
        main(first, ["run", "--folder", str(tmp_path)])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("training", [True, False])
def test_a_run_that_a_signal_ends_early_is_not_stored(tmp_path, capsys, number, training):
    def stopped(job):
        if job.seed == 2:
            with stopping.remembering("stopping after this step") if training else ExitStack():
                signal.raise_signal(number)  # a trainer ends after the step, as usual
        return plain_run(job)

    first = experiment(run=stopped)
    first.register()
    with pytest.raises(stopping.Stopped) as end:
        main(first, ["run", "--folder", str(tmp_path)])
    assert end.value.code == 128 + number
    told = f"stopped by {number.name}: a run that was under way is not stored; the same command goes on"
    assert capsys.readouterr().err.endswith(f"{told}\n")
    assert {key: list(own) for key, own in collect(Jobs(first, tmp_path)).items()} == {
        ("small", arm): [1] for arm in first.arms
    }


def test_what_a_run_lacks_after_a_stop_is_told_as_a_stop(tmp_path):
    def stopped(job):
        with stopping.remembering("stopping after this step"):
            signal.raise_signal(signal.SIGTERM)
        return {}["validation loss"]

    first = experiment(run=stopped)
    first.register()
    with pytest.raises(stopping.Stopped, match="stopped by SIGTERM"):
        main(first, ["run", "--folder", str(tmp_path)])


def test_a_rank_that_a_run_launches_is_told_why_it_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("NBG_LAUNCHER", str(os.getppid()))
    with pytest.raises(SystemExit, match="a run of an experiment is one process; set devices=1"):
        main(experiment(), ["run", "--folder", str(tmp_path)])


def test_equal_differences_tell_nothing(tmp_path, published, capsys):
    forgets = experiment(run=lambda job: {"metrics": {"score": 0.1 + job.settings["gain"]}}, name="forgets")
    forgets.register()
    main(forgets, ["run", "--folder", str(tmp_path / "forgets")])
    primary = summarized(forgets, tmp_path / "forgets")["primary"]
    assert (primary["p"], primary["verdict"]) == (1.0, "cannot tell")
    told = "some - none, score, small: all seeds have the same difference; does the run use job.seed?"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_tuning_tells_that_all_seeds_are_the_same(tmp_path, capsys, noise):
    def forgets(job):
        return {"metrics": {"score": 0.1 + job.settings["gain"] * (1 + noise * job.seed)}}

    main(experiment(run=forgets), ["tune", "--folder", str(tmp_path)])
    told = "some - none, score: +0.2000 (+0.2000 to +0.2000); all seeds have the same difference; does the run use job.seed?"
    assert f"small, {told}\n" in capsys.readouterr().out


def test_a_small_spread_is_one():
    runs = {
        ("small", arm): {
            seed: {"metrics": {"score": seed + gain * seed}, "operations": {}, "processor_seconds": 1}
            for seed in (1, 2, 3)
        }
        for arm, gain in (("none", 0.0), ("some", 1e-4))
    }
    found = summarize(experiment(), runs)["primary"]
    assert (found["p"], found["verdict"]) == (pytest.approx(0.0742, abs=1e-4), "cannot tell")
    assert found["by_seed"] == pytest.approx([1e-4, 2e-4, 3e-4])


def test_means_of_a_file_without_amounts_by_seed_stay(tmp_path, published):
    first, _ = published
    file = seeds.RESULTS / "plain.json"
    document = json.loads(file.read_text())
    for arms in document["results"]["arms"].values():
        for arm in arms.values():
            del arm["operations_by_seed"], arm["processor_seconds_by_seed"]
            arm["operations"] = 2.5 * arm["operations"]  # of seeds that differ
    file.write_text(json.dumps(document))
    old = document["results"]["arms"]["large"]["some"]["operations"]
    main(first, ["run", "--folder", str(tmp_path / "again"), "--seeds", "1"])
    for _ in "12":
        found = summarized(first, tmp_path / "again", "--published")["arms"]["large"]["some"]
        assert (found["operations"], found["operations_by_seed"]) == (old, [old / 2.5, None])


def test_contrasts_that_have_not_run_are_of_the_family(tmp_path, published, capsys):
    first, _ = published
    folder = tmp_path / "one budget"
    main(first, ["run", "--folder", str(folder), "--budgets", "small"])
    found = summarized(first, folder, "--drop")["secondary"]
    assert [each["p_holm"] for each in found] == [min(1.0, 2 * found[0]["p"])]
    assert "some - none, score, large: fewer than two seeds of both arms have run" in capsys.readouterr().err


def test_a_folder_without_runs_makes_no_summary(tmp_path):
    first = experiment()
    first.register()
    with pytest.raises(SystemExit, match="typo has no run of the experiment; run it, or give another --folder"):
        main(first, ["summary", "--folder", str(tmp_path / "typo")])


def test_a_plan_is_compared_as_results_are(tmp_path):
    experiment(arms={**experiment().arms, "some": {"gain": 1}}).register()
    other = experiment(arms={**experiment().arms, "some": {"gain": True}})
    with pytest.raises(ValueError, match="has another plan"):
        other.check_registered()
    other.register("a boolean")
    assert json.loads(other.registration.read_text())["changes"] == ["a boolean"]
    with pytest.raises(ValueError, match="has this very plan; leave out --change"):
        other.register("again")


@pytest.mark.parametrize(
    "page",
    [
        "<!-- table: plain -->\n\nprose\n\n<!-- table: other -->\nold\n<!-- end of table -->\n",
        "<!-- table: other -->\nold\n<!-- end of table -->\n\n<!-- table: plain -->\n\nprose\n",
    ],
)
def test_a_table_without_an_end_takes_no_prose(tmp_path, monkeypatch, page):
    (tmp_path / "page.md").write_text(page)
    monkeypatch.setattr(tables, "pages", lambda: [tmp_path / "page.md"])
    with pytest.raises(ValueError, match=r"page\.md .*a table has no end"):
        tables.write_tables()
    assert (tmp_path / "page.md").read_text() == page


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"processor_seconds": ', '"processor_seconds": NaN, "other": '),
        lambda text: text.replace('"operations"', '"none"'),
        lambda text: re.sub(r'"score": [\d.]+', '"score": NaN', text),
        lambda text: re.sub(r'"score": [\d.]+', '"score": null', text),
    ],
)
def test_a_damaged_result_is_told_with_its_file(tmp_path, damage):
    jobs = Jobs(experiment(), tmp_path)
    jobs.run(jobs.all())
    file = jobs.all()[0].result
    text = file.read_text()
    file.write_text(damage(text))
    assert file.read_text() != text
    with pytest.raises(ValueError, match=r"result\.json is damaged .*; remove it, or give another --folder"):
        collect(jobs)


def test_items_that_are_not_those_of_the_other_arm_are_not_paired_with_those_of_another_seed(tmp_path):
    numbers = {("some", 1): 3, ("some", 2): 5}

    def run(job):
        return {"metrics": {"score": 1.0}, "items": {"score": [1.0] * numbers.get((job.arm, job.seed), 4)}}

    jobs = Jobs(experiment(run=run), tmp_path)
    jobs.run(jobs.all())
    with pytest.raises(
        ValueError, match=r"the 1\. shared seed has 4 of none and 3 of some; score the same items in both"
    ):
        summarize(jobs.experiment, collect(jobs))


def test_the_checkpoint_of_a_run_that_is_done_is_removed(tmp_path):
    jobs = Jobs(experiment(), tmp_path)
    jobs.run(jobs.all())
    left = jobs.all()[0].checkpoint
    left.touch()
    assert jobs.run(jobs.all()) == 0
    assert not left.exists()


def test_contrasts_are_paired_over_seeds_and_items(tmp_path):
    jobs = Jobs(experiment(), tmp_path)
    jobs.run(jobs.all())
    found = summarize(jobs.experiment, collect(jobs))
    primary, (same, large) = found["primary"], found["secondary"]
    # 0.2 * (1.15 + 0.01 seed): a mean of 0.234, a standard deviation of 0.002 over three seeds, t 4.302653
    assert primary["difference"] == pytest.approx(0.234)
    assert primary["interval_95"] == pytest.approx(
        [0.234 - 4.302653 * 0.002 / 3**0.5, 0.234 + 4.302653 * 0.002 / 3**0.5]
    )
    # items differ by 0.02 each: a standard deviation of 0.0258199 over four items, t 3.182446
    half = 3.182446 * 0.0258199 / 2
    assert primary["interval_95_over_items"] == pytest.approx([0.234 - half, 0.234 + half], abs=1e-6)
    assert (primary["verdict"], primary["second_higher_in"], primary["seeds"]) == ("better", 3, 3)
    assert primary["operations_ratio"] == 1.0
    assert (same["verdict"], same["p_holm"]) == ("cannot tell", 1.0)
    assert large["seeds"] == 2
    assert large["p_holm"] == pytest.approx(2 * large["p"])
    assert found["arms"]["small"]["none"]["operations"] == 10 * SHAPE.flops_per_token(8)


def test_a_trend_is_a_slope_by_seed(tmp_path):
    places = {"small": 10.0, "large": 1000.0}
    jobs = Jobs(experiment(trends=(Trend("none", "some", "score", places),)), tmp_path)
    jobs.run(jobs.all())
    summary = summarize(jobs.experiment, collect(jobs))
    (trend,) = summary["trends"]
    assert (trend["seeds"], trend["verdict"]) == (2, "cannot tell")  # equal gains at both
    assert trend["slope"] == pytest.approx(0.0, abs=1e-12)
    found = collect(jobs)
    for seed, gain in ((1, 0.4), (2, 0.5)):
        found["large", "some"][seed]["metrics"]["score"] += gain
    (trend,) = summarize(jobs.experiment, found)["trends"]
    assert trend["by_seed"] == pytest.approx([0.2, 0.25])  # per ten times; two decades
    half = 12.7062047 * 0.025  # t of one degree of freedom, standard error 0.05 / 2
    assert trend["interval_95"] == pytest.approx([0.225 - half, 0.225 + half])
    assert "| some - none | score | small, large | 2 | +22.5 |" in trends_table(
        jobs.experiment.plan, {"trends": [trend]}
    )


def test_seeds_that_only_one_arm_has_are_left_out(tmp_path):
    jobs = Jobs(experiment(), tmp_path)
    jobs.run(job for job in jobs.all() if (job.seed, job.arm) != (2, "some"))
    found = summarize(jobs.experiment, collect(jobs))
    assert found["primary"]["seeds"] == 2
    assert found["arms"]["small"]["none"]["seeds"] == [1, 2, 3]
    assert [each["contrast"] for each in found["secondary"]] == ["same - none"]  # one seed is no contrast


def test_a_forward_is_a_third_of_a_step_and_all_are_charged():
    charges = Charges()
    charges.train("student", SHAPE, tokens=100, length=64)
    charges.forward("teacher", SHAPE, tokens=100, length=64)
    charges.forward("teacher", SHAPE, tokens=50, length=64)
    step = 100 * SHAPE.flops_per_token(64)
    assert charges.by_purpose == pytest.approx({"student": step, "teacher": step / 2})
    assert charges.total == pytest.approx(1.5 * step)


def test_holm_and_the_number_of_seeds():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    assert seeds_needed(spread=1.0, effect=1.0) == 10
    assert seeds_needed(spread=1.0, effect=-0.5) == 34  # as tables of the paired t test have it


def test_a_lower_metric_may_be_the_better_one(tmp_path):
    jobs = Jobs(experiment(metrics={"score": Metric("loss", higher_is_better=False)}), tmp_path)
    jobs.run(jobs.all())
    assert summarize(jobs.experiment, collect(jobs))["primary"]["verdict"] == "worse"


def test_the_experiment_of_the_page_runs_and_an_arm_is_an_entry(tmp_path, monkeypatch):
    script, arm, budget = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    own = {"__name__": "decay"}
    exec(compile(script + arm + budget, "decay.py", "exec"), own)
    monkeypatch.setattr(tables, "pages", list)
    monkeypatch.setattr("pictures.IMAGES", tmp_path)
    monkeypatch.setattr("harness.picture.IMAGES", tmp_path)
    folder = str(tmp_path / "runs")
    main(own["experiment"], ["register"])
    main(own["experiment"], ["run", "--folder", folder, "--seeds", "1", "2", "--arms", "constant", "decay"])
    main(own["experiment"], ["run", "--folder", folder, "--seeds", "1", "--arms", "half way", "--budgets", "8 K"])
    main(own["experiment"], ["summary", "--folder", folder])
    document = json.loads((tmp_path / "results" / "decay.json").read_text())
    assert document["results"]["primary"]["seeds"] == 2
    assert document["results"]["trends"][0]["seeds"] == 2
    assert document["settings"]["question"].startswith("Is a decay")
    assert document["results"]["arms"]["8 K"]["half way"]["seeds"] == [1]
    assert "| **decay - constant** | **8 K** |" in experiment_tables(document)
    assert (tmp_path / "science-decay.png").stat().st_size > 5000


def test_small_p_values_are_told_by_their_bound():
    assert [told_p(value) for value in (0.98, 0.001, 0.0009, 0.0)] == ["0.980", "0.001", "< 0.001", "< 0.001"]
