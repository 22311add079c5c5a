"""Runs every measurement of this folder in its own process, then updates the tables of docs/measured.md and the README.

Results go to ``results/PROCESSOR/``; the tables show the results of several processors side by side.

        python benchmarks/performance/run_all.py                     # takes hours: all, with peers in their own environments
    python benchmarks/performance/run_all.py --only pretrain dpd # some of them
        python benchmarks/performance/run_all.py --quick             # test that all run, without keeping results

A script that fails does not stop the others; failed ones are listed at the end, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from paired import RESULTS, RESULTS_VARIABLE

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Measurement:
    """A script with its settings.

    Attributes:
        script: file name without suffix.
        threads: torch's threads, on both sides of a race.
        arguments: arguments of the committed results, besides the threads.
        quick: arguments for a short run.
        peers: whether it is a race, which also needs ``--threads`` for the peers' processes.
        out: whether it writes to ``--out``.
    """

    script: str
    threads: int = 1
    arguments: str = ""
    quick: str = ""
    peers: bool = False
    out: bool = False

    def command(self, name: str, quick: bool, results: Path) -> list[str]:
        """What to run."""
        command = [sys.executable, str(HERE / f"{self.script}.py"), *self.arguments.split()]
        if self.peers:
            command += ["--threads", str(self.threads)]
        if self.out:
            command += ["--out", str(results / f"{name}.json")]
        return command + self.quick.split() * quick


_FEW = "--repeats 1"
_GENERATION = dict(peers=True, out=True, quick=f"{_FEW} --new-tokens 16")

MEASUREMENTS = {
    "data_order": Measurement("data_order"),
    "startup": Measurement("startup", quick=_FEW),
    "preparation": Measurement(
        "preparation", quick="--megabytes 0.2 --conversations 500 --many 2000 --packages sympy.core"
    ),
    "sandbox": Measurement("sandbox", quick=f"{_FEW} --limit 5"),
    "episodes": Measurement("episodes", quick=f"{_FEW} --preset nano --episodes 8 --new-tokens 8"),
    "episodes_small": Measurement(
        "episodes",
        arguments="--name episodes_small --preset small --episodes 24 --repeats 2",
        quick=f"{_FEW} --preset nano --episodes 8 --new-tokens 8",
    ),
    "checkers": Measurement("checkers", quick="--answers 2 --repeats 1"),
    "evaluation": Measurement("evaluation"),
    "chat_renderers": Measurement("chat_renderers", arguments="--repeats 7", quick=f"{_FEW} --conversations 20"),
    "loss_head": Measurement("loss_head", arguments="--repeats 3", quick=f"{_FEW} --tokens 512 --time-tokens 128"),
    "distillation_head": Measurement("distillation_head", quick=f"{_FEW} --tokens 512 --time-tokens 128"),
    "shared_prefix": Measurement("shared_prefix", threads=2, quick=f"{_FEW} --tasks grpo --without-memory"),
    "compute_dtype": Measurement("compute_dtype", arguments="--repeats 7", quick=_FEW),
    "lora": Measurement("lora", quick=f"{_FEW} --core nano --tokens 1024"),
    "pretrain_overhead": Measurement("pretrain_overhead", threads=2, quick="--blocks 2 --steps-per-block 1"),
    "asynchronous_checkpoint": Measurement(
        "asynchronous_checkpoint", threads=2, quick="--hidden-size 128 --layers 2 --steps 12"
    ),
    "pretrain": Measurement("pretrain", threads=2, quick=f"{_FEW} --core tiny --steps-per-block 1", peers=True),
    "sft": Measurement(
        "sft", threads=2, arguments="--compile --repeats 3", quick=f"{_FEW} --steps 5 --conversations 400", peers=True
    ),
    "dpd": Measurement("dpd", threads=2, arguments="--steps 4 --repeats 3", quick=f"{_FEW} --steps 2", peers=True),
    "dpd_half_prompts": Measurement(
        "dpd",
        threads=2,
        arguments="--name dpd_half_prompts --prompt-share 0.5 --steps 4 --repeats 3",
        quick=f"{_FEW} --steps 2",
        peers=True,
    ),
    "stored_data": Measurement("stored_data"),
    "many_shards": Measurement("many_shards", quick="--sources 20 --parts 5"),
    "large_models": Measurement("large_models", quick="--start nano --write tiny --ranks 2"),
    "rollouts_ahead": Measurement(
        "rollouts_ahead", threads=2, quick=f"{_FEW} --steps 3 --prompts 2 --group 4 --new-tokens 16"
    ),
    "rollouts_ahead_long": Measurement(
        "rollouts_ahead",
        threads=2,
        arguments="--name rollouts_ahead_long --prompts 2 --group 4 --new-tokens 512",
        quick=f"{_FEW} --steps 3 --new-tokens 16",
    ),
    "grpo": Measurement("grpo", threads=2, quick=f"{_FEW} --steps 2 --new-tokens 16", peers=True),
    "grpo_long_prompts": Measurement(
        "grpo",
        threads=2,
        arguments="--name grpo_long_prompts --prompts 2 --group 16 --words 290 --new-tokens 64",
        quick=f"{_FEW} --steps 2 --new-tokens 16",
        peers=True,
    ),
    "choices": Measurement("choices", quick=f"{_FEW} --limit 4"),
    "generation_fp32_1thread": Measurement("generation", threads=1, **_GENERATION),
    "generation_fp32_2threads": Measurement("generation", threads=2, **_GENERATION),
    "generation_bf16_1thread": Measurement("generation", arguments="--dtype bfloat16 --repeats 3", **_GENERATION),
}


def run(names: list[str], quick: bool, results: Path) -> list[str]:
    """Run them one after another; the names of those that failed."""
    failed = []
    results.mkdir(parents=True, exist_ok=True)
    for name in names:
        measurement = MEASUREMENTS[name]
        variables = {"OMP_NUM_THREADS": str(measurement.threads), RESULTS_VARIABLE: str(results)}
        print(f"== {name}", flush=True)
        begin = time.monotonic()
        code = subprocess.run(measurement.command(name, quick, results), env={**os.environ, **variables}).returncode
        print(
            f"== {name}: {'done' if code == 0 else f'exit code {code}'}, {time.monotonic() - begin:.0f} s", flush=True
        )
        if code:
            failed.append(name)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), default=list(MEASUREMENTS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="small and short, only to test that all scripts run")
    arguments = parser.parse_args()
    if arguments.quick:
        with tempfile.TemporaryDirectory() as folder:
            failed = run(arguments.only, True, Path(folder))
    else:
        failed = run(arguments.only, False, RESULTS)
        subprocess.run([sys.executable, str(HERE.parent / "readme_table.py")], check=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
