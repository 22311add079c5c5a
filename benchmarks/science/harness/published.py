"""Runs whose numbers are in results/, so that an experiment goes on where its folder of runs is not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import seeds

from harness.analysis import AMOUNTS, OF_MEANS, Runs, answered, shared_seeds
from harness.experiment import Contrast, Experiment, PlanError, told
from nbg_lightning.data.durable import content_key


class Published:
    """The JSON of an experiment in results/.

    Args:
        experiment: whose.

    Attributes:
        file: where it is, or would be.
        document: what it has, or None.
        arms: the runs of all settings that it has: (budget, arm) -> seed -> run.
        runs: those of them with the settings and the metrics of the plan, of its seeds.
        intervals: over items, by contrast, metric and budget.

    Raises:
        PlanError: the file is damaged, or another experiment's.
    """

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.file: Path = seeds.RESULTS / f"{experiment.name}.json"
        self.document: dict[str, Any] | None = None
        self.arms: Runs = {}
        self.runs: Runs = {}
        self.intervals: dict[tuple[str, str, str], list[float] | None] = {}
        if not self.file.is_file():
            return
        with told(self.file, "restore it from git"):
            self.document = json.loads(self.file.read_text())
            self.arms = runs_of(self.document, experiment.name)
            self.intervals = intervals_of(self.document["results"])
            self.runs = self._of_the_plan(self.document)

    def _of_the_plan(self, document: Mapping[str, Any]) -> Runs:
        then, now = document["settings"], self.experiment.plan
        if measured(then, now["metrics"]) != measured(now, now["metrics"]):
            return {}
        return {
            (budget, arm): {seed: run for seed, run in own.items() if seed in self.experiment.budgets[budget].seeds}
            for (budget, arm), own in self.arms.items()
            if key_of_settings(now, budget, arm) == key_of_settings(then, budget, arm)
        }

    def over_items(self, contrast: Contrast, runs: Runs) -> list[float] | None:
        """Interval over items of a contrast whose runs are those of the file; the file has no scores of items.

        Args:
            contrast: which.
            runs: those that are compared.
        """
        sides = [(contrast.budget, arm) for arm in (contrast.first, contrast.second)]
        of_file = shared_seeds(*(self.arms.get(side, {}) for side in sides))
        if set(of_file) != set(shared_seeds(*(runs.get(side, {}) for side in sides))):
            return None
        if any(runs[side][seed] is not self.arms[side][seed] for side in sides for seed in of_file):
            return None
        return self.intervals.get((str(contrast), contrast.metric, contrast.budget))

    def missing_from(self, runs: Runs) -> list[str]:
        """Runs and metrics of the file that others do not have, or have with other settings, in words."""
        if self.document is None:
            return []
        then, now = self.document["settings"], self.experiment.plan
        return [
            *(f"metric {name}" for name in sorted(set(then["metrics"]) - set(now["metrics"]))),
            *(
                f"{budget}, seed {seed}, {arm}"
                for (budget, arm), own in self.arms.items()
                for seed in own
                if seed not in runs.get((budget, arm), {})
                or key_of_settings(now, budget, arm) != key_of_settings(then, budget, arm)
            ),
        ]

    def differing_from(self, runs: Runs) -> list[str]:
        """Runs of the file, of the plan's settings, that others have with other numbers, in words."""
        return [
            f"{budget}, seed {seed}, {arm}"
            for (budget, arm), own in self.runs.items()
            for seed, run in own.items()
            if (other := runs.get((budget, arm), {}).get(seed)) is not None
            and any(other["metrics"][name] != run["metrics"][name] for name in self.experiment.metrics)
        ]

    def keep_means(self, arms: Mapping[str, dict[str, Any]]) -> None:
        """Give arms that have the same runs as in the file its means, where it has no more: the mean of a mean and of runs that
        it has already is another number.

        Args:
            arms: of the new results, by budget.
        """
        for (budget, arm), own in self.runs.items():
            if (new := arms[budget].get(arm)) is None or not any(run.get(OF_MEANS) for run in own.values()):
                continue
            assert self.document is not None
            old = self.document["results"]["arms"][budget][arm]
            if all(new[key] == old[key] for key in ("seeds", "metrics")):
                new |= {name: old[name] for name in AMOUNTS}

    def check_unchanged(self) -> None:
        """Refuse to replace what another process has written since this was read.

        Raises:
            PlanError: the file is another one now.
        """
        if Published(self.experiment).document != self.document:
            raise PlanError(f"another process has written {self.file} meanwhile; run this again")

    def origin(self, runs: Runs) -> list[dict[str, Any]]:
        """Date, machine and versions of the earlier writings of the file, if some of these runs are from it."""
        own = {id(run) for arm in self.arms.values() for run in arm.values()}
        if self.document is None or not any(id(run) in own for arm in runs.values() for run in arm.values()):
            return []
        told = {key: self.document[key] for key in ("date", "machine", "versions")}
        earlier: list[dict[str, Any]] = self.document.get("earlier", [])
        return earlier if told in earlier else [*earlier, told]


def runs_of(document: Mapping[str, Any], name: str) -> Runs:
    """All runs that a JSON has.

    Raises:
        ValueError: it is of another experiment, a number is not finite, or a seed has none or several.
    """
    if document["benchmark"] != name or {"metrics", "budgets", "arms"} - set(document["settings"]):
        raise ValueError(f"it is not of {name}")
    document["date"], document["machine"], document["versions"], [*document.get("earlier", ())]
    runs: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for budget, arms in document["results"]["arms"].items():
        for arm, own in arms.items():
            if len(set(own["seeds"])) < len(own["seeds"]):
                raise ValueError(f"a seed of {budget}, {arm} is there twice")
            if set(own["metrics"]) != set(document["settings"]["metrics"]):
                raise ValueError(f"metrics of {budget}, {arm} are not those of its plan")
            amounts = [own.get(f"{name}_by_seed", [None] * len(own["seeds"])) for name in AMOUNTS]
            columns = list(zip(own["seeds"], zip(*amounts, strict=True), *own["metrics"].values(), strict=True))
            means = [own[name] for name in AMOUNTS]
            known = [value for each in amounts for value in each if value is not None]
            if not all(map(math.isfinite, [*means, *known, *chain.from_iterable(own["metrics"].values())])):
                raise ValueError(f"a number of {budget}, {arm} is not finite")
            runs[budget, arm] = {
                seed: {"metrics": dict(zip(own["metrics"], values, strict=True)), **amounts_of(own_amounts, means)}
                for seed, own_amounts, *values in columns
            }
    return runs


def amounts_of(own: Sequence[float | None], means: Sequence[float]) -> dict[str, Any]:
    """Operations and seconds of a run: its own, or, from a file that does not have them, the means of its arm."""
    known = None not in own
    operations, seconds = own if known else means
    return {"operations": {"all": operations}, "processor_seconds": seconds, **({} if known else {OF_MEANS: True})}


def intervals_of(results: Mapping[str, Any]) -> dict[tuple[str, str, str], list[float] | None]:
    """Interval over items, where there is one, by contrast, metric and budget."""
    return {name: each.get("interval_95_over_items") for name, each in answered(results).items()}


def measured(plan: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan says of metrics, without their form in tables."""
    kept = ("text", "higher_is_better", "scale")
    return {name: {key: plan["metrics"][name][key] for key in kept} for name in names if name in plan["metrics"]}


def key_of_settings(plan: Mapping[str, Any], budget: str, arm: str) -> str | None:
    """Digest of what a plan gives to a run; None if it has no such budget or arm."""
    if budget not in plan["budgets"] or arm not in plan["arms"]:
        return None
    return content_key({**plan["budgets"][budget]["settings"], **plan["arms"][arm]})
