"""Time and memory with shared prefixes, relative to the same work with separate sequences.

    python benchmarks/performance/shared_prefix.py

Three tasks on one model (that of race.py: a 5.2 M-parameter Llama), float32, two threads:

* ``grpo``: an update (packing, losses, gradients) on 16 answers of 64 tokens to a prompt of 512; and on short prompts.
* ``dpo``: losses and gradients of pairs whose prompt is half of their tokens, with a live reference; windows of 4,096.
* ``choices``: log-likelihoods of questions with four endings after five examples, by `LogLikelihoodScorer`; and of
  questions without context.

Sides alternate in one process, in wall-clock and processor time, and must give the same numbers. Memory is the peak
resident set of a fresh process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from paired import ratio, resident_bytes, write_result
from race import SHAPE

SIDES = {"shared": "auto", "unshared": False}
TASKS = {
    "grpo": {"prompt": 512, "answer": 64, "answers": 16, "groups": 1},
    "grpo_short_prompts": {"prompt": 32, "answer": 128, "answers": 8, "groups": 4},
    "dpo": {"prompt": 200, "answer": 200, "pairs": 10},
    "choices": {"examples": 600, "question": 90, "ending": 12, "questions": 24},
    "choices_zero_shot": {"examples": 0, "question": 90, "ending": 12, "questions": 24},
}
Run = Callable[[], float]


def make_model(seed: int = 0) -> Any:
    """The policy, the reference, or what is evaluated."""
    from nbg_lightning import LanguageModelConfig
    from nbg_lightning.core.create import create_model

    return create_model(LanguageModelConfig(**SHAPE), seed=seed)  # type: ignore[arg-type]


def drawn() -> Callable[[int], tuple[int, ...]]:
    """Ids at random; the same for both sides."""
    import numpy as np

    draw = np.random.default_rng(0)
    return lambda length: tuple(draw.integers(0, SHAPE["vocab_size"], length).tolist())


def grpo(share: Any, settings: dict[str, int], budget: int) -> Run:
    """An update, but for the optimizer; its loss."""
    import torch

    from nbg_lightning.core.prefixes import shortest_shared
    from nbg_lightning.rl.policy_loss import PolicyLossConfig, policy_terms, rollout_statistics
    from nbg_lightning.rl.rollout_batch import TrainedAnswer, pack_answers, plan_groups, plan_micro_batches

    ids, model, loss = drawn(), make_model(), PolicyLossConfig("grpo")
    answers = []
    for _ in range(settings["groups"]):
        prompt = ids(settings["prompt"])
        for number in range(settings["answers"]):
            log_probs = (-9.0,) * settings["answer"]
            answers.append(TrainedAnswer(prompt, ids(settings["answer"]), log_probs, (-1.0) ** number))
    shortest = shortest_shared(share)

    def run() -> float:
        if shortest is None:
            plan = plan_micro_batches([answer.positions for answer in answers], budget)
        else:
            plan = plan_groups(answers, budget, shortest)
        model.zero_grad()
        total = 0.0
        for batch in (pack_answers([answers[index] for index in part], shortest) for part in plan):
            log_probs = rollout_statistics(model, batch, 1.0).log_probs
            found = policy_terms(log_probs, batch, loss, settings["answer"]).sums["policy"] / len(answers)
            found.backward()
            total += found.item()
        norms = [parameter.grad for parameter in model.parameters()]
        return total + torch.nn.utils.get_total_norm(norms).item()

    return run


def dpo(share: Any, settings: dict[str, int], budget: int) -> Run:
    """Losses and gradients of a batch of pairs, with a live reference; the loss."""
    import numpy as np
    import torch

    from nbg_lightning import DPDModule, LanguageModelConfig
    from nbg_lightning.data.pair_batch import pair_row, stack_pairs
    from nbg_lightning.data.pairs import RenderedPair
    from nbg_lightning.modules.dpd import PAIR_TERMS

    class Reference:
        """A frozen model of this process."""

        where = "the benchmark's reference"

        def __init__(self) -> None:
            self.model = make_model(1).requires_grad_(False)

        @torch.no_grad()
        def run(self, batch: Any, head: Any) -> Any:
            return self.model(*batch.input, head)

    ids, size = drawn(), settings["prompt"] + settings["answer"]
    pairs = []
    for _ in range(settings["pairs"]):
        prompt = ids(settings["prompt"])
        mask = np.arange(size) >= settings["prompt"]
        sides = [np.array(prompt + ids(settings["answer"])) for _ in range(2)]
        pairs.append(RenderedPair(sides[0], mask, sides[1], mask))
    each = budget // (2 * size - 2)
    rows = [pair_row(pairs[begin : begin + each], budget) for begin in range(0, len(pairs), each)]
    batch = stack_pairs(rows, np.zeros(len(rows)), np.zeros(len(rows)))
    module = DPDModule(
        LanguageModelConfig(**SHAPE),  # type: ignore[arg-type]
        w_pos=0,
        w_neg=0,
        reference="-",
        micro_batch_tokens=budget,
        share_prefixes=share,
    )
    module.model, module.terms = make_model(), PAIR_TERMS
    module.reference = Reference()  # type: ignore[assignment]
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign, assignment]

    def run() -> float:
        module.model.zero_grad()
        terms = [
            module.backward_micro_batch(micro, {"dpo": 1.0 / len(pairs)})["dpo"].item()
            for micro in module.on_before_batch_transfer(batch, 0)
        ]
        norms = [parameter.grad for parameter in module.model.parameters()]
        return sum(terms) / len(pairs) + torch.nn.utils.get_total_norm(norms).item()

    return run


def choices(share: Any, settings: dict[str, int], budget: int) -> Run:
    """The log-likelihoods of all endings; their mean."""
    from nbg_lightning.evaluation.log_likelihood import LogLikelihoodScorer, Request

    ids = drawn()
    examples = ids(settings["examples"])
    contexts = [examples + ids(settings["question"]) for _ in range(settings["questions"])]
    requests = [Request(context, ids(settings["ending"])) for context in contexts for _ in range(4)]
    scorer = LogLikelihoodScorer(make_model(), budget, share_prefixes=share)

    def run() -> float:
        return sum(found.total for found in scorer(requests)) / len(requests)

    return run


def make_run(task: str, side: str, budget: int) -> Run:
    """One side of a task."""
    kinds = {"grpo": grpo, "dpo": dpo, "choices": choices}
    return kinds[task.split("_")[0]](SIDES[side], TASKS[task], budget)


def measured(task: str, budget: int, repeats: int) -> dict[str, Any]:
    """Both sides, alternating, after one warm-up of each, which also compares them."""
    runs = {side: make_run(task, side, budget) for side in SIDES}
    results = {side: run() for side, run in runs.items()}
    difference = abs(results["shared"] / results["unshared"] - 1)
    if not difference < 1e-5:
        raise RuntimeError(f"{task} is invalid: the sides give {results}; they must agree to 1e-5")
    seconds: dict[str, dict[str, list[float]]] = {clock: {side: [] for side in SIDES} for clock in ("wall", "cpu")}
    for repeat in range(repeats):
        for side in list(SIDES) if repeat % 2 == 0 else list(SIDES)[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            runs[side]()
            seconds["wall"][side].append(time.perf_counter() - wall)
            seconds["cpu"][side].append(time.process_time() - cpu)
    speed_ups = {f"speed_up_{clock}": ratio(of["unshared"], of["shared"]) for clock, of in seconds.items()}
    return {"settings": TASKS[task], "relative_difference": difference, **speed_ups, "seconds": seconds}


def peak_megabytes(task: str, side: str, arguments: argparse.Namespace) -> float:
    """Peak resident set of a fresh process that runs a side once."""
    command = [sys.executable, __file__, "--memory-of", task, side, "--budget", str(arguments.budget)]
    command += ["--threads", str(arguments.threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=int, default=4096, help="maximum tokens per forward")
    parser.add_argument("--without-memory", action="store_true")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        make_run(*arguments.memory_of, arguments.budget)()
        print(resident_bytes() / 2**20)
        return
    results: dict[str, Any] = {}
    for task in arguments.tasks:
        results[task] = measured(task, arguments.budget, arguments.repeats)
        if not arguments.without_memory:
            results[task]["peak_megabytes"] = {side: peak_megabytes(task, side, arguments) for side in SIDES}
        print(task, json.dumps(results[task]["speed_up_cpu"]), flush=True)
    settings = {name: getattr(arguments, name) for name in ("repeats", "threads", "budget")}
    write_result("shared_prefix", {**settings, "model": SHAPE, "dtype": "float32"}, results)


if __name__ == "__main__":
    main()
