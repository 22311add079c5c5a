"""The learning rates of `dpd_plateau.py`, and the settings of its GRPO: every candidate on its tuning seed.

    python benchmarks/science/dpd_plateau_rates.py tune

Prints the accuracy of each before and after GRPO on questions that the experiment does not ask; the best of an arm is written
into ``dpd_plateau.RATES`` by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dpd_plateau import ARMS, EXPERIMENT, SETTINGS
from harness import Budget, candidates, main, rates

SHORT = {"rl_prompts": 16, "rl_steps": 60}
GRPO = [{**SHORT, **each} for each in rates(2e-4, 5e-4, 1e-3, name="rl_lr")]
GRID: dict[str, Sequence[dict[str, Any]]] = {
    "start": [{}, *GRPO],
    "more SFT": rates(5e-4, 2e-3),
    "SFT on chosen": [*rates(1e-3, 2e-3, 4e-3), *GRPO],
    "SFT on own right": rates(5e-4, 2e-3),
    "positive only": rates(5e-4, 1e-3, 2e-3, 4e-3),
    "negative only": rates(5e-4, 2e-3),
    "both": rates(5e-4, 1e-3, 2e-3, 4e-3),
    "DPO": rates(1e-5, 1e-4, 5e-4),
    "joint": [*rates(3e-4, 1e-3, 2e-3, 4e-3), {"beta": 0.5}],
    "joint, DPO at a tenth": rates(3e-4, 1e-3, 2e-3),
    "OPD": rates(3e-4, 1e-3, 2e-3),
    "joint, then OPD": rates(3e-4, 1e-3, name="opd_lr"),
}
EXPERIMENT = replace(
    EXPERIMENT,
    name="dpd_plateau_rates",
    question="Which learning rate suits each arm of dpd_plateau, and which settings its GRPO?",
    arms=candidates(ARMS, GRID),
    budgets={"plateau": Budget(SETTINGS, seeds=())},
    primary=replace(EXPERIMENT.primary, first="start", second="SFT on chosen lr 0.002"),
    secondary=(),
    tuning_seeds=EXPERIMENT.tuning_seeds[:1],
)

if __name__ == "__main__":
    main(EXPERIMENT)
