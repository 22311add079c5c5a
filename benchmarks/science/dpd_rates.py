"""The learning rates and betas of `dpd_arms.py`: every candidate on its tuning seeds.

    python benchmarks/science/dpd_rates.py tune

Prints the accuracy of each on questions that the experiment does not ask; the best of an arm is written into
``dpd_arms.ARMS`` by hand.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from dpd_arms import ARMS, EXPERIMENT, SETTINGS
from harness import Budget, candidates, main, rates

GRID = {
    "teacher": [{}],
    "start": [{}],
    "SFT on chosen": rates(5e-4, 1e-3),
    "positive only": rates(5e-4, 1e-3),
    "both": rates(2e-4, 5e-4),
    "joint": [{"lr": lr, "beta": beta} for lr, beta in product((1e-4, 3e-4), (0.1, 1.0))],
    "OPD": rates(3e-4, 1e-3),
    "DPO": [{"lr": lr, "beta": beta} for lr, beta in product((1e-5, 3e-5, 1e-4), (0.1, 0.5))],
}
EXPERIMENT = replace(
    EXPERIMENT,
    name="dpd_rates",
    question="Which learning rate and beta suit each arm of dpd_arms?",
    arms=candidates(ARMS, GRID),
    budgets={"sums": Budget(SETTINGS, seeds=())},
    primary=replace(EXPERIMENT.primary, first="start", second="SFT on chosen lr 0.001"),
    secondary=(),
)

if __name__ == "__main__":
    main(EXPERIMENT)
