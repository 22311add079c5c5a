"""What is each part of DPD worth at equal compute, for a student that SFT teaches nothing more?

    python benchmarks/science/dpd_arms.py run        # some minutes a seed
    python benchmarks/science/dpd_arms.py summary

Sums with several right derivations (`derivations.py`). Every arm goes on from the same student, with as many floating-point
operations: those that draw answers, the teacher's and the reference's forwards (once a sequence, since they are cached) and
the steps, of which there are as many as the rest pays for. An arm that needs one side of the pairs has no other: the unused
side is one short answer, so that nothing is computed that is not charged. Rates and betas were chosen by `dpd_rates.py`, on
other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpd_seed import MAX_NEW_TOKENS, STEP_TOKENS, Seed
from harness import Budget, Charges, Contrast, Experiment, Job, Metric, main
from stages import VOCAB_SIZE, questions

from nbg_lightning.data.folder_lock import folder_lock

UNUSED = {"role": "assistant", "content": "0", "reasoning_content": "0"}  # in the place of a side that no term reads
GROUP_SIZE = 2  # of on-policy distillation: the least that it takes, so that a step has most questions
SFT, DPD, OPD = "sft", "dpd", "opd"
SETTINGS: dict[str, Any] = {
    "steps": 1100,  # of SFT, by which the budget of operations is told
    "digits": 4,  # of a sum: there are too few different ones of three
    "test": 400,
    "validation": 300,
    "pairs": 800,
    "sft": 2500,
    "teacher_sft": 3000,
    "student": dict(
        hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1
    ),
    "teacher": dict(
        hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=1
    ),
    "student_base_steps": 400,
    "student_sft_steps": 1500,
    "teacher_base_steps": 600,
    "teacher_sft_steps": 4000,
    "student_answers": 4,
    "teacher_answers": 2,
}
TUNING_SEEDS = (101, 102)  # they are measured on questions of their own
ARMS: dict[str, dict[str, Any]] = {
    "teacher": {"kind": "teacher"},
    "start": {"kind": "start"},
    "more SFT": {"kind": SFT, "rows": "shown", "lr": 5e-4},
    "SFT on chosen": {"kind": SFT, "rows": "chosen", "lr": 5e-4},
    "SFT on own right": {"kind": SFT, "rows": "own", "lr": 5e-4},
    "positive only": {"kind": DPD, "weights": [0, 1, 0], "lr": 5e-4},
    "negative only": {"kind": DPD, "weights": [0, 0, 1], "lr": 2e-4},
    "both": {"kind": DPD, "weights": [0, 1, 1], "lr": 2e-4},
    "DPO": {"kind": DPD, "weights": [1, 0, 0], "lr": 1e-5, "beta": 0.5},
    "joint": {"kind": DPD, "weights": [1, 1, 1], "lr": 1e-4, "beta": 0.1},
    "OPD": {"kind": OPD, "lr": 3e-4},
    "joint, then OPD": {
        "kind": DPD,
        "weights": [1, 1, 1],
        "lr": 1e-4,
        "opd_lr": 3e-4,
        "beta": 0.1,
        "then": OPD,
    },
}


class Arm:
    """Trains one arm of a seed within its budget of operations.

    Args:
        job: of the harness.
        seed: what its arms share.
    """

    def __init__(self, job: Job, seed: Seed):
        self.seed, self.settings, self.charges = seed, job.settings, job.charges
        self.name = f"arm-{job.arm.replace(' ', '-').replace(',', '')}-{job.key[:8]}"
        self.student, self.teacher = seed.shape("student"), seed.shape("teacher")
        self.length = round(seed.drawn("student")["mean_tokens"])  # of a sequence
        whole = Charges()
        whole.train("", self.student, job.settings["steps"] * STEP_TOKENS, self.length)
        self.budget = whole.total

    def weights(self) -> str:
        """The checkpoint after training."""
        kind = self.settings["kind"]
        if kind == "teacher":
            return self.seed.teacher
        if kind == "start":
            return self.seed.student
        if kind == SFT:
            return self.sft()
        if kind == DPD:
            then = self.settings.get("then")
            return self.opd(self.dpd(0.5), 1.0) if then == OPD else self.dpd(1.0)
        return self.opd(self.seed.student, 1.0)

    def steps(self, share: float, on_policy: bool = False) -> int:
        """As many steps as a share of the rest of the budget pays for; they are charged.

        Args:
            share: of what is left of the budget, when drawing and caching are paid, that these steps may spend.
            on_policy: the tokens of each step are drawn by the student, and read by the teacher.
        """
        one = Charges()
        self._charge(one, STEP_TOKENS, on_policy)
        number = int(share * (self.budget - self.charges.total) // one.total)
        if number < 1:
            raise ValueError(f"steps is invalid: {self.settings['steps']}; drawing and caching cost more: give more")
        self._charge(self.charges, number * STEP_TOKENS, on_policy)
        return number

    def _charge(self, charges: Charges, tokens: int, on_policy: bool) -> None:
        charges.train("steps", self.student, tokens, self.length)
        if on_policy:
            charges.forward("student draws on policy", self.student, tokens, self.length)
            charges.forward("teacher on policy", self.teacher, tokens, self.length)

    # -- algorithms ----------------------------------------------------------------------------------------------------

    def sft(self) -> str:
        """On conversations that were shown before, on chosen answers, or on the student's own right ones."""
        seed, which = self.seed, self.settings["rows"]
        if which == "chosen":
            seed.charge_drawing(self.charges, "student", "teacher")
        elif which == "own":
            seed.charge_drawing(self.charges, "student")
        rows = {
            "shown": lambda: seed.sft_rows,
            "chosen": lambda: [{"messages": [*pair["prompt"], *pair["chosen"]]} for pair in seed.pairs],
            "own": seed.own_right_rows,
        }[which]()
        steps = self.steps(1.0)
        return seed.sft(self.name, seed.student, rows, steps, self.settings["lr"])

    def dpd(self, share: float) -> str:
        """DPD with some of its terms."""
        from nbg_lightning import DPDModule, WarmupDecay

        seed, settings = self.seed, self.settings
        preference, positive, negative = settings["weights"]
        rows = seed.pairs
        if not preference and not negative:
            rows = [{**row, "rejected": [UNUSED]} for row in rows]
        if not preference and not positive:
            rows = [{**row, "chosen": [UNUSED]} for row in rows]
        seed.charge_drawing(self.charges, "student", *(["teacher"] if preference or positive else []))
        cache = self.cache(rows, bool(preference), bool(positive or negative))
        steps = self.steps(share)
        module = DPDModule(
            base_weights=seed.student,
            w_dpo=preference,
            w_pos=positive,
            w_neg=negative,
            beta=settings.get("beta", 0.1),
            **seed.options(),
        )
        data = self.pair_data(rows, steps, cache)
        return seed.fit(self.name, module, data, [WarmupDecay(settings["lr"], 0.1)])[0]

    def pair_data(self, rows: list[dict[str, Any]], steps: int, cache: str | None = None) -> Any:
        """Pairs for so many steps."""
        from nbg_lightning import PreferenceDataModule
        from nbg_lightning.data import PairList

        tokens = steps * STEP_TOKENS
        return PreferenceDataModule({"pairs": PairList(rows)}, tokens=tokens, cache=cache, **self.seed.data_options())

    def cache(self, rows: list[dict[str, Any]], reference: bool, teacher: bool) -> str:
        """What the teacher and the student before training say of the pairs, charged where it is used."""
        from nbg_lightning.teachers.build import build_cache
        from nbg_lightning.teachers.targets import FrozenModel

        def build() -> dict[str, Any]:
            data = self.pair_data(rows, 1)
            data.setup("fit")
            found = build_cache(
                data.sequences,
                FrozenModel(self.seed.teacher),
                FrozenModel(self.seed.student) if reference else None,
                self.seed.folder / f"{self.name}-cache",
                data.tokenizer.fingerprint,
                data.template_identity,
                VOCAB_SIZE,
                progress=False,
            )
            unique = {ids.tobytes(): len(ids) for ids, _ in data.sequences()}
            return {"folder": str(found.folder), "tokens": sum(unique.values())}

        found = self.seed.once(f"{self.name}-cache", build)
        if teacher:
            self.charges.forward("teacher's cache", self.teacher, found["tokens"], self.length)
        if reference:
            self.charges.forward("reference's cache", self.student, found["tokens"], self.length)
        return str(found["folder"])

    def opd(self, start: str, share: float) -> str:
        """On-policy distillation, by reverse KL."""
        from nbg_lightning import OPDModule, WarmupDecay

        seed = self.seed
        prompts = round(STEP_TOKENS / self.length / GROUP_SIZE)
        steps = self.steps(share, on_policy=True)
        module = OPDModule(
            seed.teacher,
            base_weights=start,
            group_size=GROUP_SIZE,
            max_new_tokens=MAX_NEW_TOKENS,
            **{**seed.options(), "micro_batch_tokens": 8192},
        )
        data = seed.prompts(seed.sums["pairs"], prompts, steps)
        lr = self.settings.get("opd_lr", self.settings["lr"])
        return seed.fit(f"{self.name}-opd", module, data, [WarmupDecay(lr, 0.1)])[0]

    # -- measuring -----------------------------------------------------------------------------------------------------

    def scores(self, name: str, weights: str) -> list[float]:
        """The share of right answers to each test question: four answers to each, at the temperature of the paper."""
        seed = self.seed
        asked = questions(seed.sums["validation" if seed.seed in TUNING_SEEDS else "test"])
        sampling = {"max_new_tokens": MAX_NEW_TOKENS, "temperature": 0.6, "top_p": 0.95, "n": 4}
        return seed.test(name, weights, {"sums": asked}, **sampling)["sums"]


def run(job: Job, kind: type[Arm] = Arm, seed_kind: type[Seed] = Seed) -> Mapping[str, Any]:
    """Train an arm, and ask the test questions."""
    seed = seed_kind(job.folder.parent, job.seed, job.settings)
    with folder_lock(seed.folder, "trains this student"):
        arm = kind(job, seed)
        scores = arm.scores(arm.name, arm.weights())
    return {"metrics": {"accuracy": sum(scores) / len(scores)}, "items": {"accuracy": scores}, "pairs": len(seed.pairs)}


def contrast(first: str, second: str) -> Contrast:
    """Of the one metric and budget."""
    return Contrast(first, second, "accuracy", "sums")


EXPERIMENT = Experiment(
    name="dpd_arms",
    question="At equal compute, does DPD raise the accuracy of a student at its plateau beyond SFT on the chosen answers?",
    metrics={"accuracy": Metric("right, % of the test sums, four answers to each", scale=100, digits=1)},
    arms=ARMS,
    budgets={"sums": Budget(SETTINGS, seeds=tuple(range(1, 13)))},
    primary=contrast("SFT on chosen", "joint"),
    secondary=(
        contrast("positive only", "both"),
        contrast("both", "joint"),
        contrast("SFT on chosen", "positive only"),
        contrast("SFT on chosen", "SFT on own right"),
        contrast("start", "more SFT"),
        contrast("start", "negative only"),
        contrast("start", "DPO"),
        contrast("joint", "OPD"),
        contrast("joint", "joint, then OPD"),
    ),
    tuning_seeds=TUNING_SEEDS,
    run=run,
)

if __name__ == "__main__":
    main(EXPERIMENT)
