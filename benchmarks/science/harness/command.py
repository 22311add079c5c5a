"""The command line of an experiment's script."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seeds import quiet, write_result

from harness.analysis import Runs, answered, same_in_all_seeds, seeds_needed, summarize
from harness.experiment import Experiment, PlanError
from harness.jobs import Job, Jobs
from harness.published import Published
from nbg_lightning.parent import is_launched
from nbg_lightning.stopping import Stopped

EFFECTIVE = {
    "published": ("run", "status", "summary"),
    "drop": ("summary",),
    "change": ("register",),
    **dict.fromkeys(("arms", "budgets", "seeds"), ("tune", "run")),
}  # options
SAME = "all seeds have the same difference; does the run use job.seed?"


def arguments_of(experiment: Experiment, given: Sequence[str] | None) -> argparse.Namespace:
    """The settings of a call."""
    parser = argparse.ArgumentParser(description=experiment.question)
    parser.add_argument("command", choices=["tune", "register", "run", "status", "summary"])
    folder = Path("runs") / experiment.name
    parser.add_argument("--folder", type=Path, default=folder, help=f"of the runs; {folder} by default, from here")
    parser.add_argument("--arms", nargs="+", choices=list(experiment.arms), help="only these")
    parser.add_argument("--budgets", nargs="+", choices=list(experiment.budgets), help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no run after so long")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--published", action="store_true", help="run, status, summary: runs whose numbers are in results/ are done"
    )
    parser.add_argument("--drop", action="store_true", help="summary: drop runs that only results/ has")
    parser.add_argument("--change", metavar="WHY", help="register: why the plan is another one")
    found = parser.parse_args(given)
    for option, commands in EFFECTIVE.items():
        if getattr(found, option) and found.command not in commands:
            parser.error(f"--{option} has no effect on {found.command}; it is an option of {', '.join(commands)}")
    return found


def chosen(jobs: Jobs, arguments: argparse.Namespace) -> list[Job]:
    """Jobs selected by the options; with ``--published`` without those that are done."""
    wanted = ((arguments.arms, "arm"), (arguments.budgets, "budget"), (arguments.seeds, "seed"))
    planned = jobs.all()
    asked = [job for job in planned if all(only is None or vars(job)[key] in only for only, key in wanted)]
    for only, key in wanted:
        if unplanned := sorted(set(only or ()) - {vars(job)[key] for job in planned}):
            raise PlanError(f"--{key}s has {unplanned[0]!r}, which the plan does not run; see the command status")
    if not planned:
        raise PlanError("the plan has no tuning seeds; give tuning_seeds to the experiment")
    if not asked:
        raise PlanError("no run of the plan has all of --arms, --budgets and --seeds; leave one out")
    if not arguments.published:
        return asked
    done = collect(jobs, Published(jobs.experiment))
    left = [job for job in asked if job.seed not in done.get((job.budget, job.arm), {})]
    print(f"{len(asked) - len(left)} of {len(asked)} runs are done, here or in results/", file=sys.stderr)
    return left


def collect(jobs: Jobs, published: Published | None = None) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """Results by budget and arm, then by seed: those of the folder; where it has none, those of results/."""
    there: Runs = {} if published is None else published.runs
    runs: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for job in jobs.all():
        if (run := jobs.found(job) or there.get((job.budget, job.arm), {}).get(job.seed)) is not None:
            runs[job.budget, job.arm][job.seed] = run
    return dict(runs)


def main(experiment: Experiment, given: Sequence[str] | None = None) -> None:
    """Run a command."""
    if is_launched():  # by Lightning, with this command: it would take another job than the rank that waits for it
        raise SystemExit(
            "a run of an experiment is one process; set devices=1, and start this command once for each device"
        )
    arguments = arguments_of(experiment, given)
    jobs = Jobs(experiment, arguments.folder, tuning=arguments.command == "tune")
    try:
        if arguments.command == "register":
            print(f"{experiment.register(arguments.change)}: commit it before the next run")
        elif arguments.command == "status":
            status(jobs, arguments.published)
        elif arguments.command == "summary":
            experiment.check_registered()
            write_summary(jobs, arguments.published, arguments.drop)
        else:
            if not jobs.tuning:
                experiment.check_registered()
            quiet(arguments.threads)
            jobs.run(chosen(jobs, arguments), arguments.minutes * 60)
            if jobs.tuning:
                tell_tuning(experiment, jobs)
    except PlanError as error:
        raise SystemExit(str(error)) from error
    except (Stopped, KeyboardInterrupt) as stop:
        stopped = stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)
        print(f"{stopped}: a run that was under way is not stored; the same command goes on", file=sys.stderr)
        raise stopped from None


def status(jobs: Jobs, with_published: bool = False) -> None:
    """Print what is done, by budget and arm."""
    planned = Counter((job.budget, job.arm) for job in jobs.all())
    published = Published(jobs.experiment) if with_published else None
    runs = collect(jobs, published)
    for (budget, arm), number in planned.items():
        own = runs.get((budget, arm), {})
        told = f" ({sum('key' not in run for run in own.values())} of them only in results/)" if published else ""
        print(f"{budget}, {arm}: {len(own)} of {number} seeds{told}")


def tell_tuning(experiment: Experiment, jobs: Jobs) -> None:
    """Print the contrasts of the tuning seeds, and how many seeds would tell such an effect."""
    from nbg_lightning.evaluation.statistics import student_t_quantile

    found = summarize(experiment, collect(jobs))
    if len(experiment.tuning_seeds) < 2:
        print("one tuning seed has no spread to plan by; give two or more")
    for each in answered(found).values():
        effect, (low, high), number = each["difference"], each["interval_95"], each["seeds"]
        spread = (high - effect) / student_t_quantile(0.975, number - 1) * math.sqrt(number)
        told = f"{each['budget']}, {each['contrast']}, {each['metric']}: {effect:+.4f} ({low:+.4f} to {high:+.4f})"
        if same_in_all_seeds(each):
            print(f"{told}; {SAME}")
            continue
        try:
            print(f"{told}; {seeds_needed(spread, effect)} seeds would tell it" if effect else told)
        except ValueError:
            print(f"{told}; more than 10,000 seeds would be needed to tell it")


def write_summary(jobs: Jobs, with_published: bool = False, drop: bool = False) -> Path:
    """The JSON of what is done, its picture and its tables.

    Raises:
        PlanError: nothing has been run, or the JSON of results/ has runs that would be lost.
    """
    from tables import pages_of, write_tables

    from harness.picture import draw

    experiment, published = jobs.experiment, Published(jobs.experiment)
    runs = collect(jobs, published if with_published else None)
    if not drop and (lost := published.missing_from(runs)):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        dropped = with_published or lost[0] in published.missing_from(collect(jobs, published))
        hint = "the plan has it no more, or with other settings or metrics" if dropped else "--published keeps it"
        raise PlanError(f"{published.file} has what the summary would drop: {lost[0]}{more}; {hint}; --drop drops it")
    if differ := published.differing_from(runs):
        told = "the folder's count" if len(differ) == 1 else f"and {len(differ) - 1} more: the folder's count"
        print(f"{differ[0]} has other numbers in the folder than in results/; {told}", file=sys.stderr)
    if not runs:
        raise PlanError(f"{jobs.folder} has no run of the experiment; run it, or give another --folder")
    results = summarize(experiment, runs, published.over_items)
    published.keep_means(results["arms"])
    published.check_unchanged()
    result = write_result(experiment.name, experiment.plan, results, published.origin(runs))
    tell_gaps(experiment, results)
    print(draw(result))
    for page in write_tables():
        print(page)
    if not pages_of(experiment.name):
        print(f"no page of docs/science has the comment <!-- table: {experiment.name} -->", file=sys.stderr)
    return result


def tell_gaps(experiment: Experiment, results: Mapping[str, Any]) -> None:
    """Print which contrasts have no runs yet, and which look like a mistake of the run."""
    found = answered(results)
    for contrast in experiment.contrasts:
        name = (str(contrast), contrast.metric, contrast.budget)
        if name not in found:
            print(f"{', '.join(name)}: fewer than two seeds of both arms have run", file=sys.stderr)
        elif same_in_all_seeds(found[name]):
            print(f"{', '.join(name)}: {SAME}", file=sys.stderr)
