"""Do bands of pass rate help GRPO, when questions are as few without a band, and the ledger is paid for?

    python benchmarks/science/band_controls.py run        # see harness/ for the commands

The task is that of `pass_rate_bands.py`. Every arm starts from the same SFT model and uses the same number of operations: answers
for a ledger are forwards too, and leave fewer steps of GRPO. GRPO runs in parts of a few steps, on these questions:

* ``all``: all of them, without a ledger;
* ``10-90``: those strictly within the band, by a ledger of 16 answers made once;
* ``random 10-90``: as many random ones; its ledger is paid for too, since it determines the number;
* ``10-90 refreshed``: those within the band, by a ledger of 8 answers made again before each part;
* ``5-95``, ``20-80`` and their random counterparts, if there is time.

At the second budget a share of the questions has an impossible gold answer, so that they are truly unsolvable.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import Budget, Contrast, Experiment, Job, Metric, main
from pass_rate_bands import LEDGER, MODEL, partly_announced
from stages import VOCAB_SIZE, Stages, draw_sums, texts

from nbg_lightning.data.folder_lock import folder_lock

GROUP, PROMPTS, MAX_NEW_TOKENS = 8, 16, 48
BEYOND = 50  # added to a gold answer, which no sum of three digits reaches then
SETTINGS: dict[str, Any] = {
    "test": 400,
    "rl": 240,
    "sft": 2000,
    "step_tokens": 1024,
    "base_steps": 400,
    "sft_steps": 900,
    "lr": 1e-4,  # of pass_rate_bands.py, where it was chosen without a band
    "unsolvable": 0.0,
}
ONCE = {"parts": [20, 20, 12], "n": 16}  # 3,840 answers are the forwards of 7.5 steps
ARMS: dict[str, dict[str, Any]] = {
    "start": {},
    "all": {"parts": [20, 20, 20]},
    "10-90": {**ONCE, "band": [0.1, 0.9]},
    "random 10-90": {**ONCE, "band": [0.1, 0.9], "lot": True},
    "10-90 refreshed": {"parts": [16, 16, 16], "n": 8, "band": [0.1, 0.9], "refresh": True},
    "5-95": {**ONCE, "band": [0.05, 0.95]},
    "random 5-95": {**ONCE, "band": [0.05, 0.95], "lot": True},
    "20-80": {**ONCE, "band": [0.2, 0.8]},
    "random 20-80": {**ONCE, "band": [0.2, 0.8], "lot": True},
}


def rows_of(sums: Sequence[Any], unsolvable: float) -> list[dict[str, str]]:
    """Questions with gold answers; those of a share at the end are out of reach."""
    solvable = len(sums) - round(unsolvable * len(sums))
    return [
        {"question": each.question, "answer": each.answer if place < solvable else str(int(each.answer) + BEYOND)}
        for place, each in enumerate(sums)
    ]


class Seed(Stages):
    """The SFT model of a seed, and GRPO from it.

    Args:
        folder: of the experiment's runs.
        job: one of this seed's.
    """

    def __init__(self, folder: Path, job: Job):
        self.settings, self.job = job.settings, job
        counts = {name: job.settings[name] for name in ("test", "rl", "sft")}
        self.sums = draw_sums(counts, job.seed)
        words = [*texts(self.sums["sft"]), *["The answer is 07."] * 1000]
        super().__init__(folder / f"shared-{job.seed}", job.seed, job.settings["step_tokens"], words)
        self.rows = {
            "test": rows_of(self.sums["test"], 0.0),
            "rl": rows_of(self.sums["rl"], job.settings["unsolvable"]),
        }

    @property
    def start(self) -> str:
        """The SFT model, which announces some answers."""
        rows = partly_announced(self.sums["sft"], self.seed)
        base = self.base("base", MODEL, self.settings["base_steps"])
        return self.sft("sft", base, rows, self.settings["sft_steps"], 2e-3)

    def data(self, rows: Sequence[Mapping[str, str]], steps: int) -> Any:
        """Questions of some steps."""
        from nbg_lightning import PromptDataModule
        from nbg_lightning.data import QuestionList

        options = {"steps": steps, "data_dir": str(self.folder / "data"), "seed": self.seed}
        return PromptDataModule({"sums": QuestionList(list(rows))}, str(self.tokenizer), PROMPTS, **options)

    def rates(self, name: str, weights: str, rows: Sequence[Mapping[str, str]], n: int) -> list[float]:
        """The pass rate of each question; its answers are charged unless they are a test."""
        from nbg_lightning.rewards.math import MathReward

        def measure() -> dict[str, Any]:
            file = self.folder / name / LEDGER
            asked, ledger = self.pass_rate_ledger(
                file, self.data(rows, 1), MathReward(workers=1), weights, MAX_NEW_TOKENS, n
            )
            by_text = {question.messages[0]["content"]: ledger.rows[question.key] for question in asked}
            found = [by_text[row["question"]] for row in rows]
            return {"rates": [row.rate for row in found], "tokens": sum(row.n * row.mean_length for row in found)}

        found = self.once(name, measure)
        if not name.startswith("test-"):
            self.job.charges.forward("ledger", self.shape, round(found["tokens"]), MAX_NEW_TOKENS)
        return found["rates"]

    @property
    def shape(self) -> Any:
        """Of the model: what a token is charged by."""
        from nbg_lightning import LanguageModelConfig

        return LanguageModelConfig(vocab_size=VOCAB_SIZE, head_dim=32, **MODEL)

    def kept(self, rates: Sequence[float]) -> list[dict[str, str]]:
        """Questions of an arm by their pass rates: within its band, or equally many at random."""
        from nbg_lightning.rl import PassRateBand

        band = PassRateBand(*self.settings["band"])
        inside = [row for row, rate in zip(self.rows["rl"], rates, strict=True) if rate in band]
        if self.settings.get("lot"):
            return random.Random(f"lot {self.seed}").sample(self.rows["rl"], len(inside))
        return inside

    def grpo(self, name: str, weights: str, rows: Sequence[Mapping[str, str]], steps: int) -> str:
        """A part: some steps on some questions."""
        from nbg_lightning import GRPOModule
        from nbg_lightning.rewards.math import MathReward

        module = GRPOModule(
            MathReward(workers=1),
            base_weights=weights,
            group_size=GROUP,
            max_new_tokens=MAX_NEW_TOKENS,
            **{**self.options(), "micro_batch_tokens": 8192},
        )
        checkpoint, found = self.reinforce(name, module, self.data(rows, steps), self.settings["lr"])
        self.job.charges.forward("answers", self.shape, found["tokens"], MAX_NEW_TOKENS)
        self.job.charges.train("steps", self.shape, found["tokens"], MAX_NEW_TOKENS)
        return checkpoint


def run(job: Job) -> dict[str, Any]:
    """Train an arm in its parts, and ask the test questions: four answers to each, judged by the same reward."""
    seed, settings = Seed(job.folder.parent, job), job.settings
    name = f"{job.arm.replace(' ', '-')}-{job.key[:8]}"
    with folder_lock(seed.folder, "trains this seed"):
        weights = seed.start
        rows, sizes = seed.rows["rl"], []
        for number, steps in enumerate(settings.get("parts", ())):
            if "band" in settings and (number == 0 or settings.get("refresh")):
                shared = f"n{settings['n']}-{settings['unsolvable']:g}"  # the first ledger is the same in all arms
                made = f"ledger-{name}-{number}" if number else f"ledger-{shared}"
                rows = seed.kept(seed.rates(made, weights, seed.rows["rl"], settings["n"]))
            sizes.append(len(rows))
            weights = seed.grpo(f"{name}-{number}", weights, rows, steps)
        scores = seed.rates(f"test-{name}", weights, seed.rows["test"], 4)
    return {
        "metrics": {"accuracy": sum(scores) / len(scores)},
        "items": {"accuracy": scores},
        "questions": sizes,
    }


def contrast(first: str, second: str, budget: str = "sums") -> Contrast:
    """Of the one metric."""
    return Contrast(first, second, "accuracy", budget)


CORE = ("start", "all", "10-90", "random 10-90", "10-90 refreshed")
HARD = "a third unsolvable"
EXPERIMENT = Experiment(
    name="band_controls",
    question="At equal compute, are questions of a band of pass rate better for GRPO than as many questions by lot?",
    metrics={"accuracy": Metric("right and announced, % of the test sums, four answers to each", scale=100, digits=1)},
    arms=ARMS,
    budgets={
        "sums": Budget(SETTINGS, tuple(range(1, 11)), CORE),
        HARD: Budget({**SETTINGS, "unsolvable": 1 / 3}, tuple(range(1, 11)), CORE),
        "other bands": Budget(SETTINGS, tuple(range(1, 11)), tuple(name for name in ARMS if name not in CORE)),
    },
    primary=contrast("random 10-90", "10-90"),
    secondary=(
        contrast("start", "all"),
        contrast("all", "10-90"),
        contrast("10-90", "10-90 refreshed"),
        contrast("all", "10-90 refreshed"),
        contrast("random 10-90", "10-90", HARD),
        contrast("all", "10-90", HARD),
        contrast("all", "10-90 refreshed", HARD),
        contrast("random 5-95", "5-95", "other bands"),
        contrast("random 20-80", "20-80", "other bands"),
    ),
    tuning_seeds=(101, 102),
    run=run,
)

if __name__ == "__main__":
    main(EXPERIMENT)
