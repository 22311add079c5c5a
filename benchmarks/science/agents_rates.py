"""The learning rates of `agents.py`: both candidates of a stage on a tuning seed.

    python benchmarks/science/agents_rates.py tune

Prints the sums and purchases right after each; the rate with more sums right is written into ``agents.THEN`` by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agents import ARMS, EXPERIMENT, after
from domain_seed import DOMAINS, Seed
from harness import Job, candidates, main, rates

from nbg_lightning.data.folder_lock import folder_lock

GRID = {
    "start": [{}],
    "SFT on chosen": rates(3e-4, 1e-3, name="then_lr"),
    "DPD": rates(1e-4, 3e-4, name="dpd_lr"),
}


def run(job: Job) -> Mapping[str, Any]:
    """Train a candidate and measure both domains; purchases are not trained on."""
    seed, stage = Seed(job.folder.parent, job.seed, job.settings), job.settings.get("stage")
    with folder_lock(seed.folder, "trains this seed"):
        weights = seed.start("uniform")
        if stage is not None:
            weights = after(stage, seed, job.arm.replace(" ", "-"), weights, job)
        return {"metrics": {domain: seed.measure(job.arm, weights, domain) for domain in DOMAINS}}


EXPERIMENT = replace(
    EXPERIMENT,
    name="agents_rates",
    question="Which learning rates suit the stages of agents?",
    metrics={name: EXPERIMENT.metrics[name] for name in ("sums", "purchases")},
    arms=candidates(ARMS, GRID),
    budgets={name: replace(budget, seeds=()) for name, budget in EXPERIMENT.budgets.items()},
    primary=replace(EXPERIMENT.primary, metric="sums", second="DPD dpd_lr 0.0001"),
    secondary=(),
    tuning_seeds=EXPERIMENT.tuning_seeds[:1],
    run=run,
)

if __name__ == "__main__":
    main(EXPERIMENT)
