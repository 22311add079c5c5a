"""What do DPD's terms add for a student that its own data teach nothing more, and does GRPO gain more from them?

    python benchmarks/science/dpd_plateau.py run        # see harness/ for the commands

The arms, costs and questions are those of `dpd_arms.py`, whose student could still learn from its data. This one was shown fewer
sums, until it had learned them by heart: ``more SFT`` tests that. Each arm is measured twice: after training, and after the same
steps of GRPO on questions that no arm has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpd_arms import ARMS as ALL
from dpd_arms import SETTINGS as OF_ARMS
from dpd_arms import TUNING_SEEDS, Arm
from dpd_seed import MAX_NEW_TOKENS, Seed
from harness import Budget, Contrast, Experiment, Job, Metric, main

from nbg_lightning.data.folder_lock import folder_lock

SETTINGS: dict[str, Any] = {
    **OF_ARMS,
    "sft": 250,
    "student_sft_steps": 3000,
    "teacher_sft_steps": 3000,
    "grpo": 1600,
    "rl_prompts": 32,
    "rl_group": 8,
    "rl_steps": 100,
    "rl_lr": 2e-4,
}
RATES: dict[str, dict[str, Any]] = {  # of tuning seed 101
    "start": {},
    "more SFT": {"lr": 2e-3},
    "SFT on chosen": {"lr": 2e-3},
    "SFT on own right": {"lr": 2e-3},
    "positive only": {"lr": 2e-3},
    "negative only": {"lr": 2e-3},
    "both": {"lr": 2e-3},
    "DPO": {"lr": 1e-4},
    "joint": {"lr": 2e-3},
    "OPD": {"lr": 1e-3},
    "joint, then OPD": {"lr": 2e-3, "opd_lr": 3e-4},
}
ARMS: dict[str, dict[str, Any]] = {
    **{name: {**ALL[name], **rates} for name, rates in RATES.items()},
    "joint, DPO at a tenth": {**ALL["joint"], "weights": [0.1, 1, 1], "lr": 2e-3},
}


class PlateauArm(Arm):
    """An arm, and GRPO from where it ends."""

    def grpo(self, weights: str) -> str:
        """The checkpoint after GRPO, which is the same for all arms and charged by what it draws."""
        from nbg_lightning import GRPOModule
        from nbg_lightning.rewards.math import MathReward

        seed, settings = self.seed, self.settings
        module = GRPOModule(
            MathReward(find="number", workers=1),
            base_weights=weights,
            group_size=settings["rl_group"],
            max_new_tokens=MAX_NEW_TOKENS,
            **{**seed.options(), "micro_batch_tokens": 8192},
        )
        data = seed.prompts(seed.sums["grpo"], settings["rl_prompts"], settings["rl_steps"])
        checkpoint, found = seed.reinforce(f"{self.name}-grpo", module, data, settings["rl_lr"])
        self.charges.forward("answers of GRPO", self.student, found["tokens"], self.length)
        self.charges.train("steps of GRPO", self.student, found["tokens"], self.length)
        return checkpoint


def run(job: Job) -> Mapping[str, Any]:
    """Train an arm, then GRPO, and ask the test questions after each."""
    seed = Seed(job.folder.parent, job.seed, job.settings)
    with folder_lock(seed.folder, "trains this student"):
        arm = PlateauArm(job, seed)
        weights = arm.weights()
        after = arm.grpo(weights)
        items = {"accuracy": arm.scores(arm.name, weights), "after_grpo": arm.scores(f"{arm.name}-grpo", after)}
    metrics = {name: sum(scores) / len(scores) for name, scores in items.items()}
    metrics["gain"] = metrics["after_grpo"] - metrics["accuracy"]
    return {"metrics": metrics, "items": items, "pairs": len(seed.pairs)}


def contrast(first: str, second: str, metric: str = "accuracy") -> Contrast:
    """Of the one budget."""
    return Contrast(first, second, metric, "plateau")


EXPERIMENT = Experiment(
    name="dpd_plateau",
    question="Does DPD raise a student at its plateau beyond SFT on the chosen answers, and does GRPO gain more from it?",
    metrics={
        "accuracy": Metric("right, % of the test sums", scale=100, digits=1),
        "after_grpo": Metric("right after GRPO, %", scale=100, digits=1),
        "gain": Metric("what GRPO gains, points", scale=100, digits=1),
    },
    arms=ARMS,
    budgets={"plateau": Budget(SETTINGS, tuple(range(1, 13)))},
    primary=contrast("SFT on chosen", "joint"),
    secondary=(
        contrast("start", "more SFT"),
        contrast("SFT on chosen", "positive only"),
        contrast("positive only", "both"),
        contrast("both", "joint"),
        contrast("joint", "joint, DPO at a tenth"),
        contrast("SFT on chosen", "OPD"),
        contrast("SFT on chosen", "SFT on own right"),
        contrast("joint", "joint, then OPD"),
        contrast("SFT on chosen", "joint", "after_grpo"),
        contrast("SFT on chosen", "both", "after_grpo"),
        contrast("SFT on chosen", "joint", "gain"),
        contrast("start", "SFT on chosen", "gain"),
        contrast("start", "joint", "gain"),
    ),
    tuning_seeds=TUNING_SEEDS,
    run=run,
)

if __name__ == "__main__":
    main(EXPERIMENT)
