"""Is reinforcement learning on two domains better in a stage each, or mixed?

    python benchmarks/science/domains.py run        # see harness/ for the commands

The domains are sums (one turn) and purchases (calls of two tools over several turns, of which SFT shows few to their end). All
arms but the first three take as many questions of each domain, and restart the optimizer half way:

* ``start``: after pretraining and SFT on both domains;
* ``sums only`` and ``purchases only``: the first halves of the next two arms;
* ``sums, then purchases`` and ``purchases, then sums``: one domain a stage, as the paper does;
* ``mixed``: half of each step's questions from either domain, in the same order in both halves;
* ``mixed, each question once``: the same with other questions in the second half, as one domain a stage has;
* ``sums, then purchases, small steps``: as many questions of each, in as many optimizer steps as ``mixed`` has with them.
"""

from __future__ import annotations

from typing import Any

from domain_seed import DOMAINS, PROMPTS, SETTINGS, Seed
from harness import Budget, Contrast, Experiment, Job, Metric, main

from nbg_lightning.data.folder_lock import folder_lock

HALF = 16  # steps
ARMS: dict[str, dict[str, Any]] = {
    "start": {"parts": []},
    "sums only": {"parts": [["sums"]]},
    "purchases only": {"parts": [["purchases"]]},
    "sums, then purchases": {"parts": [["sums"], ["purchases"]]},
    "purchases, then sums": {"parts": [["purchases"], ["sums"]]},
    "mixed": {"parts": [list(DOMAINS), list(DOMAINS)]},
    "mixed, each question once": {"parts": [list(DOMAINS), list(DOMAINS)], "once": True},
    "sums, then purchases, small steps": {
        "parts": [["sums"], ["purchases"]],
        "half": 2 * HALF,
        "prompts": PROMPTS // 2,
    },
}


def run(job: Job) -> dict[str, Any]:
    """Train an arm in its parts, and measure both domains."""
    seed = Seed(job.folder.parent, job.seed, job.settings)
    with folder_lock(seed.folder, "trains this seed"):
        prompts, steps = job.settings.get("prompts", PROMPTS), job.settings["half"]
        weights, name = seed.start("uniform"), "start"
        for number, domains in enumerate(job.settings["parts"]):
            pool = number if job.settings.get("once") else None
            name = f"{name}-{'+'.join(domains)}{'' if prompts == PROMPTS else f'-{prompts}'}"  # arms share their first part
            name += "" if pool is None else f"-of-{pool}"
            weights = seed.grpo(name, weights, domains, steps, job.charges, prompts, pool)
        found = {domain: seed.measure(name, weights, domain) for domain in DOMAINS}
    return {"metrics": {**found, "both": sum(found.values()) / len(found)}}


def contrast(first: str, second: str, metric: str) -> Contrast:
    """Of the one budget."""
    return Contrast(first, second, metric, "two domains")


EXPERIMENT = Experiment(
    name="domains",
    question="Does the harder domain, a task with tools, reach more in a stage of its own than mixed with the other one?",
    metrics={
        name: Metric(text, scale=100, digits=1)
        for name, text in (
            ("purchases", "purchases right, %"),
            ("sums", "sums right, %"),
            ("both", "mean of both, %"),
        )
    },
    arms=ARMS,
    budgets={"two domains": Budget({**SETTINGS, "half": HALF}, tuple(range(1, 11)))},
    primary=contrast("mixed", "sums, then purchases", "purchases"),
    secondary=(
        contrast("mixed", "sums, then purchases", "sums"),
        contrast("mixed", "sums, then purchases", "both"),
        *(contrast("mixed", "purchases, then sums", metric) for metric in ("purchases", "sums", "both")),
        contrast("mixed", "sums, then purchases, small steps", "purchases"),
        contrast("mixed, each question once", "sums, then purchases", "purchases"),
        contrast("mixed, each question once", "sums, then purchases, small steps", "purchases"),
        contrast("start", "sums only", "purchases"),
        contrast("purchases only", "sums, then purchases", "purchases"),
        contrast("start", "purchases only", "sums"),
    ),
    tuning_seeds=(101, 102),
    run=run,
)

if __name__ == "__main__":
    main(EXPERIMENT)
