"""Comparisons over seeds, and the JSON results of an experiment."""

from __future__ import annotations

import logging
import statistics
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbg_lightning.data.durable import write_json

RESULTS = Path(__file__).parent / "results"


def over_seeds(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Mean of ``second - first`` over seeds, with the t interval of as many seeds (three: wide).

    Example:
        >>> over_seeds([0.0, 0.0, 0.0], [1.0, 2.0, 3.0])["difference"]
        2.0
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    mean = statistics.mean(differences)
    found: dict[str, Any] = {"difference": mean, "by_seed": differences}
    if len(differences) > 1:
        from nbg_lightning.evaluation.statistics import mean_interval

        found["interval_95"] = list(mean_interval(differences, bounds=None))
    return found


def over_questions(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The same for scores of questions, by seed and question; beside it the paired interval over the questions of all seeds.

    The latter takes the runs as they are and asks how far other questions would differ; the interval over seeds asks how far
    other runs would. A claim needs both.
    """
    from nbg_lightning.evaluation.statistics import paired_comparison

    found = over_seeds([statistics.mean(own) for own in first], [statistics.mean(own) for own in second])
    joined = [[score for own in side for score in own] for side in (first, second)]
    questions = [
        question for own in first for question in range(len(own))
    ]  # each is a draw, however many seeds answer it
    paired = paired_comparison(*joined, clusters=questions)._asdict()
    found["questions"] = {**paired, "interval": list(paired["interval"])}
    return found


def told(found: dict[str, Any]) -> str:
    """A comparison in one line."""
    text = f"{found['difference']:+.4f}"
    if "interval_95" in found:
        text += " (95 % {:+.4f} to {:+.4f} over seeds".format(*found["interval_95"])
        text += (
            ", {:+.4f} to {:+.4f} over questions)".format(*found["questions"]["interval"])
            if "questions" in found
            else ")"
        )
    return text


def stored(file: Path, found: Any) -> Any:
    """Write JSON atomically; returns the value."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, found)
    return found


def stop_if_stopped(trainer: Any) -> None:
    """Exit if a signal has ended training early, since its results are incomplete."""
    from nbg_lightning.callbacks.graceful_stop import stop_signal

    if (received := stop_signal(trainer)) is not None:
        raise SystemExit(f"stopped by {received.name} after {trainer.global_step} steps: start again to go on")


def write_result(
    name: str, settings: dict[str, Any], results: dict[str, Any], earlier: Sequence[dict[str, Any]] = ()
) -> Path:
    """Write ``results/<name>.json`` with machine and versions, and those of earlier runs among them, and return its path."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "performance"))
    import paired

    return paired.write_document(RESULTS, name, settings, results, earlier)


def quiet(threads: int) -> None:
    """Set the number of threads, and silence what a run tells of its progress."""
    import torch

    torch.set_num_threads(threads)
    logging.disable(logging.INFO)  # no level of a logger: the trainer sets these again
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
