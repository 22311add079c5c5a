"""How does what DPD adds to SFT on the chosen answers depend on the gap between teacher and student?

    python benchmarks/science/teacher_gap.py run        # see harness/ for the commands

The arms are those of `dpd_arms.py`, with its budget of operations; a budget here is a pair of a teacher and a student that were
trained for fewer steps. At the primary gap there are two more: ``joint, worse negatives``, with rejected answers of a model that
has only learned the format, and ``both``, without the sequence term. The accuracy of each teacher and student is measured (arms
``teacher`` and ``start``); the trend is over the teacher's steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpd_arms import ARMS, SETTINGS, Arm
from dpd_arms import EXPERIMENT as DPD
from dpd_arms import run as run_arm
from dpd_seed import Seed
from harness import Budget, Charges, Contrast, Job, Trend, main

from nbg_lightning.data.folder_lock import folder_lock

if TYPE_CHECKING:
    from nbg_lightning import LanguageModelConfig

TEACHERS = {"weak": 950, "middling": 1300, "good": 1850, "best": 4000}  # steps of SFT
STUDENTS = {"early": 500, "late": 900}
WORSE_STEPS = 150  # of the model whose answers are rejected
GAPS = {
    f"{teacher} teacher, {student} student": {**SETTINGS, "teacher_sft_steps": steps, "student_sft_steps": own}
    for (teacher, steps), (student, own) in product(TEACHERS.items(), STUDENTS.items())
}
PRIMARY = "good teacher, late student"


class GapSeed(Seed):
    """A seed of a gap; all gaps of a teacher share it, and all gaps of a student that one.

    Args:
        folder: of the gap.
        seed: of the student.
        settings: of the gap.
    """

    def __init__(self, folder: Path, seed: int, settings: Mapping[str, Any]):
        super().__init__(folder, seed, settings)
        self.teachers_folder = folder.parent / f"teacher-{settings['teacher_sft_steps']}"
        self.students = Seed(folder.parent / f"student-{settings['student_sft_steps']}", seed, settings)

    @cached_property
    def student_base(self) -> str:
        """After pretraining."""
        with folder_lock(self.students.folder, "trains the student"):
            return self.students.student_base

    @cached_property
    def student(self) -> str:
        """After its steps of SFT."""
        with folder_lock(self.students.folder, "trains the student"):
            return self.students.student


class WorseNegatives(GapSeed):
    """A seed whose rejected answers are of a model that has seen the format alone."""

    def weights_of(self, name: str) -> str:
        """The checkpoint of ``student``, ``teacher`` or ``worse``."""
        if name == "worse":
            return self.sft("worse", self.student_base, self.sft_rows, WORSE_STEPS, 2e-3)
        return super().weights_of(name)

    def shape(self, name: str) -> LanguageModelConfig:
        """The worse model is as large as the student."""
        return super().shape("student" if name == "worse" else name)

    def wrong(self, name: str) -> list[list[dict[str, Any]]]:
        """Wrong answers of that model, where a student's are asked for."""
        return super().wrong("worse" if name == "student" else name)

    def charge_drawing(self, charges: Charges, *names: str) -> None:
        """Its answers are drawn instead of the student's."""
        super().charge_drawing(charges, *("worse" if name == "student" else name for name in names))


def run(job: Job) -> Mapping[str, Any]:
    """An arm of `dpd_arms.py`, in a folder of its gap, since its answers and pairs are its own."""
    place = job.folder.parent / job.budget.replace(",", "").replace(" ", "-")
    return run_arm(replace(job, folder=place / job.folder.name), Arm, WorseNegatives if "worse" in job.arm else GapSeed)


SURFACE = ("teacher", "start", "SFT on chosen", "joint")
OWN: dict[str, dict[str, Any]] = {  # the rates of tuning seed 101, for these students
    "teacher": ARMS["teacher"],
    "start": ARMS["start"],
    "SFT on chosen": {**ARMS["SFT on chosen"], "lr": 2e-3},
    "both": {**ARMS["both"], "lr": 5e-4},
    "joint": {**ARMS["joint"], "lr": 1e-3},
    "joint, worse negatives": {**ARMS["joint"], "lr": 1e-3},
}
EXPERIMENT = replace(
    DPD,
    name="teacher_gap",
    question="Does what DPD adds to SFT on the chosen answers depend on how far the teacher is ahead?",
    arms=OWN,
    budgets={
        PRIMARY: Budget(GAPS[PRIMARY], tuple(range(1, 9))),
        **{name: Budget(settings, tuple(range(1, 9)), SURFACE) for name, settings in GAPS.items() if name != PRIMARY},
    },
    primary=Contrast("SFT on chosen", "joint", "accuracy", PRIMARY),
    secondary=(
        *(Contrast("SFT on chosen", "joint", "accuracy", name) for name in GAPS if name != PRIMARY),
        Contrast("joint", "joint, worse negatives", "accuracy", PRIMARY),
        Contrast("joint", "both", "accuracy", PRIMARY),
        Contrast("SFT on chosen", "both", "accuracy", PRIMARY),
    ),
    trends=tuple(
        Trend(
            "SFT on chosen",
            "joint",
            "accuracy",
            {f"{name} teacher, {student} student": float(steps) for name, steps in TEACHERS.items()},
        )
        for student in STUDENTS
    ),
    run=run,
)

if __name__ == "__main__":
    main(EXPERIMENT)
