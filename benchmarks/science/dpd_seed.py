"""What all arms of an experiment on DPD begin with: a teacher, a student at its plateau, and answers that both have drawn.

The sums, their split and the teacher are the same in all runs, as a published set and a model that one has are. A seed is of
the student: its weights, the derivations that it is shown, the order of data and all drawn answers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derivations import worked
from harness import Charges
from stages import VOCAB_SIZE, Stages, draw_sums, questions, texts

from nbg_lightning.data.folder_lock import folder_lock

if TYPE_CHECKING:
    from nbg_lightning import LanguageModelConfig

STEP_TOKENS = 512
MAX_NEW_TOKENS = 64
PARTS = ("test", "validation", "pairs", "sft", "teacher_sft", "grpo")  # of the sums; not all experiments have GRPO
SPLIT_SEED = 0  # of the sums and the teacher


class Split(Stages):
    """The sums of an experiment, and models that are trained on them.

    Args:
        folder: of all that is made.
        seed: of the models.
        settings: of the budget.
    """

    def __init__(self, folder: Path, seed: int, settings: Mapping[str, Any]):
        self.settings = settings
        self.sums = draw_sums(
            {name: settings[name] for name in PARTS if name in settings}, SPLIT_SEED, settings["digits"]
        )
        super().__init__(folder, seed, STEP_TOKENS, texts(self.sums["teacher_sft"]))

    def worked_by_teacher(self) -> list[dict[str, Any]]:
        """What a teacher is shown: all sums of SFT, each by two derivations."""
        made = [*self.sums["sft"], *self.sums["teacher_sft"]]
        return worked(made, random.Random(f"teacher {self.seed}"), each=2)


class Teacher(Split):
    """The larger model, which is shown more sums than the student."""

    @cached_property
    def weights(self) -> str:
        """After SFT."""
        base = self.base("base", self.settings["teacher"], self.settings["teacher_base_steps"])
        return self.sft("sft", base, self.worked_by_teacher(), self.settings["teacher_sft_steps"], 2e-3)


class Seed(Split):
    """A student of one seed, and the answers that it and the teacher have drawn.

    Args:
        folder: of the experiment's runs.
        seed: of the student.
        settings: of the budget.
    """

    def __init__(self, folder: Path, seed: int, settings: Mapping[str, Any]):
        super().__init__(folder / f"shared-{seed}", seed, settings)
        self.teachers_folder = folder / "teacher"

    # -- models --------------------------------------------------------------------------------------------------------

    def shape(self, name: str) -> LanguageModelConfig:
        """Of ``student`` or ``teacher``: what a forward is charged by."""
        from nbg_lightning import LanguageModelConfig

        return LanguageModelConfig(vocab_size=VOCAB_SIZE, head_dim=32, **self.settings[name])

    @cached_property
    def teacher(self) -> str:
        """Trained once, by whichever run comes first."""
        with folder_lock(self.teachers_folder, "trains the teacher"):
            return Teacher(self.teachers_folder, SPLIT_SEED, self.settings).weights

    @cached_property
    def sft_rows(self) -> list[dict[str, Any]]:
        """What the student has been shown."""
        return worked(self.sums["sft"], random.Random(f"student {self.seed}"))

    @cached_property
    def student_base(self) -> str:
        """After pretraining."""
        return self.base("student-base", self.settings["student"], self.settings["student_base_steps"])

    @cached_property
    def student(self) -> str:
        """After SFT, from which every arm begins."""
        return self.sft("student", self.student_base, self.sft_rows, self.settings["student_sft_steps"], 2e-3)

    def weights_of(self, name: str) -> str:
        """The checkpoint of ``student`` or ``teacher``."""
        return self.student if name == "student" else self.teacher

    # -- answers -------------------------------------------------------------------------------------------------------

    def drawn(self, name: str) -> dict[str, Any]:
        """Answers of ``student`` or ``teacher`` to the questions of pairs, at temperature 1, and what drawing them has read.

        Returns:
            ``answers``: for each question a list of assistant turns, those that ended; ``right``: whether each is;
            ``tokens``: of prompts and answers, those that are thrown away too; ``mean_tokens`` of one.
        """

        from nbg_lightning.engines import Sampling
        from nbg_lightning.rewards.math import MathReward

        number = self.settings["teacher_answers" if name == "teacher" else "student_answers"]
        return self.draw(
            f"drawn-{name}",
            self.weights_of(name),
            questions(self.sums["pairs"]),
            MathReward(find="number", workers=1),
            Sampling(max_new_tokens=MAX_NEW_TOKENS, n=number, seed=self.seed),
        )

    def right(self, name: str) -> list[list[dict[str, Any]]]:
        """For each question the right answers of a model, each text once."""
        return self._split(name, True)

    def wrong(self, name: str) -> list[list[dict[str, Any]]]:
        """For each question the wrong ones."""
        return self._split(name, False)

    def _split(self, name: str, wanted: bool) -> list[list[dict[str, Any]]]:
        drawn = self.drawn(name)
        found = []
        for own, right in zip(drawn["answers"], drawn["right"], strict=True):
            kept: list[dict[str, Any]] = []
            for answer, is_right in zip(own, right, strict=True):
                if is_right is wanted and answer not in kept:
                    kept.append(answer)
            found.append(kept)
        return found

    @cached_property
    def pairs(self) -> list[dict[str, Any]]:
        """Pairs of right answers of the teacher and wrong, not empty ones of the student, at most two per question."""
        rows = []
        for asked, chosen, rejected in zip(
            self.sums["pairs"], self.right("teacher"), self.wrong("student"), strict=True
        ):
            prompt = asked.conversation[:1]
            rows += [
                {"prompt": prompt, "chosen": [better], "rejected": [worse]}
                for better, worse in list(zip(chosen, filter(_has_content, rejected), strict=False))[:2]
            ]
        return rows

    def own_right_rows(self) -> list[dict[str, Any]]:
        """The student's own right answers, as conversations."""
        return [
            {"messages": [asked.conversation[0], answer]}
            for asked, own in zip(self.sums["pairs"], self.right("student"), strict=True)
            for answer in own
        ]

    def charge_drawing(self, charges: Charges, *names: str) -> None:
        """All answers that were drawn, those that are thrown away too."""
        for name in names:
            drawn = self.drawn(name)
            charges.forward(f"{name} draws", self.shape(name), drawn["tokens"], round(drawn["mean_tokens"]))


def _has_content(answer: dict[str, Any]) -> bool:
    return bool(answer["content"].strip())
