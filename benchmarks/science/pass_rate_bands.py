"""Which questions should GRPO be trained on? The same SFT model, trained on all questions and within three bands of pass rate.

    python benchmarks/science/pass_rate_bands.py --seeds 1 2 3

The task is that of `stages.py`, with sums of three to eight digits, so that the SFT model solves some questions always, some
never and some now and then. For each seed: pretraining on facts, SFT, one ledger of pass rates (16 answers a question, as `nbg
pass-rate` draws them), and GRPO from the same weights for as many steps with each band: none, 5 to 95 %, 10 to 90 % (the paper)
and 20 to 80 %, strictly inside. Then each model answers the same test questions of all lengths, drawn as the paper evaluates
(temperature 0.6, top-p 0.95, avg@4).

A seed draws everything anew, from the questions to the models. Differences are paired, over seeds (t interval) and over the
questions of all seeds (bootstrap). A stage that is done is not run again, so seeds may be run by several processes, and together
by a last call. Settings were chosen with seed 0.
"""

from __future__ import annotations

import argparse
import statistics
from itertools import combinations
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from seeds import over_questions, quiet, told, write_result
from stages import Stages, conversations, draw_sums, questions, texts

MODEL = dict(hidden_size=128, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
BANDS: dict[str, tuple[float, float] | None] = {
    "none": None,
    "5-95": (0.05, 0.95),
    "10-90": (0.1, 0.9),
    "20-80": (0.2, 0.8),
}
DIGITS = (3, 4, 5, 6, 8)  # of a question; a source each
SFT_DIGITS = (3, 4, 5, 6)  # SFT has seen no longer ones


class Steps(pl.Callback):
    """Keeps some metrics of every step."""

    names = ("pass_rate/mean", "rollout/zero_variance", "rollout/length", "rollout/truncated", "policy/entropy")

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.rows.append({name: float(trainer.callback_metrics[name]) for name in self.names})


class Experiment(Stages):
    """All models of one seed."""

    def __init__(self, arguments: argparse.Namespace, seed: int):
        self.arguments = arguments
        counts = {"test": arguments.test, "grpo": arguments.questions, "sft": arguments.conversations}
        self.sums = {digits: draw_sums(counts, seed, digits) for digits in DIGITS}
        self.trained = [each for digits in SFT_DIGITS for each in self.sums[digits]["sft"]]
        super().__init__(arguments.folder / f"seed-{seed}", seed, arguments.step_tokens, texts(self.trained))

    def data(self, band: str) -> Any:
        """The questions within a band."""
        from nbg_lightning import PromptDataModule
        from nbg_lightning.data import QuestionList
        from nbg_lightning.rollout import PassRateBand

        bounds = BANDS[band]
        filtered = {} if bounds is None else {"ledger": str(self.ledger_file), "pass_rate": PassRateBand(*bounds)}
        return PromptDataModule(
            {f"sums-{digits}": QuestionList(questions(self.sums[digits]["grpo"])) for digits in DIGITS},
            str(self.tokenizer),
            self.arguments.prompts_per_step,
            steps=self.arguments.steps,
            data_dir=str(self.folder / "data"),
            seed=self.seed,
            **filtered,
        )

    @property
    def ledger_file(self) -> Path:
        return self.folder / "pass_rate.parquet"

    def reward(self) -> Any:
        from nbg_lightning.rewards.math import MathReward

        return MathReward(find="number", workers=1)

    def ledger(self, weights: str) -> dict[str, Any]:
        """`nbg pass-rate`, in Python."""
        from nbg_lightning.rollout import LocalEngine, PassRateBand, Sampling
        from nbg_lightning.rollout.chat import Writer
        from nbg_lightning.rollout.pass_rate import PassRateFilter

        def measure() -> dict[str, Any]:
            data = self.data("none")
            asked = data.load_questions()
            sampling = Sampling(max_new_tokens=self.arguments.max_new_tokens, n=self.arguments.n, seed=self.seed)
            with self.reward() as reward, LocalEngine(weights) as engine:
                rates = PassRateFilter(
                    Writer(engine, data.tokenizer, data.template),
                    reward,
                    sampling,
                    self.ledger_file,
                    {"weights": weights},
                    progress=False,
                )
                ledger = rates.run([question for own in asked.values() for question in own])
            assert ledger is not None
            return {
                "histogram": dict(ledger.histogram().bins()),
                "pass_rate": {
                    name: statistics.mean(ledger.rows[question.key].rate for question in own)
                    for name, own in asked.items()
                },
                "kept": {
                    band: sum(bounds is None or row.rate in PassRateBand(*bounds) for row in ledger)
                    for band, bounds in BANDS.items()
                },
                "answers": sum(row.n for row in ledger),
                "tokens": round(sum(row.n * row.mean_length for row in ledger)),
            }

        return self.once("pass-rate", measure)

    def grpo(self, band: str, weights: str) -> tuple[str, dict[str, Any]]:
        """GRPO on a band's questions; the checkpoint and what the steps were like."""
        from nbg_lightning import GRPOModule, SampleTable, Sentinel, WarmupDecay

        arguments, steps = self.arguments, Steps()
        module = GRPOModule(
            self.reward(),
            base_weights=weights,
            group_size=arguments.group_size,
            max_new_tokens=arguments.max_new_tokens,
            **{**self.options(), "micro_batch_tokens": 8192},
        )
        watching = [Sentinel(stop=()), SampleTable(every_n_steps=arguments.steps)]  # every arm takes all steps
        callbacks = [WarmupDecay(arguments.lr, 0.1), *watching, steps]
        data = self.data(band)
        answers = arguments.prompts_per_step * arguments.group_size

        def summary() -> dict[str, Any]:
            return {
                **{metric: [row[metric] for row in steps.rows] for metric in Steps.names},
                "tokens": round(sum(row["rollout/length"] for row in steps.rows) * answers),
                "answers": answers * len(steps.rows),
            }

        return self.fit(f"grpo-{band}", module, data, callbacks, summary)

    def run(self) -> dict[str, Any]:
        """Scores of the test questions by model, and what else is told of a seed."""
        arguments = self.arguments
        base = self.base("base", MODEL, arguments.base_steps)
        sft = self.sft("sft", base, conversations(self.trained), arguments.sft_steps, 2e-3)
        ledger = self.ledger(sft)
        models, steps = {"sft": sft}, {}
        for band in BANDS:
            models[band], steps[band] = self.grpo(band, sft)
        tests = {f"sums-{digits}": questions(self.sums[digits]["test"]) for digits in DIGITS}
        sampling = dict(max_new_tokens=arguments.max_new_tokens, temperature=0.6, top_p=0.95, n=4, seed=self.seed)
        scores = {name: self.test(name, weights, tests, **sampling) for name, weights in models.items()}
        return {"scores": scores, "ledger": ledger, "steps": steps, "seconds": self.seconds}


def gathered(runs: dict[int, dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """The seeds' runs as one result."""
    names = ["sft", *BANDS]

    def scores(model: str, digits: tuple[int, ...]) -> list[list[float]]:
        return [[s for d in digits for s in run["scores"][model][f"sums-{d}"]] for run in runs.values()]

    pairs = [("sft", band) for band in BANDS] + list(combinations(BANDS, 2))
    whole = {name: scores(name, DIGITS) for name in names}
    learning = {
        band: {
            metric: [
                statistics.mean(run["steps"][band][metric][step] for run in runs.values())
                for step in range(arguments.steps)
            ]
            for metric in Steps.names
        }
        for band in BANDS
    }
    return {
        "accuracy_by_seed": {name: [statistics.mean(own) for own in whole[name]] for name in names},
        "accuracy_by_digits": {
            name: {d: statistics.mean(s for own in scores(name, (d,)) for s in own) for d in DIGITS} for name in names
        },
        "comparisons": {f"{second} - {first}": over_questions(whole[first], whole[second]) for first, second in pairs},
        "ledger": {seed: run["ledger"] for seed, run in runs.items()},
        "grpo": {
            band: {
                "questions_by_seed": [run["ledger"]["kept"][band] for run in runs.values()],
                "zero_variance": statistics.mean(learning[band]["rollout/zero_variance"]),
                "tokens_by_seed": [run["steps"][band]["tokens"] for run in runs.values()],
                "answers_of_a_run": next(iter(runs.values()))["steps"][band]["answers"],
            }
            for band in BANDS
        },
        "steps_mean_over_seeds": learning,
        "seconds": {seed: run["seconds"] for seed, run in runs.items()},
        "seconds_in_all": sum(sum(run["seconds"].values()) for run in runs.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/pass-rate-bands"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--test", type=int, default=100, help="test questions of a length")
    parser.add_argument("--questions", type=int, default=300, help="questions of a length for GRPO")
    parser.add_argument("--conversations", type=int, default=1000, help="conversations of a length for SFT")
    parser.add_argument("--step-tokens", type=int, default=1024)
    parser.add_argument("--base-steps", type=int, default=500)
    parser.add_argument("--sft-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=60, help="of GRPO")
    parser.add_argument("--prompts-per-step", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=80)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--n", type=int, default=16, help="answers a question, of the ledger")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    quiet(arguments.threads)
    runs = {seed: Experiment(arguments, seed).run() for seed in arguments.seeds}
    results = gathered(runs, arguments)
    settings = {name: value for name, value in vars(arguments).items() if name != "folder"}
    settings |= {"model": MODEL, "bands": BANDS, "digits": DIGITS, "sft_digits": SFT_DIGITS}
    write_result("pass_rate_bands", settings, results)
    for name, found in results["comparisons"].items():
        print(f"{name}: {told(found)}")


if __name__ == "__main__":
    main()
