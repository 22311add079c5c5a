"""Does FG-WSD beat vanilla WSD on the same tokens, with the pools that the quality filter made?

    python benchmarks/science/filtering.py      # makes the pools, once
    python benchmarks/science/fg_wsd.py

One small model, one learning-rate curve (warmup, constant, decay), one number of tokens. The arms differ in the mixture only:

* ``wsd``: HQ and MQ 1:1 from the first to the last step, as the paper's baseline.
* ``wsd_hq_decay``: the same, but the decay is on HQ alone: how much is the decay's data.
* ``fg_wsd``: HQ and MQ by size while the learning rate is constant, then HQ alone while it still is, then the decay on HQ.

Measured on documents that none of them trained on: bits per byte of held-out HQ (and MQ), and a choice of the true continuation
of held-out HQ text among four. Differences are paired over seeds (t interval of three seeds: wide) and, for choices, over
questions of all seeds (bootstrap). Runs that are done are not run again; a killed one is continued from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ARMS = ("wsd", "wsd_hq_decay", "fg_wsd")
SHARES = (0.05, 0.45, 0.3, 0.2)  # warmup, first and second part of the constant phase, decay
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}  # two-sided, by number of seeds
CONTEXT, CONTINUATION, CHOICES = 64, 32, 4  # tokens


def stages(arm: str, tokens: int, step: int, peak: float, hq: int, mq: int) -> list[Any]:
    """The table of an arm; the learning rate is the same in all."""
    from nbg_lightning import Stage

    half, best, sizes = {"hq": 1.0, "mq": 1.0}, {"hq": 1.0}, {"hq": float(hq), "mq": float(mq)}
    mixtures = {
        "wsd": (half, half, half, half),
        "wsd_hq_decay": (half, half, half, best),
        "fg_wsd": (sizes, sizes, best, best),
    }[arm]
    rates: tuple[Any, ...] = ([0.0, peak], peak, peak, [peak, peak / 300])
    names = ("warmup", "stable-1", "stable-2", "decay")
    return [
        Stage(name, max(1, round(share * tokens / step)) * step, rate, mixture, "sqrt" if name == "decay" else "linear")
        for name, share, rate, mixture in zip(names, SHARES, rates, mixtures, strict=True)
    ]


class Experiment:
    """All runs in one folder."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        report = json.loads((arguments.pools / "report.json").read_text())
        self.tokens = {pool: own["tokens"] for pool, own in report["pools"].items()}

    def datamodule(self, seed: int) -> Any:
        from nbg_lightning import CurriculumDataModule
        from nbg_lightning.data import Parquet, TokenizerConfig

        pools = {pool: Parquet(str(self.arguments.pools / pool)) for pool in ("hq", "mq")}
        return CurriculumDataModule(
            pools,
            TokenizerConfig(train_vocab_size=self.arguments.vocab_size, train_bytes="6M"),
            data_dir=str(self.arguments.folder / "data"),
            validation_fraction=0.04,
            validation_tokens=self.arguments.validation_tokens,
            num_workers=0,
            prepare_workers=0,
            seed=seed,
        )

    def run(self, arm: str, seed: int) -> dict[str, Any]:
        """Train one arm with one seed, or read what it gave."""
        folder = self.arguments.folder / f"{arm}-{seed}"
        result = folder / "result.json"
        if result.is_file():
            return json.loads(result.read_text())
        from nbg_lightning import FGWSD, AdamWConfig, ParallelConfig, PretrainModule, StepCheckpoint, Trainer

        own = self.arguments
        module = PretrainModule(
            own.core,
            AdamWConfig(weight_decay=0.1, betas=(0.9, 0.95)),
            ParallelConfig(compute_dtype="float32"),
            micro_batch_tokens=own.step_tokens,
            seed=seed,
        )
        # One seed is one split and one order of data: what is held out is the same in all arms of a seed.
        data = self.datamodule(seed)
        table = stages(arm, own.tokens, own.step_tokens, own.lr, self.tokens["hq"], self.tokens["mq"])
        checkpoints = sorted((folder / "checkpoints").glob("step-*"))
        begin = time.perf_counter()
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            default_root_dir=str(folder),
            logger=False,
            enable_progress_bar=False,
            limit_val_batches=0,
            callbacks=[FGWSD(table, own.step_tokens, own.sequence_length), StepCheckpoint(every_n_steps=50, keep=1)],
        )
        trainer.fit(module, datamodule=data, ckpt_path="last" if checkpoints else None)
        trainer.limit_val_batches = 1.0
        metrics = trainer.validate(module, datamodule=data, verbose=False)[0]
        answers = choose(module.model, data, own.questions)
        found = {
            "arm": arm,
            "seed": seed,
            "steps": trainer.global_step,
            "hq_bits_per_byte": metrics["val/hq/bits_per_byte"],
            "mq_bits_per_byte": metrics["val/mq/bits_per_byte"],
            "choices": answers,
            "accuracy": statistics.mean(answers),
            "seconds": time.perf_counter() - begin,
        }
        partial = result.with_suffix(".partial")
        partial.write_text(json.dumps(found))
        partial.replace(result)
        print(
            f"{arm}, seed {seed}: HQ {found['hq_bits_per_byte']:.4f} and MQ {found['mq_bits_per_byte']:.4f} bits a byte, "
            f"{found['accuracy']:.3f} right of {len(answers)}, {found['seconds']:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        return found


def choose(model: Any, data: Any, number: int) -> list[int]:
    """1 or 0 for each question: is the true continuation of held-out HQ text likelier than three from elsewhere in it?"""
    from nbg_lightning.evaluation.log_likelihood import LogLikelihoodScorer, Request

    source = data._validation["hq"]
    length = CONTEXT + CONTINUATION
    places = range(0, source.num_tokens - length, length)
    draw = random.Random(0)
    chosen = draw.sample(list(places), min(number, len(places)))
    texts = [[int(token) for token in source.span(place, place + length)[0]] for place in chosen]
    requests = []
    for index, text in enumerate(texts):
        others = draw.sample([other for other in range(len(texts)) if other != index], CHOICES - 1)
        ends = [text[CONTEXT:], *(texts[other][CONTEXT:] for other in others)]
        requests += [Request(tuple(text[:CONTEXT]), tuple(end)) for end in ends]
    scores = [found.total for found in LogLikelihoodScorer(model)(requests)]
    groups = [scores[first : first + CHOICES] for first in range(0, len(scores), CHOICES)]
    return [int(group[0] > max(group[1:])) for group in groups]


def paired(first: list[float], second: list[float]) -> dict[str, Any]:
    """Mean difference over seeds with its t interval."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    mean = statistics.mean(differences)
    found: dict[str, Any] = {"difference": mean, "by_seed": differences}
    if len(differences) in T_95:
        half = T_95[len(differences)] * statistics.stdev(differences) / math.sqrt(len(differences))
        found["interval_95"] = [mean - half, mean + half]
    return found


def compare(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Each arm against vanilla WSD."""
    from nbg_lightning.evaluation.statistics import paired_comparison

    found: dict[str, Any] = {}
    for arm in ARMS[1:]:
        own: dict[str, Any] = {
            metric: paired([run[metric] for run in runs["wsd"]], [run[metric] for run in runs[arm]])
            for metric in ("hq_bits_per_byte", "mq_bits_per_byte", "accuracy")
        }
        answers = [[float(answer) for run in runs[name] for answer in run["choices"]] for name in ("wsd", arm)]
        own["choices_of_all_seeds"] = paired_comparison(*answers)._asdict()
        found[f"{arm} - wsd"] = own
    return found


def main() -> None:
    cache = Path("runs")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", type=Path, default=cache / "filtering-real" / "pools", help="of filtering.py")
    parser.add_argument("--folder", type=Path, default=cache / "fg-wsd")
    parser.add_argument("--core", default="tiny")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=2_457_600, help="of a run")
    parser.add_argument("--step-tokens", type=int, default=8192)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--validation-tokens", type=int, default=65_536)
    arguments = parser.parse_args()
    if not (arguments.pools / "report.json").is_file():
        raise SystemExit(f"no pools in {arguments.pools}: run benchmarks/science/filtering.py first, or give --pools")
    experiment = Experiment(arguments)
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in arguments.seeds:  # all arms of a seed, then the next seed
        for arm in ARMS:
            runs[arm].append(experiment.run(arm, seed))
    comparison = compare(runs)
    document = {
        "benchmark": "fg_wsd",
        "date": date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "system": platform.system()},
        "versions": {name: version(name) for name in ("nbg-lightning", "torch")},
        "settings": {name: str(v) if isinstance(v, Path) else v for name, v in vars(arguments).items()},
        "pool_tokens": experiment.tokens,
        "runs": {arm: [{k: v for k, v in run.items() if k != "choices"} for run in own] for arm, own in runs.items()},
        "comparison": comparison,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fg_wsd.json").write_text(json.dumps(document, indent=1) + "\n")
    for name, own in comparison.items():
        for metric in ("hq_bits_per_byte", "mq_bits_per_byte", "accuracy"):
            interval = own[metric].get("interval_95")
            between = "" if interval is None else f", 95 % {interval[0]:+.4f} to {interval[1]:+.4f}"
            print(f"{name}: {metric} {own[metric]['difference']:+.4f}{between} ({len(arguments.seeds)} seeds)")
        choices = own["choices_of_all_seeds"]
        low, high = choices["interval"]
        print(f"{name}: right continuations {choices['difference']:+.4f}, 95 % {low:+.4f} to {high:+.4f} (questions)")


if __name__ == "__main__":
    main()
