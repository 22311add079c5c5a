"""Does DPD raise verified accuracy over SFT? A whole small recipe: pretraining, SFT, pairs, cache, DPD and its ablations.

    python benchmarks/science/dpd_small.py --seeds 1 2 3

The task is that of `stages.py`: sums of three digits, worked out in two steps in the reasoning, and the result as the answer.
Teacher and student come from this library's own stages: facts of addition as text (`PretrainModule`), then worked questions
(`SFTModule`); the teacher is larger and is trained for longer. Then, on questions that neither SFT nor the test has:

* `PairBuilder`: negatives from the SFT student, positives from the teacher, scored by `MathReward`;
* `build_cache`: the teacher's top-k distributions on both answers, and the reference's log-probs;
* `DPDModule`: joint, and the ablations of the paper's open question (token terms only, DPO only), all from the SFT student,
  on the same pairs, for the same number of steps. As controls, SFT on the chosen answers alone: for as many tokens as DPD has
  of both answers, and for as many as it has of chosen ones.

A seed determines everything, from the questions to the models. Each model answers its seed's test questions, greedily;
differences are paired, over seeds and over the questions of all seeds (t intervals). The result is JSON; what was
made stays in --folder, and a stage that is done is not run again, so seeds may be run by several processes, and together by a
last call. Learning rates were chosen with seed 0, whose test questions were seen in that: other seeds are fresh.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from seeds import over_questions, quiet, told, write_result
from stages import VOCAB_SIZE, Stages, conversations, draw_sums, questions, texts

STUDENT = dict(hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1)
TEACHER = dict(
    hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2
)
ARMS = {
    "dpd_joint": dict(w_dpo=1.0, w_pos=1.0, w_neg=1.0),
    "token_terms_only": dict(w_dpo=0.0, w_pos=1.0, w_neg=1.0),
    "dpo_only": dict(w_dpo=1.0, w_pos=0.0, w_neg=0.0),
}
LR_FACTOR = {"dpo_only": 0.1}  # nothing holds its answers up: at the others' learning rate it forgets how to answer
MODELS = ("teacher", "sft", *ARMS, "sft_on_chosen_equal_compute", "sft_on_chosen_equal_answers")
COMPARED = (  # first, second: what the second gains
    *(("sft", name) for name in MODELS[2:]),
    ("token_terms_only", "dpd_joint"),
    ("sft_on_chosen_equal_answers", "dpd_joint"),
    ("sft_on_chosen_equal_compute", "dpd_joint"),
)


class Experiment(Stages):
    """All models of one seed."""

    def __init__(self, arguments: argparse.Namespace, seed: int):
        self.arguments = arguments
        counts = {"test": arguments.test, "pairs": arguments.questions, "sft": arguments.conversations}
        self.sums = draw_sums(counts, seed)
        super().__init__(arguments.folder / f"seed-{seed}", seed, arguments.step_tokens, texts(self.sums["sft"]))

    def pairs(self, student: str, teacher: str) -> dict[str, Any]:
        """`nbg build-pairs`, in Python."""
        from nbg_lightning.construction.chat_models import ChatModelConfig
        from nbg_lightning.construction.pairs.builder import PairBuilder
        from nbg_lightning.data import QuestionList
        from nbg_lightning.engines import LocalEngine
        from nbg_lightning.rewards.math import MathReward

        def chat_model(weights: str) -> ChatModelConfig:
            return ChatModelConfig(LocalEngine(weights), str(self.tokenizer), "nanbeige")

        builder = PairBuilder(
            out=str(self.folder / "pairs"),
            questions={"sums": QuestionList(questions(self.sums["pairs"]))},
            reward=MathReward(find="number", workers=1),
            student=chat_model(student),
            teacher=chat_model(teacher),
            negatives=self.arguments.negatives,
            positives=2,
            max_new_tokens=80,
            pairs_per_question=2,
            questions_per_call=256,
            seed=self.seed,
        )
        return self.once("build-pairs", builder.run)

    def pair_data(self, cache: str | None) -> Any:
        from nbg_lightning import PreferenceDataModule
        from nbg_lightning.data import PairJsonLines

        source = PairJsonLines(str(self.folder / "pairs" / "pairs.jsonl"))
        tokens = self.arguments.dpd_steps * self.step_tokens
        return PreferenceDataModule({"pairs": source}, tokens=tokens, cache=cache, **self.data_options())

    def cache(self, student: str, teacher: str) -> dict[str, Any]:
        """`nbg build-cache`, in Python."""
        from nbg_lightning.teachers.build import build_cache
        from nbg_lightning.teachers.targets import FrozenModel

        def build() -> dict[str, Any]:
            data = self.pair_data(None)
            data.setup("fit")
            found = build_cache(
                data.sequences,
                FrozenModel(teacher),
                FrozenModel(student),
                self.folder / "cache",
                data.tokenizer.fingerprint,
                data.template_identity,
                VOCAB_SIZE,
                k=self.arguments.k,
            )
            return {
                "folder": str(found.folder),
                "tokens": found.num_tokens,
                "bytes_per_token": found.bytes_per_token,
            }

        return self.once("build-cache", build)

    def dpd(self, arm: str, student: str, cache: str) -> str:
        """DPD or an ablation of it, from the SFT student."""
        from nbg_lightning import DPDModule, WarmupDecay

        lr = self.arguments.dpd_lr * LR_FACTOR.get(arm, 1.0)
        module = DPDModule(base_weights=student, beta=self.arguments.beta, **ARMS[arm], **self.options())
        return self.fit(arm, module, self.pair_data(cache), [WarmupDecay(lr, 0.1)])[0]

    def chosen_rows(self) -> list[dict[str, Any]]:
        lines = (self.folder / "pairs" / "pairs.jsonl").read_text("utf-8").splitlines()
        return [{"messages": [*row["prompt"], *row["chosen"]]} for row in map(json.loads, lines)]

    def student(self) -> str:
        """The student after SFT."""
        rows, arguments = conversations(self.sums["sft"]), self.arguments
        base = self.base("student-base", STUDENT, arguments.student_steps)
        return self.sft("sft", base, rows, arguments.student_sft_steps, 2e-3)

    def teacher(self) -> str:
        """The teacher after SFT."""
        rows, arguments = conversations(self.sums["sft"]), self.arguments
        base = self.base("teacher-base", TEACHER, arguments.teacher_steps)
        return self.sft("teacher", base, rows, arguments.teacher_sft_steps, 2e-3)

    def tests(self) -> dict[str, list[dict[str, str]]]:
        """The test questions."""
        return {"sums": questions(self.sums["test"])}

    def run(self) -> dict[str, Any]:
        """Scores of the test questions by model, and the other results of a seed."""
        arguments = self.arguments
        teacher, student = self.teacher(), self.student()
        report = self.pairs(student, teacher)
        cache = self.cache(student, teacher)
        models = {"teacher": teacher, "sft": student}
        for arm in ARMS:
            models[arm] = self.dpd(arm, student, cache["folder"])
        for name, steps in (("equal_compute", arguments.dpd_steps), ("equal_answers", arguments.dpd_steps // 2)):
            name = f"sft_on_chosen_{name}"
            models[name] = self.sft(name, student, self.chosen_rows(), steps, arguments.dpd_lr)
        return {
            "scores": {
                name: self.test(name, weights, self.tests(), max_new_tokens=80, temperature=0.0)["sums"]
                for name, weights in models.items()
            },
            "pairs": {key: report[key] for key in ("questions", "pairs", "questions_with_pairs", "mean_score")},
            "cache": {"tokens": cache["tokens"], "bytes_per_token": cache["bytes_per_token"]},
            "seconds": self.seconds,
        }


def options(description: str | None) -> argparse.ArgumentParser:
    """Of this experiment, and of those that begin with its models."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/dpd-small"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--test", type=int, default=400, help="test questions")
    parser.add_argument("--questions", type=int, default=800, help="questions for pairs")
    parser.add_argument("--conversations", type=int, default=2000, help="conversations of SFT")
    parser.add_argument("--step-tokens", type=int, default=1024)
    parser.add_argument("--teacher-steps", type=int, default=500)
    parser.add_argument("--teacher-sft-steps", type=int, default=700)
    parser.add_argument("--student-steps", type=int, default=400)
    parser.add_argument("--student-sft-steps", type=int, default=250)
    parser.add_argument("--dpd-steps", type=int, default=500)
    parser.add_argument("--dpd-lr", type=float, default=1e-3)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--negatives", type=int, default=4)
    parser.add_argument("-k", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main() -> None:
    arguments = options(__doc__).parse_args()
    quiet(arguments.threads)
    runs = {seed: Experiment(arguments, seed).run() for seed in arguments.seeds}
    scores = {name: [run["scores"][name] for run in runs.values()] for name in MODELS}
    comparisons = {f"{second} - {first}": over_questions(scores[first], scores[second]) for first, second in COMPARED}
    results = {
        "accuracy_by_seed": {name: [statistics.mean(own) for own in of_seeds] for name, of_seeds in scores.items()},
        "comparisons": comparisons,
        "pairs": {seed: run["pairs"] for seed, run in runs.items()},
        "cache": {seed: run["cache"] for seed, run in runs.items()},
        "processor_seconds": {seed: run["seconds"] for seed, run in runs.items()},
        "processor_seconds_in_all": sum(sum(run["seconds"].values()) for run in runs.values()),
    }
    settings = {name: value for name, value in vars(arguments).items() if name != "folder"}
    write_result(
        "dpd_small",
        {**settings, "student": STUDENT, "teacher": TEACHER, "arms": ARMS, "lr_factor": LR_FACTOR},
        results,
    )
    for name, found in comparisons.items():
        print(f"{name}: {told(found)}")


if __name__ == "__main__":
    main()
