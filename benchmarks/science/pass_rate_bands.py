"""Which questions should GRPO be trained on? One model, trained on all questions and within three bands of pass rate.

    python benchmarks/science/pass_rate_bands.py --seeds 1 2 3

The task is that of `stages.py`: sums of three digits. A right answer is rewarded if it is announced ("The answer is 07."), as
`MathReward` requires by default. SFT shows both ways of answering: sums that begin with an addition are always announced, those
with a subtraction and an addition half of the time, those with two subtractions once in twenty. Some questions are therefore
solved always, some occasionally, and some hardly ever, for lack of skill or of the announcement.

As in the paper, the previous stage's model generates 16 answers to each question, once, as in `nbg pass-rate`; then GRPO runs
from the same weights for the same number of steps with each band: none, 5 to 95 %, 10 to 90 % (the paper) and 20 to 80 %,
strictly inside. Each model then answers the test questions four times, at temperature 1, scored by the same reward.

A seed determines everything, from the questions to the models. Differences are paired, over seeds (t interval) and over the
questions of all seeds (t interval). Finished stages are not repeated, so several processes can run seeds, and a last call
combines them.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from seeds import over_questions, quiet, told, write_result
from stages import Stages, Steps, conversations, draw_sums, texts

MODEL = dict(hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1)
ANNOUNCED = {"++": 1.0, "+-": 1.0, "-+": 0.5, "--": 0.05}  # share of announced answers in SFT, by the signs of a sum

BANDS: dict[str, tuple[float, float] | None] = {
    "none": None,
    "5-95": (0.05, 0.95),
    "10-90": (0.1, 0.9),
    "20-80": (0.2, 0.8),
}
START = "sft"
LEDGER = "pass_rate.parquet"


def announces(each: Any, draw: random.Random) -> bool:
    """Whether a sum announces its answer in SFT: the more often, the more pluses it has."""
    return draw.random() < ANNOUNCED["".join(sign for sign, _ in each.then)]


def partly_announced(sums: Sequence[Any], seed: int) -> list[dict[str, Any]]:
    """Conversations of the sums, of which some announce their answer."""
    draw = random.Random(f"announced {seed}")
    rows = conversations(sums)
    for row, each in zip(rows, sums, strict=True):
        if announces(each, draw):
            row["messages"][1]["content"] = f"The answer is {each.answer}."
    return rows


class Experiment(Stages):
    """All models of one seed."""

    def __init__(self, arguments: argparse.Namespace, seed: int):
        self.arguments = arguments
        counts = {"test": arguments.test, "rl": arguments.questions, "sft": arguments.conversations}
        self.sums = draw_sums(counts, seed)
        words = [*texts(self.sums["sft"]), *["The answer is 07."] * 1000]
        super().__init__(arguments.folder / f"seed-{seed}", seed, arguments.step_tokens, words)

    def start(self) -> str:
        """The SFT model, which announces some answers."""
        rows = partly_announced(self.sums["sft"], self.seed)
        base = self.base("base", MODEL, self.arguments.base_steps)
        return self.sft("sft", base, rows, self.arguments.sft_steps, 2e-3)

    def data(self, band: str, purpose: str = "rl") -> Any:
        """The questions of a purpose within a band."""
        from nbg_lightning.rl import PassRateBand

        bounds = BANDS[band]
        ledger = str(self.folder / "pass-rate" / LEDGER)
        filtered = {} if bounds is None else {"ledger": ledger, "pass_rate": PassRateBand(*bounds)}
        steps = self.arguments.rl_steps
        return self.prompts(self.sums[purpose], self.arguments.prompts_per_step, steps, **filtered)

    def reward(self) -> Any:
        from nbg_lightning.rewards.math import MathReward

        return MathReward(workers=1)

    def pass_rates(self, name: str, weights: str, purpose: str, n: int) -> dict[str, Any]:
        """`nbg pass-rate`, in Python; how often each question is solved."""
        from nbg_lightning.rl import PassRateBand

        def measure() -> dict[str, Any]:
            file, data = self.folder / name / LEDGER, self.data("none", purpose)
            asked, ledger = self.pass_rate_ledger(file, data, self.reward(), weights, self.arguments.max_new_tokens, n)
            return {
                "rates": [ledger.rows[question.key].rate for question in asked],
                "histogram": dict(ledger.histogram().bins()),
                "kept": {
                    band: sum(bounds is None or row.rate in PassRateBand(*bounds) for row in ledger)
                    for band, bounds in BANDS.items()
                },
                "tokens": round(sum(row.n * row.mean_length for row in ledger)),
            }

        return self.once(name, measure)

    def grpo(self, band: str, weights: str) -> tuple[str, dict[str, Any]]:
        """GRPO on a band's questions; the checkpoint and what the steps were like."""
        from nbg_lightning import GRPOModule

        arguments = self.arguments
        module = GRPOModule(
            self.reward(),
            base_weights=weights,
            group_size=arguments.group_size,
            max_new_tokens=arguments.max_new_tokens,
            **{**self.options(), "micro_batch_tokens": 8192},
        )
        return self.reinforce(f"grpo-{band}", module, self.data(band), arguments.rl_lr, arguments.rl_lr / 4)

    def run(self) -> dict[str, Any]:
        """Scores of the test questions by model, and the other results of a seed."""
        start = self.start()
        ledger = self.pass_rates("pass-rate", start, "rl", self.arguments.n)
        models, steps = {START: start}, {}
        for band in BANDS:
            models[band], steps[band] = self.grpo(band, start)
        scores = {name: self.pass_rates(f"test-{name}", own, "test", 4)["rates"] for name, own in models.items()}
        kept = {name: value for name, value in ledger.items() if name != "rates"}
        return {"scores": scores, "ledger": kept, "steps": steps, "seconds": self.seconds}


def gathered(runs: dict[int, dict[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """The seeds' runs as one result."""
    names = [START, *BANDS]
    pairs = [(START, band) for band in BANDS] + list(combinations(BANDS, 2))
    scores = {name: [run["scores"][name] for run in runs.values()] for name in names}
    learning = {
        band: {
            metric: [
                statistics.mean(run["steps"][band][metric][step] for run in runs.values())
                for step in range(arguments.rl_steps)
            ]
            for metric in Steps.names
        }
        for band in BANDS
    }
    return {
        "accuracy_by_seed": {name: [statistics.mean(own) for own in scores[name]] for name in names},
        "comparisons": {
            f"{second} - {first}": over_questions(scores[first], scores[second]) for first, second in pairs
        },
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
        "processor_seconds": {seed: run["seconds"] for seed, run in runs.items()},
        "processor_seconds_in_all": sum(sum(run["seconds"].values()) for run in runs.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/pass-rate-bands"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--test", type=int, default=400, help="number of test questions")
    parser.add_argument("--questions", type=int, default=800, help="number of questions for GRPO")
    parser.add_argument("--conversations", type=int, default=2000, help="number of SFT conversations")
    parser.add_argument("--step-tokens", type=int, default=1024)
    parser.add_argument("--base-steps", type=int, default=400)
    parser.add_argument("--sft-steps", type=int, default=900)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rl-steps", type=int, default=80)
    parser.add_argument("--prompts-per-step", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--rl-lr", type=float, default=1e-4)
    parser.add_argument("--n", type=int, default=16, help="answers per question in the ledger")
    arguments = parser.parse_args()
    quiet(arguments.threads)
    runs = {seed: Experiment(arguments, seed).run() for seed in arguments.seeds}
    results = gathered(runs, arguments)
    settings = {name: value for name, value in vars(arguments).items() if name != "folder"}
    settings |= {"model": MODEL, "announced": ANNOUNCED, "bands": BANDS}
    write_result("pass_rate_bands", settings, results)
    for name, found in results["comparisons"].items():
        print(f"{name}: {told(found)}")


if __name__ == "__main__":
    main()
