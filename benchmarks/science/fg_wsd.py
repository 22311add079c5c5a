"""Does FG-WSD beat vanilla WSD on the same tokens, with the pools that the quality filter made?

    python benchmarks/science/filtering.py      # makes the pools, once
    python benchmarks/science/fg_wsd.py

One small model, one learning-rate curve (warmup, constant, decay), one number of tokens. The arms differ in the mixture only:

* ``wsd``: HQ and MQ 1:1 from the first to the last step, as the paper's baseline.
* ``order_only``: the same total of HQ and MQ as ``fg_wsd``, mixed evenly from the first to the last step: the gain of ``fg_wsd``
  over it is due to the order, its own gain over ``wsd`` to the share of HQ.
* ``fg_wsd``: HQ and MQ by size during the constant phase, then HQ alone for its rest, then the decay on HQ.
* ``wsd_hq_decay``: 1:1, but with the decay on HQ alone, to separate the effect of the decay's data.

Metrics are on held-out documents: bits per byte of HQ (and MQ), and choosing the true continuation of HQ text among four.
Differences are paired over seeds (t interval of three seeds: wide) and, for choices, over questions of all seeds (t interval).
Finished runs are not repeated, so several processes can run seeds, and a last call combines
them; a killed run resumes from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from seeds import over_questions, over_seeds, quiet, stop_if_stopped, stored, told, write_result

ARMS = ("wsd", "order_only", "fg_wsd", "wsd_hq_decay")
COMPARED = (  # first, second: what the second gains
    ("wsd", "fg_wsd"),
    ("order_only", "fg_wsd"),
    ("wsd", "order_only"),
    ("wsd", "wsd_hq_decay"),
    ("wsd_hq_decay", "fg_wsd"),
)
METRICS = ("hq_bits_per_byte", "mq_bits_per_byte")
SHARES = (0.05, 0.45, 0.3, 0.2)  # warmup, first and second part of the constant phase, decay
CONTEXT, CONTINUATION, CHOICES = 64, 32, 4  # tokens


def stages(arm: str, tokens: int, step: int, peak: float, hq: int, mq: int) -> list[Any]:
    """The table of an arm; the learning rate is the same in all."""
    from nbg_lightning import Stage

    half, best, sizes = {"hq": 1.0, "mq": 1.0}, {"hq": 1.0}, {"hq": float(hq), "mq": float(mq)}
    if arm == "order_only":
        whole = pool_shares(stages("fg_wsd", tokens, step, peak, hq, mq))
        mixtures = [whole] * len(SHARES)
    else:
        mixtures = {
            "wsd": [half, half, half, half],
            "fg_wsd": [sizes, sizes, best, best],
            "wsd_hq_decay": [half, half, half, best],
        }[arm]
    rates: tuple[Any, ...] = ([0.0, peak], peak, peak, [peak, peak / 300])
    names = ("warmup", "stable-1", "stable-2", "decay")
    return [
        Stage(name, max(1, round(share * tokens / step)) * step, rate, mixture, "sqrt" if name == "decay" else "linear")
        for name, share, rate, mixture in zip(names, SHARES, rates, mixtures, strict=True)
    ]


def pool_shares(table: list[Any]) -> dict[str, float]:
    """Share of each pool in all tokens of a table."""
    total = sum(stage.tokens for stage in table)
    return {
        pool: sum(stage.tokens * stage.mixture.get(pool, 0.0) / sum(stage.mixture.values()) for stage in table) / total
        for pool in ("hq", "mq")
    }


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
            ParallelConfig(compute_dtype=own.compute_dtype),
            micro_batch_tokens=own.step_tokens,
            seed=seed,
        )
        # One seed is one split and one order of data: what is held out is the same in all arms of a seed.
        data = self.datamodule(seed)
        table = stages(arm, own.tokens, own.step_tokens, own.lr, self.tokens["hq"], self.tokens["mq"])
        checkpoints = sorted((folder / "checkpoints").glob("step-*"))
        begin = time.process_time()
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            default_root_dir=str(folder),
            logger=False,
            enable_progress_bar=False,
            limit_val_batches=0,
            callbacks=[FGWSD(table, own.step_tokens, own.sequence_length), StepCheckpoint(every_n_steps=100, keep=1)],
        )
        trainer.fit(module, datamodule=data, ckpt_path="last" if checkpoints else None)
        stop_if_stopped(trainer)
        trainer.limit_val_batches = 1.0
        metrics = trainer.validate(module, datamodule=data, verbose=False)[0]
        answers = choose(module.model, data, own.questions)
        found = {
            "arm": arm,
            "seed": seed,
            "steps": trainer.global_step,
            "shares": pool_shares(table),
            "hq_bits_per_byte": metrics["val/hq/bits_per_byte"],
            "mq_bits_per_byte": metrics["val/mq/bits_per_byte"],
            "choices": answers,
            "accuracy": statistics.mean(answers),
            "processor_seconds": time.process_time() - begin,  # since the last start
            "continued": bool(checkpoints),
        }
        stored(result, found)
        print(
            f"{arm}, seed {seed}: HQ {found['hq_bits_per_byte']:.4f} and MQ {found['mq_bits_per_byte']:.4f} bits a byte, "
            f"{found['accuracy']:.3f} right of {len(answers)}, {found['processor_seconds']:.0f} s",
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


def compare(runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The arms that were run against each other."""
    found: dict[str, Any] = {}
    for first, second in COMPARED:
        if first in runs and second in runs:
            own: dict[str, Any] = {
                metric: over_seeds(*([run[metric] for run in runs[arm]] for arm in (first, second)))
                for metric in METRICS
            }
            own["accuracy"] = over_questions(*([run["choices"] for run in runs[arm]] for arm in (first, second)))
            found[f"{second} - {first}"] = own
    return found


def main() -> None:
    cache = Path("runs")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pools", type=Path, default=cache / "filtering-real" / "pools", help="pools created by filtering.py"
    )
    parser.add_argument("--folder", type=Path, default=cache / "fg-wsd")
    parser.add_argument("--core", default="tiny")
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=1_228_800, help="tokens per run")
    parser.add_argument("--step-tokens", type=int, default=4096)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--compute-dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--validation-tokens", type=int, default=65_536)
    arguments = parser.parse_args()
    if not (arguments.pools / "report.json").is_file():
        raise SystemExit(f"no pools in {arguments.pools}: run benchmarks/science/filtering.py first, or give --pools")
    quiet(arguments.threads)
    experiment = Experiment(arguments)
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arguments.arms}
    for seed in arguments.seeds:  # all arms of a seed, then the next seed
        for arm in arguments.arms:
            runs[arm].append(experiment.run(arm, seed))
    comparison = compare(runs)
    settings = {name: value for name, value in vars(arguments).items() if name not in ("pools", "folder")}
    results = {
        "pool_tokens": experiment.tokens,
        "runs": {
            arm: [{k: v for k, v in run.items() if k not in ("choices", "seconds")} for run in own]
            for arm, own in runs.items()
        },
        "comparisons": comparison,
    }
    write_result("fg_wsd", {**settings, "shares": SHARES}, results)
    for name, own in comparison.items():
        for metric in (*METRICS, "accuracy"):
            print(f"{name}: {metric} {told(own[metric])}")


if __name__ == "__main__":
    main()
