"""Does GRPO learn as much from answers of weights that are one or two updates old? One small task, in turn and ahead.

    python benchmarks/science/staleness.py --seeds 1 2 3 4 5

A model with random weights (35 thousand parameters) is rewarded for even token ids (`testing.grpo`): an answer's score is the
share of its tokens that are even, a half by chance. All arms of a seed see the same questions in the same order, make the same
number of updates, and use the default off-policy correction. The metric is the mean score of the last steps. Differences to
staleness 0 are paired over seeds (t intervals).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from seeds import over_seeds, quiet, told, write_result

ARMS = (0, 1, 2)


def rewards(folder: Path, staleness: int, seed: int, arguments: argparse.Namespace) -> list[float]:
    """The mean reward of each step of one run."""
    from nbg_lightning.modules.optimizer import AdamWConfig
    from nbg_lightning.rl.rollout_settings import RolloutSettings
    from nbg_lightning.testing.grpo import small_tokenizer, train_small_grpo

    options = {
        "optimizer": AdamWConfig(lr=arguments.lr, weight_decay=0.0),
        "rollouts": RolloutSettings(max_staleness=staleness, ledger=False),
        "seed": seed,
        "group_size": arguments.group_size,
    }
    run = train_small_grpo(
        folder / f"{seed}-{staleness}",
        tokenizer=small_tokenizer(folder),
        steps=arguments.steps,
        module_options=options,
        data_options={"seed": seed},
    )
    assert len(run.metrics) == arguments.steps
    return run.column("reward/mean")


def gathered(curves: dict[int, list[list[float]]], last: int) -> dict[str, Any]:
    """The seeds' curves as one result."""
    ends = {arm: [statistics.mean(curve[-last:]) for curve in of_arm] for arm, of_arm in curves.items()}
    return {
        "first_steps": {arm: statistics.mean(statistics.mean(c[:3]) for c in of_arm) for arm, of_arm in curves.items()},
        "last_steps_by_seed": ends,
        "over_staleness_0": {arm: over_seeds(ends[0], ends[arm]) for arm in ARMS[1:]},
        "curves": {arm: [[round(value, 4) for value in curve] for curve in of_arm] for arm, of_arm in curves.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--last", type=int, default=10, help="number of last steps whose reward is compared")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    quiet(arguments.threads)
    curves: dict[int, list[list[float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for arm in ARMS:
                curves[arm].append(rewards(Path(folder), arm, seed, arguments))
                print(
                    f"seed {seed}, staleness {arm}: {statistics.mean(curves[arm][-1][-arguments.last :]):.3f}",
                    flush=True,
                )
    results = gathered(curves, arguments.last)
    write_result("staleness", vars(arguments), results)
    for arm, found in results["over_staleness_0"].items():
        print(f"staleness {arm}: {told(found)}")


if __name__ == "__main__":
    main()
