"""Refined answers need reasoning that leads to them: is reconstructed reasoning better than the drafts, or than none?

    python benchmarks/science/reconstruction.py run --folder runs/dpd_arms    # shares students and teacher with dpd_arms.py

The paper rewrites answers, which breaks the link between the old reasoning and the new answer, and lets a chain-completion model
write new reasoning. Here a draft is an answer of the student of `dpd_seed.py`, its refined answer is the right one, known from a
verifier, and the chain is one of the teacher's that ends in it. All arms start from the pretrained model, train on the same
number of questions, and use the same number of operations, including the generation of answers:

* ``drafts``: reasoning and answers as sampled, including wrong ones;
* ``right drafts``: only the right ones (of fewer questions);
* ``refined``: the draft's reasoning before the right answer: the broken link;
* ``reconstructed``: the teacher's chain before the right answer;
* ``reconstructed, chains for free``: the same without the cost of the teacher's chains, added after the first results;
* ``answers alone``: the right answer and no reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dpd_arms import EXPERIMENT as DPD
from dpd_arms import SETTINGS, Arm
from dpd_arms import run as run_arm
from dpd_seed import Seed
from harness import Budget, Contrast, Job, main

RATE = 2e-3  # of the students' SFT
ARMS: dict[str, dict[str, Any]] = {
    "drafts": {"draws": ["student"]},
    "right drafts": {"draws": ["student"]},
    "refined": {"draws": ["student"]},
    "reconstructed": {"draws": ["student", "teacher"]},
    "answers alone": {"draws": []},
    "reconstructed, chains for free": {"draws": ["student"]},
}


def rows_of(arm: str, seed: Seed) -> list[dict[str, Any]]:
    """Conversations of an arm, of the questions for which both models have what the arms need."""
    rows = []
    drawn = seed.drawn("student")
    for asked, drafts, right, chains in zip(
        seed.sums["pairs"], drawn["answers"], drawn["right"], seed.right("teacher"), strict=True
    ):
        if not drafts or not chains or (arm == "right drafts" and not right[0]):
            continue
        draft = drafts[0]
        if not draft["content"].strip():  # a draft without an answer can be neither trained on nor refined
            continue
        refined = {"role": "assistant", "content": asked.answer}
        answer = {
            "drafts": draft,
            "right drafts": draft,
            "refined": {**refined, "reasoning_content": draft["reasoning_content"]},
            "reconstructed": {**refined, "reasoning_content": chains[0]["reasoning_content"]},
            "answers alone": refined,
        }[arm.partition(",")[0]]
        rows.append({"messages": [asked.conversation[0], answer]})
    return rows


class ReconstructionArm(Arm):
    """SFT of the pretrained model on one kind of answers."""

    def __init__(self, job: Job, seed: Seed):
        super().__init__(job, seed)
        self.arm = job.arm

    def weights(self) -> str:
        """The checkpoint after SFT."""
        self.seed.charge_drawing(self.charges, *self.settings["draws"])
        rows = rows_of(self.arm, self.seed)
        return self.seed.sft(self.name, self.seed.student_base, rows, self.steps(1.0), RATE)


def run(job: Job) -> Mapping[str, Any]:
    """Train an arm, and ask the test questions."""
    return run_arm(job, ReconstructionArm)


def contrast(first: str, second: str) -> Contrast:
    """Of the one metric and budget."""
    return Contrast(first, second, "accuracy", "reconstruction")


EXPERIMENT = replace(
    DPD,
    name="reconstruction",
    question="Does SFT on refined answers with reconstructed reasoning reach more than SFT on the original drafts?",
    arms=ARMS,
    budgets={"reconstruction": Budget(SETTINGS, tuple(range(1, 13)))},
    primary=contrast("drafts", "reconstructed"),
    secondary=(
        contrast("right drafts", "reconstructed"),
        contrast("refined", "reconstructed"),
        contrast("answers alone", "reconstructed"),
        contrast("drafts", "refined"),
        contrast("drafts", "reconstructed, chains for free"),
    ),
    run=run,
)

if __name__ == "__main__":
    main(EXPERIMENT)
