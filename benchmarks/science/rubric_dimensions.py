"""Which dimensions of a rubric would be kept, by the runs of `content_format.py`?

    python benchmarks/science/rubric_dimensions.py --folder runs/content_format

Power is the rank correlation, over all runs, of a dimension's mean score in the run's data with what the run reached (minus the
bits of a held-out clean solution, less the mean of its seed); overlap that over documents of one pool.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from content_format import DIMENSIONS, PRIMARY, draw_pool, experiment, scores
from harness.command import collect
from harness.jobs import Jobs
from seeds import write_result
from tables import write_tables

from nbg_lightning.construction.filtering.dimensions import choose_dimensions

DOCUMENTS, SEED = 5000, 0  # of the pool whose scores overlap; of no run
OVERLAP, LEAST = 0.8, 0.3


def chosen(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is kept, as JSON."""
    of_seed: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        of_seed[run["seed"]].append(run["metrics"]["bits"])
    reached = [statistics.mean(of_seed[run["seed"]]) - run["metrics"]["bits"] for run in runs]
    given = scores(draw_pool(DOCUMENTS, SEED)[0], SEED)
    found = choose_dimensions(
        {name: given[name] for name in DIMENSIONS},
        {name: [run["mean_scores"][name] for run in runs] for name in DIMENSIONS},
        reached,
        OVERLAP,
        LEAST,
    )
    return {"kept": list(found.kept), "dropped": found.dropped, "power": found.power, "runs": len(runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/content_format"), help="folder of the runs")
    arguments = parser.parse_args()
    runs = collect(Jobs(experiment, arguments.folder))
    whole = {seed for seed in experiment.budgets[PRIMARY].seeds if all(seed in own for own in runs.values())}
    told = [run for own in runs.values() for seed, run in own.items() if seed in whole]
    result = write_result("rubric_dimensions", {"overlap": OVERLAP, "least": LEAST}, chosen(told))
    print(json.dumps(json.loads(result.read_text())["results"], indent=1))
    write_tables()


if __name__ == "__main__":
    main()
