"""The command line of an experiment's script."""

from __future__ import annotations

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seeds import quiet, write_result

from harness.analysis import seeds_needed, summarize
from harness.experiment import Experiment, PlanError
from harness.jobs import Job, Jobs
from harness.published import keep_item_intervals, published_runs


def arguments_of(experiment: Experiment, given: Sequence[str] | None) -> argparse.Namespace:
    """The settings of a call."""
    parser = argparse.ArgumentParser(description=experiment.question)
    parser.add_argument("command", choices=["tune", "register", "run", "status", "summary"])
    parser.add_argument("--folder", type=Path, default=Path("runs") / experiment.name, help="of the runs")
    parser.add_argument("--arms", nargs="+", choices=list(experiment.arms), help="only these")
    parser.add_argument("--budgets", nargs="+", choices=list(experiment.budgets), help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no run after so long")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--published", action="store_true", help="the runs of which results/ has the numbers count as done"
    )
    parser.add_argument("--change", metavar="WHY", help="register: why the plan is another one")
    return parser.parse_args(given)


def chosen(jobs: Jobs, arguments: argparse.Namespace) -> list[Job]:
    """Those that a call asks for."""
    wanted = ((arguments.arms, "arm"), (arguments.budgets, "budget"), (arguments.seeds, "seed"))
    done = published_runs(jobs.experiment) if arguments.published else {}
    return [
        job
        for job in jobs.all()
        if all(only is None or vars(job)[key] in only for only, key in wanted)
        and job.seed not in done.get((job.budget, job.arm), {})
    ]


def collect(jobs: Jobs, published: bool = False) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """What is done; where the folder has no run, with ``published`` what the file in results/ has."""
    there = published_runs(jobs.experiment) if published else {}
    runs: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for job in jobs.all():
        if (found := jobs.found(job) or there.get((job.budget, job.arm), {}).get(job.seed)) is not None:
            runs[job.budget, job.arm][job.seed] = found
    return dict(runs)


def main(experiment: Experiment, given: Sequence[str] | None = None) -> None:
    """Run a command."""
    arguments = arguments_of(experiment, given)
    jobs = Jobs(experiment, arguments.folder, tuning=arguments.command == "tune")
    try:
        if arguments.command == "register":
            print(f"{experiment.register(arguments.change)}: commit it before the first run")
        elif arguments.command == "status":
            status(jobs, arguments.published)
        elif arguments.command == "summary":
            experiment.check_registered()
            write_summary(experiment, jobs, arguments.published)
        else:
            if not jobs.tuning:
                experiment.check_registered()
            quiet(arguments.threads)
            jobs.run(chosen(jobs, arguments), arguments.minutes * 60)
            if jobs.tuning:
                tell_tuning(experiment, jobs)
    except PlanError as error:
        raise SystemExit(str(error)) from error


def status(jobs: Jobs, published: bool = False) -> None:
    """Print what is done, by budget and arm."""
    planned = Counter((job.budget, job.arm) for job in jobs.all())
    runs = collect(jobs, published)
    for (budget, arm), number in planned.items():
        print(f"{budget}, {arm}: {len(runs.get((budget, arm), ()))} of {number} seeds")


def tell_tuning(experiment: Experiment, jobs: Jobs) -> None:
    """Print the contrasts of the tuning seeds, and how many seeds would tell such an effect."""
    from nbg_lightning.evaluation.statistics import student_t_quantile

    found = summarize(experiment, collect(jobs))
    for each in filter(None, (found["primary"], *found["secondary"])):
        effect, (low, high), number = each["difference"], each["interval_95"], each["seeds"]
        spread = (high - effect) / student_t_quantile(0.975, number - 1) * math.sqrt(number)
        told = f"{each['budget']}, {each['contrast']}, {each['metric']}: {effect:+.4f} ({low:+.4f} to {high:+.4f})"
        try:
            print(f"{told}; {seeds_needed(spread, effect)} seeds would tell it" if effect else told)
        except ValueError:
            print(f"{told}; more than 10,000 seeds would be needed to tell it")


def write_summary(experiment: Experiment, jobs: Jobs, published: bool = False) -> Path:
    """The JSON of what is done, its picture and its tables."""
    from tables import write_tables

    from harness.picture import draw

    results = summarize(experiment, collect(jobs, published))
    if published:
        keep_item_intervals(results, experiment)
    result = write_result(experiment.name, experiment.plan, results)
    print(draw(result))
    for page in write_tables():
        print(page)
    return result
