"""The numbers that a run gives: as Python's, and refused where one is missing or not finite."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from harness.experiment import PlanError

OWN = ("key", "arm", "seed", "budget", "operations", "processor_seconds")
"""What the harness writes beside a run's own numbers."""


def plain_numbers(given: Any, metrics: Collection[str], run: str) -> dict[str, Any]:
    """What a run gives, with Python's numbers for those of numpy and torch, and text for what JSON does not know.

    Args:
        given: by the run.
        metrics: which must be numbers.
        run: its name, for errors.

    Raises:
        PlanError: it has no metrics, one that is no number, or a name of the harness.
    """
    if not isinstance(given, Mapping) or not isinstance(given.get("metrics"), Mapping):
        raise PlanError(f'{run} gave no metrics; its run must return {{"metrics": {{name: number}}}}')
    if own := [name for name in OWN if name in given]:
        raise PlanError(f"{run} gave {own[0]!r}, which the harness writes itself; give it another name")
    plain: dict[str, Any] = _plain({name: value for name, value in given.items() if name != "items"})
    try:
        planned = {name: given["metrics"].get(name) for name in metrics}
        plain["metrics"] |= {name: float(value) for name, value in planned.items() if value is not None}
        items = {
            name: [float(score) for score in (scores.values() if isinstance(scores, Mapping) else scores)]
            for name, scores in (given.get("items") or {}).items()
        }
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise PlanError(
            f"{run} gave what is no number ({error}); metrics are {{name: number}}, items {{name: [number of each]}}"
        ) from error
    return {**plain, **({"items": items} if items else {})}


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # an array or number of numpy or torch
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def check_numbers(given: Mapping[str, Any], metrics: Collection[str], run: str) -> None:
    """Refuse numbers that are missing or not finite: a seed that is left out by its result is a bias.

    Raises:
        PlanError: naming the number and the run.
    """
    for name in metrics:
        if name not in given["metrics"]:
            raise PlanError(f"{run} has no {name}; the run must give every metric of the experiment")
    items = given.get("items", {}).items()
    for name, value in [
        *((name, given["metrics"][name]) for name in metrics),
        *((f"an item's {name}", score) for name, scores in items for score in scores),
    ]:
        if value is None or not math.isfinite(value):
            raise PlanError(f"{name} of {run} is invalid: {value}; bound the metric, or lower the rate")
    if empty := [name for name, scores in items if not scores]:
        raise PlanError(f"items of {empty[0]} of {run} are empty; give a score of each item, or no items")
