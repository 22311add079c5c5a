"""A GRPO step with asynchronous rollouts, engine and trainer on one core each, relative to a synchronous step on both cores.

    taskset -c 0,1 python benchmarks/performance/rollouts_ahead.py
    taskset -c 0,1 python benchmarks/performance/rollouts_ahead.py --name rollouts_ahead_tiny --tiny
    taskset -c 0,1 python benchmarks/performance/rollouts_ahead.py --name rollouts_ahead_long \\
        --prompts 2 --group 4 --new-tokens 512

One model (a 5.2 M-parameter Llama), the same questions, groups, lengths, reward and loss, float32; every answer has the full
length. ``--tiny`` uses the preset ``tiny`` and 16 questions with 8 answers of 16 tokens, like a step of configs/grpo/tiny.yaml.
Synchronously, engine and trainer have two threads each (``in_turn``: both use both cores), or one (``in_turn_one_thread``: each
has a core, and waits for the other); asynchronously (``rollouts: {max_staleness: 1}``), one each, in separate processes. The
ratios to both are in the result. Sides alternate in one run. Steps are timed from the end of the first to the end of the
last in wall-clock time, since idle time matters: run it on an otherwise idle machine (``load`` in the result shows whether it
was). ``best`` is the ratio that no scheduling could beat: the slower of both sides on its core, relative to the faster
synchronous step; ``even`` is that ratio if both took the same time. Long answers of few questions take both sides the same time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from grpo import PARTS, Ours
from race import SHAPE, begin

WORK = ("engine", "train")
Step = dict[str, float]


def step_of(ours: Ours, **options: Any) -> Step:
    """Seconds of a step of one training, and of its parts."""
    arguments = ours.arguments
    rate = ours.run(**options)["wall"]
    return {"step": arguments.prompts * arguments.group * arguments.new_tokens / rate, **ours.parts}


def medians(steps: list[Step]) -> Step:
    """The median of every part."""
    return {name: statistics.median(step[name] for step in steps) for name in ("step", *PARTS) if name in steps[0]}


def take_tiny_sizes(arguments: argparse.Namespace) -> None:
    """The preset ``tiny``, and as many answers as in a step of configs/grpo/tiny.yaml, as long."""
    from nbg_lightning.core import preset

    shape = preset("tiny")
    SHAPE.update({name: vars(shape)[name] for name in SHAPE if name != "vocab_size"})
    arguments.prompts, arguments.group, arguments.words, arguments.new_tokens = 16, 8, 8, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--prompts", type=int, default=8, help="questions per step")
    parser.add_argument("--group", type=int, default=8, help="answers per question")
    parser.add_argument("--words", type=int, default=24, help="words per question")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens per answer")
    parser.add_argument("--budget", type=int, default=4096, help="positions per forward of the trainer")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--name", default="rollouts_ahead", help="name of the result")
    parser.add_argument("--tiny", action="store_true", help="a small model and short answers")
    arguments = parser.parse_args()
    arguments.threads = 2
    if arguments.tiny:
        take_tiny_sizes(arguments)
    if len(os.sched_getaffinity(0)) != 2:
        print("this process is not on two cores: start it by taskset -c 0,1", file=sys.stderr)
    begin(arguments)
    import torch
    from paired import ratio, write_result

    from nbg_lightning.rl.rollout_settings import RolloutSettings

    found: dict[str, list[Step]] = {"in_turn": [], "in_turn_one_thread": [], "ahead": []}
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as temporary:
        ours = Ours(Path(temporary), arguments)
        for repeat in range(-1, arguments.repeats):  # the first warms up
            for side in list(found) if repeat % 2 else list(reversed(found)):
                options = {"rollouts": RolloutSettings(max_staleness=1, ledger=False)} if side == "ahead" else {}
                torch.set_num_threads(1 if side == "in_turn_one_thread" else arguments.threads)
                step = step_of(ours, **options)
                print(side, {name: round(seconds, 3) for name, seconds in step.items()}, file=sys.stderr)
                if repeat >= 0:
                    found[side].append(step)
    load.append(os.getloadavg()[0])
    seconds = {side: medians(steps) for side, steps in found.items()}
    steps = {side: [step["step"] for step in of_side] for side, of_side in found.items()}
    faster = min(("in_turn", "in_turn_one_thread"), key=lambda side: seconds[side]["step"])
    work = [seconds["ahead"][name] for name in WORK]
    results = {
        "ahead_over_in_turn": ratio(steps["ahead"], steps[faster]),
        "ahead_over_one_thread_each": ratio(steps["ahead"], steps["in_turn_one_thread"]),
        "compared_with": faster,
        "best": max(work) / seconds[faster]["step"],
        "even": sum(work) / len(work) / seconds[faster]["step"],
        "seconds": seconds,
        "seconds_of_a_step": steps,
        "load": {"before": load[0], "after": load[1], "cores": len(os.sched_getaffinity(0))},
    }
    write_result(arguments.name, vars(arguments), results)


if __name__ == "__main__":
    main()
