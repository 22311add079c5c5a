"""Do quality order, DPD and single-turn reinforcement learning carry over to a task with tools, which none of them trains?

    python benchmarks/science/agents.py run        # see harness/ for the commands

The models are those of `domains.py`. SFT shows purchases (calls of two tools over several turns), few of them to their end; no
stage after it sees any:

* ``start``: pretraining with a constant share of clean texts, then SFT;
* ``HQ decay`` and ``FG``: the same texts in another order (see `quality_order.py`), then the same SFT;
* ``SFT on chosen``, ``DPD``, ``GRPO on sums``: from ``start``, a stage on single-turn sums only.

Each is measured on both domains, and on purchases again after the same steps of GRPO on them: a stage may give nothing by itself
and still be a better place to begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domain_seed import DOMAINS, SETTINGS, Seed
from domains import HALF
from harness import Budget, Contrast, Experiment, Job, Metric, main

from nbg_lightning.data.folder_lock import folder_lock

THEN = {"then_lr": 3e-4, "dpd_lr": 1e-4}  # by sums right of tuning seed 101
ARMS: dict[str, dict[str, Any]] = {
    "start": {"order": "uniform"},
    "HQ decay": {"order": "HQ decay"},
    "FG": {"order": "FG"},
    "SFT on chosen": {"order": "uniform", "stage": "chosen"},
    "DPD": {"order": "uniform", "stage": "dpd"},
    "GRPO on sums": {"order": "uniform", "stage": "sums"},
}


def after(stage: str, seed: Seed, name: str, weights: str, job: Job) -> str:
    """The weights after a stage on sums, kept under a name."""
    if stage == "chosen":
        return seed.chosen(name, weights)
    if stage == "dpd":
        return seed.dpd(name, weights)
    return seed.grpo(name, weights, ["sums"], job.settings["half"], job.charges)


def run(job: Job) -> Mapping[str, Any]:
    """Train an arm, measure both domains, and train on purchases. In the folder of `domains.py` what both do is done once."""
    seed, settings = Seed(job.folder.parent, job.seed, job.settings), job.settings
    order, stage = settings["order"], settings.get("stage")
    name = "start" if order == "uniform" else f"start-{order.replace(' ', '-')}"
    with folder_lock(seed.folder, "trains this seed"):
        weights = seed.start(order)
        if stage is not None:
            name = f"{name}-{stage}"
            weights = after(stage, seed, name, weights, job)
        found = {domain: seed.measure(name, weights, domain) for domain in DOMAINS}
        name = f"{name}-purchases"
        weights = seed.grpo(name, weights, ["purchases"], settings["half"], job.charges)
        found["after"] = seed.measure(name, weights, "purchases")
    return {"metrics": found}


def contrast(second: str, metric: str, first: str = "start") -> Contrast:
    """Of the one budget."""
    return Contrast(first, second, metric, "agents")


EXPERIMENT = Experiment(
    name="agents",
    question="Does single-turn reinforcement learning on sums carry over to purchases with tools over several turns?",
    metrics={
        "purchases": Metric("purchases right, %", scale=100, digits=1),
        "sums": Metric("sums right, %", scale=100, digits=1),
        "after": Metric("purchases right after GRPO on them, %", scale=100, digits=1),
    },
    arms=ARMS,
    budgets={"agents": Budget({**SETTINGS, **THEN, "half": HALF}, tuple(range(1, 9)))},
    primary=contrast("GRPO on sums", "purchases"),
    secondary=(
        contrast("DPD", "purchases"),
        contrast("DPD", "purchases", "SFT on chosen"),
        contrast("FG", "purchases"),
        contrast("FG", "purchases", "HQ decay"),
        *(contrast(each, "after") for each in ("DPD", "GRPO on sums", "FG")),
        *(contrast(each, "sums") for each in ("DPD", "GRPO on sums", "FG")),
    ),
    tuning_seeds=(101, 102),
    run=run,
)

if __name__ == "__main__":
    main(EXPERIMENT)
