"""Sandboxed third-party checkers: answers per second, by reasoning-gym task and for twelve tasks mixed.

    python benchmarks/performance/checkers.py

Answers are the gold answers of a task's other items, so that nearly all are wrong, well-formed, and evaluated in a process of
their own; none is repeated. The tasks are the nine whose checkers evaluate their input, and the three of the shipped
configs. Processor time covers this process and all sandboxes, and depends less than rates on what else the machine
does.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

import reasoning_gym
from paired import write_result

from nbg_lightning.scoring.checkers.kinds import EVALUATING
from nbg_lightning.scoring.pool import VerifierPool

TASKS = (*EVALUATING, "chain_sum", "gcd", "simple_equations")
Call = tuple[str, dict[str, Any], dict[str, Any], str]


def calls_of(task: str, entries: int, answers: int) -> list[Call]:
    """Calls of the verifier: several answers to each of several entries, whose own answers are valid."""
    settings = {"size": 2 * entries + 2 * answers, "seed": 3}
    items = list(reasoning_gym.create_dataset(task, **settings))
    sound = [item for item in items if item["answer"] and "Integral" not in item["answer"]]
    assert len(sound) >= entries, f"{task}: only {len(sound)} of {len(items)} items have an own answer to check"
    texts = list(dict.fromkeys(item["answer"] for item in sound))
    calls = []
    for item in sound[:entries]:
        others = itertools.cycle(text for text in texts if text != item["answer"])
        # A task of few different answers has them again, with a blank more.
        spaced = (text + " " * (place // (len(texts) - 1)) for place, text in enumerate(others))
        calls += [(task, settings, item, text) for text in itertools.islice(spaced, answers)]
    return calls


def processor_seconds() -> float:
    """Processor time of this process and all its descendants, including finished ones."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
        ticks[int(folder.name)] = sum(map(int, fields[11:15]))  # its own and its children's, in user and kernel mode
    total, waiting = 0, [os.getpid()]
    while waiting:
        process = waiting.pop()
        total += ticks[process]
        waiting += children.get(process, [])
    return total / os.sysconf("SC_CLK_TCK")


def rate(pool: VerifierPool, rounds: list[list[Call]]) -> dict[str, Any]:
    """Answers per second of each round; rounds have different answers to the same entries."""
    rates = []
    before = processor_seconds()
    for calls in rounds:
        begin = time.perf_counter()
        outcomes = pool.map("reasoning_gym", calls)
        rates.append(len(calls) / (time.perf_counter() - begin))
        assert all(outcome.status == "ok" for outcome in outcomes)
    count = sum(map(len, rounds))
    used = (processor_seconds() - before) / count
    return {"median": statistics.median(rates), "all": rates, "answers": count, "processor_seconds_of_one": used}


def warm(pool: VerifierPool, calls: list[Call]) -> None:
    """Let each worker create the task and check the entries' own answers."""
    entries = list({id(call[2]): call for call in calls}.values())
    for copy in range(2 * pool.workers):
        pool.map("reasoning_gym", [(*call[:3], f"{call[3]} {' ' * copy}\t") for call in entries])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--entries", type=int, default=4, help="entries per task")
    parser.add_argument("--answers", type=int, default=16, help="answers per entry and round")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"answers_per_second_by_task": {}}
    mixed: list[Call] = []
    with VerifierPool(arguments.workers, deadline=30.0) as pool:
        for task in arguments.tasks:
            calls = calls_of(task, arguments.entries, arguments.answers * arguments.repeats)
            warm(pool, calls)
            rounds = [calls[start :: arguments.repeats] for start in range(arguments.repeats)]
            results["answers_per_second_by_task"][task] = rate(pool, rounds)
            print(f"{task}: {results['answers_per_second_by_task'][task]['median']:.0f} answers/s", flush=True)
            mixed += [(*call[:3], f"{call[3]}\n") for call in calls]
        random.Random(0).shuffle(mixed)
        results["answers_per_second"] = rate(
            pool, [mixed[start :: arguments.repeats] for start in range(arguments.repeats)]
        )
    write_result("checkers", vars(arguments), results)


if __name__ == "__main__":
    main()
