"""Are right answers shorter under `LengthBudgetReward`, and as often right? One model, trained with the budget and without.

    python benchmarks/science/length_control.py --seeds 1 2 3 4 5
    python benchmarks/science/length_control.py --quantile 0.5 --name length_control_median --folder runs/length-control-median

The task is that of `stages.py` with sums of two digits, worked out in the reasoning. There are 200 of them, of which SFT shows
100 many times, so that the model knows most; in a conversation the sum is worked out one to four times, with equal frequency, so
that a right answer may be short or long and no reward favours either. A lower bound is reported too: the mean over questions of
the shortest right answer sampled from the SFT model. Budgets are derived from the SFT model's own right answers, sampled by
`nbg pass-rate`. Then GRPO runs from the same weights for the same number of steps, with the reward alone and with the budget.
Each model answers the test questions four times, at temperature 1.

A seed determines everything, from the questions to the models. Differences are paired, over seeds and over the questions of
all seeds (t intervals). Finished stages are not repeated, so several processes can run seeds, and a last call combines
them.
"""

from __future__ import annotations

import argparse
import random
import statistics
from pathlib import Path
from typing import Any

from seeds import over_questions, over_seeds, quiet, told, write_result
from stages import Stages, conversations, draw_sums, texts

MODEL = dict(hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1)
ARMS = ("reward_alone", "length_budget")
LEDGER = "pass_rate.parquet"


class Experiment(Stages):
    """All models of one seed."""

    def __init__(self, arguments: argparse.Namespace, seed: int):
        self.arguments = arguments
        self.sums = draw_sums({"test": arguments.test, "rl": arguments.questions}, seed, digits=2)
        self.sums["sft"] = [each for purpose in ("test", "rl") for each in self.sums[purpose]] * arguments.copies
        super().__init__(arguments.folder / f"seed-{seed}", seed, arguments.step_tokens, texts(self.sums["sft"]))

    def start(self) -> str:
        """The SFT model, which works sums out several times over."""
        draw = random.Random(f"rounds {self.seed}")
        rows = conversations(self.sums["sft"])
        for row in rows:
            answer = row["messages"][1]
            rounds = draw.randint(1, self.arguments.rounds)
            lines = answer["reasoning_content"].split("\n")
            answer["reasoning_content"] = "\n".join(line for line in lines for _ in range(rounds))
        base = self.base("base", MODEL, self.arguments.base_steps)
        return self.sft("sft", base, rows, self.arguments.sft_steps, 2e-3)

    def data(self, purpose: str = "rl") -> Any:
        """The questions of a purpose."""
        return self.prompts(self.sums[purpose], self.arguments.prompts_per_step, self.arguments.rl_steps)

    def answers(self, name: str, weights: str, purpose: str, n: int) -> dict[str, Any]:
        """`nbg pass-rate`, in Python: how often each question is solved, and how long answers are."""
        from nbg_lightning.rewards.math import MathReward

        def measure() -> dict[str, Any]:
            file, reward = self.folder / name / LEDGER, MathReward(find="number", workers=1)
            data, longest = self.data(purpose), self.arguments.max_new_tokens
            asked, ledger = self.pass_rate_ledger(file, data, reward, weights, longest, n)
            rows = [ledger.rows[question.key] for question in asked]
            return {
                "rates": [row.rate for row in rows],
                "lengths": [row.mean_length for row in rows],
                "shortest": [row.right_lengths[0] for row in rows if row.right_lengths],
            }

        return self.once(name, measure)

    def grpo(self, arm: str, weights: str) -> str:
        """GRPO with an arm's reward."""
        from nbg_lightning import GRPOModule, SampleTable, Sentinel, WarmupDecay
        from nbg_lightning.rewards.math import MathReward
        from nbg_lightning.rl import LengthBudgetReward

        arguments = self.arguments
        reward: Any = MathReward(find="number", workers=1)
        if arm == "length_budget":
            reward = LengthBudgetReward(
                reward,
                str(self.folder / "ledger" / LEDGER),
                arguments.max_new_tokens,
                alpha=arguments.alpha,
                quantile=arguments.quantile,
                constrained_steps=arguments.constrained_steps,
                free_steps=arguments.free_steps,
            )
        module = GRPOModule(
            reward,
            base_weights=weights,
            group_size=arguments.group_size,
            max_new_tokens=arguments.max_new_tokens,
            **{**self.options(), "micro_batch_tokens": 8192},
        )
        callbacks = [
            WarmupDecay(arguments.rl_lr, 0.1, final_lr=arguments.rl_lr / 4),
            Sentinel(stop=()),  # every arm takes all steps
            SampleTable(every_n_steps=arguments.rl_steps),
        ]
        return self.fit(f"grpo-{arm}", module, self.data(), callbacks)[0]

    def run(self) -> dict[str, Any]:
        """What the test questions' answers are like, by model."""
        start = self.start()
        ledger = self.answers("ledger", start, "rl", self.arguments.n)
        models = {"sft": start, **{arm: self.grpo(arm, start) for arm in ARMS}}
        found = {name: self.answers(f"test-{name}", weights, "test", 4) for name, weights in models.items()}
        return {"answers": found, "shortest": statistics.mean(ledger["shortest"]), "seconds": self.seconds}


def gathered(runs: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The seeds' runs as one result."""
    rates = {name: [run["answers"][name]["rates"] for run in runs.values()] for name in ("sft", *ARMS)}
    lengths = {
        name: [statistics.mean(run["answers"][name]["lengths"]) for run in runs.values()] for name in ("sft", *ARMS)
    }
    alone, budget = ARMS
    shorter = [1 - b / a for a, b in zip(lengths[alone], lengths[budget], strict=True)]
    return {
        "accuracy_by_seed": {name: [statistics.mean(own) for own in of_model] for name, of_model in rates.items()},
        "length_by_seed": lengths,
        "shortest_right_by_seed": [run["shortest"] for run in runs.values()],
        "shorter_share": over_seeds([0.0] * len(shorter), shorter),
        "accuracy": over_questions(rates[alone], rates[budget]),
        "processor_seconds_in_all": sum(sum(run["seconds"].values()) for run in runs.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/length-control"))
    parser.add_argument("--name", default="length_control", help="name of the result")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--test", type=int, default=40, help="number of test questions")
    parser.add_argument("--questions", type=int, default=60, help="number of questions for GRPO")
    parser.add_argument("--copies", type=int, default=32, help="SFT conversations per sum")
    parser.add_argument("--rounds", type=int, default=4, help="maximum number of times a sum is worked out in SFT")
    parser.add_argument("--step-tokens", type=int, default=1024)
    parser.add_argument("--base-steps", type=int, default=40)
    parser.add_argument("--sft-steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rl-steps", type=int, default=60)
    parser.add_argument("--prompts-per-step", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=56)
    parser.add_argument("--rl-lr", type=float, default=3e-4)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument(
        "--quantile", type=float, default=0.25, help="quantile of the right answers' lengths used as the budget"
    )
    parser.add_argument("--constrained-steps", type=int, default=1, help="steps per phase with the budget")
    parser.add_argument("--free-steps", type=int, default=0, help="steps per phase without the budget")
    parser.add_argument("--n", type=int, default=8, help="answers per question in the ledger")
    arguments = parser.parse_args()
    quiet(arguments.threads)
    runs = {seed: Experiment(arguments, seed).run() for seed in arguments.seeds}
    results = gathered(runs)
    settings = {name: value for name, value in vars(arguments).items() if name not in ("folder", "name")}
    write_result(arguments.name, settings | {"model": MODEL}, results)
    print(f"shorter by {told(results['shorter_share'])} of the length")
    print(f"accuracy {told(results['accuracy'])}")


if __name__ == "__main__":
    main()
