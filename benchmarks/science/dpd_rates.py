"""The learning rates and betas of `dpd_arms.py`: every candidate on its tuning seeds.

    python benchmarks/science/dpd_rates.py tune

Prints the accuracy of each on questions that the experiment does not ask; the best of an arm is written into
``dpd_arms.ARMS`` by hand.
"""

from __future__ import annotations

from dataclasses import replace

from dpd_arms import ARMS, EXPERIMENT, SETTINGS
from harness import Budget, main

RATES = {
    "SFT on chosen": (5e-4, 1e-3),
    "positive only": (5e-4, 1e-3),
    "both": (2e-4, 5e-4),
    "joint": (1e-4, 3e-4),
    "OPD": (3e-4, 1e-3),
    "DPO": (1e-5, 3e-5, 1e-4),
}
BETAS = {"DPO": (0.1, 0.5), "joint": (0.1, 1.0)}
CANDIDATES = {
    f"{arm} {lr:g} {beta:g}": {**ARMS[arm], "lr": lr, "beta": beta}
    for arm, rates in RATES.items()
    for lr in rates
    for beta in BETAS.get(arm, (0.1,))
}
EXPERIMENT = replace(
    EXPERIMENT,
    name="dpd_rates",
    question="Which learning rate and beta suit each arm of dpd_arms?",
    arms={**{name: ARMS[name] for name in ("teacher", "start")}, **CANDIDATES},
    budgets={"sums": Budget(SETTINGS, seeds=())},
    primary=replace(EXPERIMENT.primary, first="start", second="SFT on chosen 0.001 0.1"),
    secondary=(),
)

if __name__ == "__main__":
    main(EXPERIMENT)
