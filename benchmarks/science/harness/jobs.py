"""Runs of an experiment: one file a (budget, seed, arm), by as many processes as there are."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seeds import stored

from harness.charges import Charges
from harness.experiment import Experiment, PlanError, told
from harness.run_numbers import check_numbers, plain_numbers
from nbg_lightning import stopping
from nbg_lightning.data.durable import content_key
from nbg_lightning.data.folder_lock import FolderInUse, folder_lock

LOCK = ".job.lock"  # a run's own lock of its folder is another


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        arm: by name.
        seed: of model, data and order. The same in all arms, so that differences are paired.
        budget: by name.
        settings: of the budget, then of the arm.
        folder: the job's own folder, for checkpoints from which a killed run resumes.
        charges: to which the run adds what it computes.
    """

    arm: str
    seed: int
    budget: str
    settings: Mapping[str, Any]
    folder: Path
    charges: Charges = field(default_factory=Charges, compare=False)

    @property
    def result(self) -> Path:
        """Where its numbers are."""
        return self.folder / "result.json"

    @property
    def checkpoint(self) -> Path:
        """Where a long run may keep what it resumes from; removed when its numbers are stored."""
        return self.folder / f"checkpoint-{self.key}.pt"

    @property
    def key(self) -> str:
        """Digest of its settings and seed, by which results of other settings are refused."""
        return content_key({"settings": dict(self.settings), "seed": self.seed})


class Jobs:
    """The jobs of an experiment in one folder.

    Args:
        experiment: whose.
        folder: of all of them.
        tuning: those of the tuning seeds, which are kept apart.
    """

    def __init__(self, experiment: Experiment, folder: Path, tuning: bool = False):
        self.experiment, self.folder, self.tuning = experiment, folder, tuning

    def all(self) -> list[Job]:
        """Every job, in the order of running."""
        return [self.job(*each) for each in self.experiment.jobs(self.tuning)]

    def job(self, budget: str, seed: int, arm: str) -> Job:
        """One of them."""
        settings = {**self.experiment.budgets[budget].settings, **self.experiment.arms[arm]}
        place = self.folder / ("tuning" if self.tuning else "runs") / f"{budget}-{seed}-{arm}"
        return Job(arm, seed, budget, settings, place)

    def found(self, job: Job) -> dict[str, Any] | None:
        """Its numbers, if it is done.

        Raises:
            PlanError: they are of other settings, lack a metric, or are damaged.
        """
        if not job.result.is_file():
            return None
        fix = "remove it, or give another --folder"
        with told(job.result, fix):
            result: dict[str, Any] = json.loads(job.result.read_text())
            result["key"], dict(result["metrics"]), dict(result.get("items", {}))
            amounts = [*result["operations"].values(), result["processor_seconds"]]
            if not all(map(math.isfinite, amounts)):
                raise ValueError("an amount is not finite")
        if result["key"] != job.key:
            raise PlanError(f"{job.result} is of other settings than the experiment's; {fix}")
        if missing := [name for name in self.experiment.metrics if name not in result["metrics"]]:
            raise PlanError(f"{job.result} has no {missing[0]}, a metric of the plan; {fix}")
        with told(job.result, fix):
            check_numbers(result, self.experiment.metrics, job.folder.name)
        return result

    def run(self, jobs: Iterable[Job], seconds: float = math.inf) -> int:
        """Run the jobs that are neither done nor run by another process; returns their number.

        A job is also left out while another process trains what it shares with other jobs, such as the first model of its
        seed. It is tried again when the others have run; what is left then is said.

        Args:
            jobs: of these.
            seconds: start none after so long.
        """
        end = time.perf_counter() + seconds
        number, left = 0, list(jobs)
        while left:
            ran, in_use = 0, []
            for job in left:
                if time.perf_counter() > end:
                    if any(self.found(each) is None for each in left):
                        print("runs are left: the time is over; the same command goes on", file=sys.stderr)
                    return number + ran
                try:
                    ran += self._run_alone(job)
                except FolderInUse:
                    in_use.append(job)
            number += ran
            if in_use and not ran:
                print(
                    f"{len(in_use)} runs are left, since other processes run them or train their seed; run this again when those "
                    "have ended",
                    file=sys.stderr,
                )
                break
            left = in_use
        return number

    def _run_alone(self, job: Job) -> bool:
        """Run a job that has no result yet."""
        with folder_lock(job.folder, "runs", LOCK):
            if self.found(job) is not None:
                job.checkpoint.unlink(missing_ok=True)  # of a process that was killed in between
                return False
            self._run(job)
            return True

    def _run(self, job: Job) -> None:
        begin = processor_seconds()
        with stopping.handling("run") as signals:
            try:
                given = self.experiment.run(job)
            except Exception as error:
                if signals.received is not None:  # what it has not trained may be missing
                    raise stopping.Stopped(signals.received) from error
                raise
        if signals.received is not None:  # a trainer has ended early, and as usual: the numbers are of fewer steps
            raise stopping.Stopped(signals.received)
        given = plain_numbers(given, self.experiment.metrics, job.folder.name)
        check_numbers(given, self.experiment.metrics, job.folder.name)
        found = {
            "key": job.key,
            "arm": job.arm,
            "seed": job.seed,
            "budget": job.budget,
            **given,
            "operations": dict(job.charges.by_purpose),
            "processor_seconds": processor_seconds() - begin,  # since its last start
        }
        stored(job.result, found)
        job.checkpoint.unlink(missing_ok=True)
        metrics = ", ".join(f"{name} {found['metrics'][name]:.4f}" for name in self.experiment.metrics)
        print(
            f"{job.budget}, seed {job.seed}, {job.arm}: {metrics}; {found['processor_seconds']:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])
