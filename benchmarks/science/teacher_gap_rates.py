"""The learning rates of `teacher_gap.py`: every candidate on a tuning seed, for two students of a teacher.

    python benchmarks/science/teacher_gap_rates.py tune

Prints the accuracy of each on questions that the experiment does not ask; the best of an arm is written into
``teacher_gap.OWN`` by hand.
"""

from __future__ import annotations

from dataclasses import replace

from harness import Budget, candidates, main, rates
from teacher_gap import EXPERIMENT, GAPS, OWN, PRIMARY

GRID = {
    "start": [{}],
    "SFT on chosen": rates(5e-4, 1e-3, 2e-3, 4e-3),
    "joint": rates(1e-4, 3e-4, 1e-3),
    "both": rates(5e-4, 1e-3, 2e-3),
}
EARLY = "good teacher, early student"
CANDIDATES = candidates(OWN, GRID)
EXPERIMENT = replace(
    EXPERIMENT,
    name="teacher_gap_rates",
    question="Which learning rate suits each arm of teacher_gap?",
    arms=CANDIDATES,
    budgets={
        PRIMARY: Budget(GAPS[PRIMARY], seeds=()),
        EARLY: Budget(GAPS[EARLY], seeds=(), arms=("start", *(name for name in CANDIDATES if "joint" in name))),
    },
    primary=replace(EXPERIMENT.primary, first="start", second="SFT on chosen lr 0.002"),
    secondary=(),
    tuning_seeds=EXPERIMENT.tuning_seeds[:1],
    trends=(),
)

if __name__ == "__main__":
    main(EXPERIMENT)
