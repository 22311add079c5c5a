"""Runs whose numbers are in results/ already, so that an experiment goes on where its folder of runs is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import seeds

from harness.analysis import Runs
from harness.experiment import Experiment


def document(experiment: Experiment) -> dict[str, Any] | None:
    """The experiment's JSON in results/; None if there is none."""
    file = seeds.RESULTS / f"{experiment.name}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def published_runs(experiment: Experiment) -> Runs:
    """Those that had the settings of the plan.

    Metrics are by seed; operations and processor seconds are the mean of an arm at a budget, since no others are in the file.
    """
    found = document(experiment)
    if found is None:
        return {}
    then, now, runs = found["settings"], experiment.plan, {}
    for budget, arms in found["results"]["arms"].items():
        for arm, own in arms.items():
            if settings(then, budget, arm) != settings(now, budget, arm) or set(now["metrics"]) - set(own["metrics"]):
                continue
            runs[budget, arm] = {
                seed: {
                    "metrics": {name: values[place] for name, values in own["metrics"].items()},
                    "operations": {"mean": own["operations"]},
                    "processor_seconds": own["processor_seconds"],
                }
                for place, seed in enumerate(own["seeds"])
                if seed in experiment.budgets[budget].seeds
            }
    return runs


def settings(plan: Mapping[str, Any], budget: str, arm: str) -> dict[str, Any] | None:
    """Those that a plan gives to a run; None if it has no such budget or arm."""
    if budget not in plan["budgets"] or arm not in plan["arms"]:
        return None
    return {**plan["budgets"][budget]["settings"], **plan["arms"][arm]}


def keep_item_intervals(results: dict[str, Any], experiment: Experiment) -> None:
    """Give contrasts of published runs the interval over items of the file, which has no scores of items.

    Only a contrast of the very seeds and differences of the file takes it over.
    """
    found = document(experiment)
    if found is None:
        return
    there = [each for each in (found["results"]["primary"], *found["results"]["secondary"]) if each]
    for new in filter(None, (results["primary"], *results["secondary"])):
        for old in there:
            same = all(new[key] == old[key] for key in ("contrast", "metric", "budget", "by_seed"))
            if same and "interval_95_over_items" in old:
                new.setdefault("interval_95_over_items", old["interval_95_over_items"])
