"""Does DPD raise verified accuracy over SFT? A whole small recipe: pretraining, SFT, pairs, cache, DPD and its ablations.

    python benchmarks/science/dpd_small.py

The task is made here: sums of three digits, worked out in two steps in the reasoning, and the result as the answer.
Teacher and student come from this library's own stages: facts of addition as text (`PretrainModule`), then worked questions
(`SFTModule`); the teacher is larger and is trained for longer. Then, on questions that neither SFT nor the test has:

* `PairBuilder`: negatives from the SFT student, positives from the teacher, scored by `MathReward`;
* `build_cache`: the teacher's top-k distributions on both answers, and the reference's log-probs;
* `DPDModule`: joint, and the ablations of the paper's open question (token terms only, DPO only), all from the SFT student,
  on the same pairs, for the same number of steps. As controls, SFT on the chosen answers alone: for as many tokens as DPD has
  of both answers, and for as many as it has of chosen ones.

Each model answers the same test questions, greedily; differences to the SFT student are paired over questions, with a
bootstrap interval. The result is JSON; what was made stays in --folder, and a second run uses it again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VOCAB_SIZE = 280
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


# -- the task ----------------------------------------------------------------------------------------------------------


LEAST, FIRST = -9, range(-9, 19)  # of results, and of the number that a step begins with: two characters each


def step(total: int, sign: str, number: int) -> int:
    return total + number if sign == "+" else total - number


def facts(count: int, seed: int) -> list[str]:
    """Texts of forty steps each."""
    draw = random.Random(f"facts {seed}")

    def fact() -> str:
        while True:
            total, sign, number = draw.choice(FIRST), draw.choice("+-"), draw.randrange(10)
            if (result := step(total, sign, number)) >= LEAST:
                return f"{total:02d}{sign}{number}={result:02d}"

    return ["\n".join(fact() for _ in range(40)) for _ in range(count)]


def expressions(counts: dict[str, int], seed: int) -> dict[str, list[list[Any]]]:
    """Different sums of three digits for each purpose: number, sign, number, sign, number."""
    draw = random.Random(f"expressions {seed}")
    seen: set[tuple[Any, ...]] = set()
    found: dict[str, list[list[Any]]] = {}
    for name, count in counts.items():
        found[name] = []
        while len(found[name]) < count:
            made = [draw.randrange(10), draw.choice("+-"), draw.randrange(10), draw.choice("+-"), draw.randrange(10)]
            if tuple(made) not in seen and int(worked(made)[2]) >= LEAST:
                seen.add(tuple(made))
                found[name].append(made)
    return found


def worked(expression: list[Any]) -> tuple[str, str, str]:
    """Question, steps and answer."""
    total, steps = expression[0], []
    for sign, number in zip(expression[1::2], expression[2::2], strict=True):
        new = step(total, sign, number)
        steps.append(f"{total:02d}{sign}{number}={new:02d}")
        total = new
    return f"{''.join(map(str, expression))}=?", "\n".join(steps), f"{total:02d}"


def conversation(expression: list[Any]) -> dict[str, Any]:
    question, steps, answer = worked(expression)
    said = {"role": "assistant", "content": answer, "reasoning_content": steps}
    return {"messages": [{"role": "user", "content": question}, said]}


# -- stages ------------------------------------------------------------------------------------------------------------


class Experiment:
    """Everything in one folder; a stage whose result is there is not run again."""

    def __init__(self, arguments: argparse.Namespace):
        from nbg_lightning.data import train_bpe

        self.arguments, self.folder = arguments, arguments.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        counts = {"test": arguments.test, "pairs": arguments.questions, "sft": arguments.conversations}
        self.expressions = expressions(counts, arguments.seed)
        self.tokenizer = self.folder / "tokenizer"
        if not self.tokenizer.is_dir():
            texts = ["user\nassistant\n"] * 1000 + [" ".join(worked(each)) for each in self.expressions["sft"]]
            train_bpe(texts, VOCAB_SIZE, self.tokenizer)
        self.seconds: dict[str, float] = {}

    def fit(self, name: str, module: Any, data: Any, callback: Any) -> str:
        """Train, and return the checkpoint."""
        from nbg_lightning import StepCheckpoint, Trainer

        there = sorted((self.folder / name / "checkpoints").glob("step-*"))
        if there and (there[-1] / "meta.pt").is_file():
            return str(there[-1])
        begin = time.perf_counter()
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            default_root_dir=str(self.folder / name),
            logger=False,
            enable_progress_bar=False,
            limit_val_batches=0,
            callbacks=[callback, StepCheckpoint(keep=1)],
        )
        trainer.fit(module, datamodule=data)
        self.seconds[name] = time.perf_counter() - begin
        metrics = {key: round(float(value), 4) for key, value in trainer.callback_metrics.items() if "train/" in key}
        print(f"{name}: {trainer.global_step} steps, {self.seconds[name]:.0f} s, {metrics}", file=sys.stderr)
        return str(sorted((self.folder / name / "checkpoints").glob("step-*"))[-1])

    def _options(self) -> dict[str, Any]:
        from nbg_lightning import AdamWConfig, ParallelConfig

        return {
            "parallel": ParallelConfig(compute_dtype="float32"),
            "optimizer": AdamWConfig(weight_decay=0.0, betas=(0.9, 0.95)),
            "micro_batch_tokens": self.arguments.step_tokens,
            "seed": self.arguments.seed,
        }

    def base(self, name: str, shape: dict[str, int], steps: int) -> str:
        """Pretraining on facts."""
        from nbg_lightning import FGWSD, CurriculumDataModule, LanguageModelConfig, PretrainModule, Stage
        from nbg_lightning.data import InMemory, TokenizerConfig

        data = CurriculumDataModule(
            {"facts": InMemory(facts(4000, self.arguments.seed))},
            TokenizerConfig(str(self.tokenizer)),
            data_dir=str(self.folder / "data"),
            validation_fraction=0.0,
            num_workers=0,
            prepare_workers=0,
            seed=self.arguments.seed,
        )
        tokens = self.arguments.step_tokens
        stages = [
            Stage("warmup", tokens * max(1, steps // 10), [0.0, 3e-3], {"facts": 1.0}),
            Stage("stable", tokens * (steps - max(1, steps // 10)), [3e-3, 3e-4], {"facts": 1.0}),
        ]
        core = LanguageModelConfig(
            vocab_size=VOCAB_SIZE, head_dim=32, max_position_embeddings=512, initializer_range=0.06, **shape
        )
        return self.fit(f"{name}-base", PretrainModule(core, **self._options()), data, FGWSD(stages, tokens, 256))

    def sft(self, name: str, base: str, rows: list[dict[str, Any]], steps: int, lr: float) -> str:
        """SFT on conversations."""
        from nbg_lightning import ChatDataModule, SFTModule, WarmupDecay
        from nbg_lightning.data import ChatList

        data = ChatDataModule(
            {"chat": ChatList(rows)}, tokens=steps * self.arguments.step_tokens, **self._data_options()
        )
        return self.fit(name, SFTModule(base_weights=base, **self._options()), data, WarmupDecay(lr, 0.05))

    def _data_options(self) -> dict[str, Any]:
        return {
            "tokenizer": str(self.tokenizer),
            "sequence_length": 512,
            "tokens_per_step": self.arguments.step_tokens,
            "data_dir": str(self.folder / "data"),
            "validation_fraction": 0.0,
            "num_workers": 0,
            "prepare_workers": 0,
            "seed": self.arguments.seed,
        }

    def pairs(self, student: str, teacher: str) -> dict[str, Any]:
        """`nbg build-pairs`, in Python."""
        from nbg_lightning.construction.pairs import PairBuilder
        from nbg_lightning.construction.writers import WriterConfig
        from nbg_lightning.data import QuestionList
        from nbg_lightning.rewards.math import MathReward
        from nbg_lightning.rollout import LocalEngine

        rows = [worked(each) for each in self.expressions["pairs"]]
        questions = QuestionList([{"question": question, "answer": answer} for question, _, answer in rows])

        def writer(weights: str) -> WriterConfig:
            return WriterConfig(LocalEngine(weights), str(self.tokenizer), "nanbeige")

        begin = time.perf_counter()
        report = PairBuilder(
            str(self.folder / "pairs"),
            {"sums": questions},
            MathReward(find="number", workers=1),
            writer(student),
            writer(teacher),
            negatives=self.arguments.negatives,
            positives=2,
            max_new_tokens=80,
            pairs_per_question=2,
            questions_per_call=256,
            seed=self.arguments.seed,
        ).run()
        self.seconds["build_pairs"] = time.perf_counter() - begin
        return report

    def pair_data(self, cache: str | None) -> Any:
        from nbg_lightning import PreferenceDataModule
        from nbg_lightning.data import PairJsonLines

        source = PairJsonLines(str(self.folder / "pairs" / "pairs.jsonl"))
        tokens = self.arguments.dpd_steps * self.arguments.step_tokens
        return PreferenceDataModule({"pairs": source}, tokens=tokens, cache=cache, **self._data_options())

    def cache(self, student: str, teacher: str) -> Any:
        """`nbg build-cache`, in Python."""
        from nbg_lightning.teachers.build import build_cache
        from nbg_lightning.teachers.targets import FrozenModel

        data = self.pair_data(None)
        data.setup("fit")
        begin = time.perf_counter()
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
        self.seconds["build_cache"] = time.perf_counter() - begin
        return found

    def dpd(self, arm: str, student: str, cache: str) -> str:
        """DPD or an ablation of it, from the SFT student."""
        from nbg_lightning import DPDModule, WarmupDecay

        lr = self.arguments.dpd_lr * LR_FACTOR.get(arm, 1.0)
        module = DPDModule(base_weights=student, beta=self.arguments.beta, **ARMS[arm], **self._options())
        return self.fit(arm, module, self.pair_data(cache), WarmupDecay(lr, 0.1))

    def chosen_rows(self) -> list[dict[str, Any]]:
        lines = (self.folder / "pairs" / "pairs.jsonl").read_text("utf-8").splitlines()
        return [{"messages": [*row["prompt"], *row["chosen"]]} for row in map(json.loads, lines)]

    def test(self, name: str, weights: str) -> Any:
        """Verified accuracy on the test questions, greedily."""
        from nbg_lightning.data.tokenizer import Tokenizer
        from nbg_lightning.evaluation import Questions, Suite
        from nbg_lightning.rollout import LocalEngine, Sampling

        file = self.folder / "test.jsonl"
        rows = [worked(each) for each in self.expressions["test"]]
        file.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, _, a in rows))
        suite = Suite(
            [Questions(path=str(file), scorer="number", name="sums")],
            name="sums",
            format="nanbeige",
            sampling=Sampling(max_new_tokens=80, temperature=0.0),
        )
        with LocalEngine(weights) as engine:
            return suite.run(engine, Tokenizer(self.tokenizer), None, self.folder / "results", name, weights)

    def run(self) -> dict[str, Any]:
        from nbg_lightning.evaluation.compare import compare

        arguments = self.arguments
        rows = [conversation(each) for each in self.expressions["sft"]]
        teacher = self.base("teacher", TEACHER, arguments.teacher_steps)
        teacher = self.sft("teacher-sft", teacher, rows, arguments.teacher_sft_steps, 2e-3)
        student = self.base("student", STUDENT, arguments.student_steps)
        student = self.sft("student-sft", student, rows, arguments.student_sft_steps, 2e-3)
        report = self.pairs(student, teacher)
        cache = self.cache(student, teacher)
        models = {"teacher": teacher, "sft": student}
        for arm in ARMS:
            models[arm] = self.dpd(arm, student, str(cache.folder))
        for name, steps in (("equal_compute", arguments.dpd_steps), ("equal_answers", arguments.dpd_steps // 2)):
            models[f"sft_on_chosen_{name}"] = self.sft(
                f"sft-on-chosen-{name}", student, self.chosen_rows(), steps, arguments.dpd_lr
            )
        results = {name: self.test(name, weights) for name, weights in models.items()}
        accuracy, over_sft = {}, {}
        for name, result in results.items():
            interval = result["sums"].intervals["accuracy"]
            accuracy[name] = {"value": result["sums"].value, "low": interval.low, "high": interval.high}
            if name not in ("sft", "teacher"):
                paired = compare(results["sft"], result)[0].paired
                over_sft[name] = {
                    "difference": paired.difference,
                    "low": paired.interval.low,
                    "high": paired.interval.high,
                    "p_value": paired.p_value,
                    "gained": paired.wins,
                    "lost": paired.losses,
                    "items": paired.items,
                }
        return {
            "accuracy": accuracy,
            "over_sft": over_sft,
            "pairs": {key: report[key] for key in ("questions", "pairs", "questions_with_pairs", "mean_score")},
            "cache_bytes_per_token": cache.bytes_per_token,
            "cache_tokens": cache.num_tokens,
            "seconds": self.seconds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/dpd-small"))
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import logging

    import torch

    torch.set_num_threads(arguments.threads)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    sys.path.insert(0, str(HERE.parent / "performance"))
    import paired

    paired.RESULTS = HERE / "results"
    begin = time.perf_counter(), time.process_time()
    results = Experiment(arguments).run()
    settings = {k: str(v) for k, v in vars(arguments).items() if k != "folder"}
    results["seconds"] |= {"all": time.perf_counter() - begin[0], "all_processor": time.process_time() - begin[1]}
    paired.write_result(
        "dpd_small", {**settings, "student": STUDENT, "teacher": TEACHER, "arms": ARMS, "lr_factor": LR_FACTOR}, results
    )


if __name__ == "__main__":
    main()
