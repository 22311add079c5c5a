"""The content and format experiment: two independent shares, scores of both, and arms that choose by them."""

import random
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "science"))

import content_format
from content_format import DIMENSIONS, best, draw_document, draw_pool, experiment, scores
from harness import Job
from rubric_dimensions import chosen
from worked_problems import Problem

PROBLEM = Problem(3, (("+", 4), ("-", 2), ("+", 4), ("-", 1)))


def fixed_levels(monkeypatch, level: float):
    monkeypatch.setattr(content_format, "LEVELS", (level,))


def test_a_document_without_damage_is_a_clean_one_and_with_all_of_it_is_none(monkeypatch):
    fixed_levels(monkeypatch, 0.0)
    clean = draw_document(PROBLEM, random.Random(0))
    assert clean.text == PROBLEM.question + PROBLEM.solution
    assert clean.shares == {
        **dict.fromkeys(("steps", "result", "marks", "order", "content", "format"), 1.0),
        "moves": pytest.approx((2.75 - 1) / 3),
    }
    fixed_levels(monkeypatch, 1.0)
    damaged = draw_document(PROBLEM, random.Random(0))
    assert damaged.shares["content"] == damaged.shares["format"] == 0.0
    assert "," not in damaged.text
    assert len(damaged.text) == len(clean.text), "windows would cut documents"


def test_the_dials_are_turned_apart_and_the_scores_follow_them():
    documents, problems = draw_pool(3000, seed=1)
    given = scores(documents, seed=1)
    assert not {each.question for each in problems} & {each.text[: each.text.index("=") + 1] for each in documents}
    shares = {name: [each.shares[name] for each in documents] for name in ("content", "format")}
    assert abs(statistics.correlation(shares["content"], shares["format"])) < 0.05
    for name in ("content", "format"):
        assert set(given[name]) <= set(range(10))
        assert statistics.correlation(given[name], shares[name]) > 0.9
        assert statistics.mean(shares[name]) == pytest.approx(0.75, abs=0.02)
    assert abs(statistics.correlation(given["coin"], shares["content"])) < 0.05


def test_arms_choose_the_best_of_their_scores():
    documents, _ = draw_pool(900, seed=2)
    given = scores(documents, seed=2)
    means = {
        arm: {
            name: statistics.mean(documents[place].shares[name] for place in best(given, settings["by"], 300, 2))
            for name in ("content", "format")
        }
        for arm, settings in experiment.arms.items()
    }
    assert means["content"]["content"] > 0.95 > 0.8 > means["content"]["format"]
    assert means["format"]["format"] > 0.95 > 0.8 > means["format"]["content"]
    assert min(means["both"].values()) > 0.85
    assert max(means["random"].values()) < 0.8
    assert len(set(best(given, [], 300, 2))) == 300


def test_a_run_gives_every_metric_and_results_are_a_part_of_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(content_format, "TESTS", 20)
    settings = {"tokens": 20 * content_format.STEP, "size": {"width": 32, "layers": 1}, "rate": 1e-3}
    job = Job("content", 1, "small", {**settings, "by": ["content"]}, tmp_path / "runs" / "job")
    found = experiment.run(job)
    assert set(found["metrics"]) == set(experiment.metrics) == set(found["items"])
    assert all(
        0 < part < whole for part, whole in zip(found["items"]["result_bits"], found["items"]["bits"], strict=True)
    )
    assert found["mean_scores"]["content"] > 7 > found["mean_scores"]["format"]


def test_the_tool_keeps_what_predicts():
    draw = random.Random(0)
    runs = []
    for seed in (1, 2, 3, 4):
        for steps in (4, 5, 6, 7, 8):
            told = {name: draw.uniform(0, 9) for name in DIMENSIONS} | {"steps": steps, "result": steps + draw.random()}
            runs.append({"seed": seed, "metrics": {"bits": seed + 10 - steps}, "mean_scores": told})
    found = chosen(runs)
    assert found["kept"][0] == "steps"
    assert found["power"]["steps"] == 1.0
    assert set(found["kept"]) | set(found["dropped"]) == set(DIMENSIONS)
    assert found["runs"] == 20
