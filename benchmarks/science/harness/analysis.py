"""From the numbers of runs to contrasts with intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from harness.experiment import Contrast, Experiment, PlanError, Trend

Runs = Mapping[tuple[str, str], Mapping[int, Mapping[str, Any]]]
"""(budget, arm) -> seed -> result of the job."""

AMOUNTS = ("operations", "processor_seconds")
OF_MEANS = "of_means"  # in a run of results/: its amounts are the means of its arm
ItemIntervals = Callable[[Contrast, Runs], list[float] | None]
Verdict = Literal["better", "worse", "cannot tell"]
EQUAL_COMPUTE = 0.02  # share by which the operations of two arms may differ


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of tests of one family (Holm 1979): below 0.05 each may be called, all together wrong in 5 %.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def shared_seeds(first: Mapping[int, Any], second: Mapping[int, Any]) -> list[int]:
    """Those that both arms have, in order."""
    return sorted(set(first) & set(second))


def spreads(differences: Sequence[float], values: Iterable[float]) -> bool:
    """Whether differences are unequal by more than rounding: without a spread, a t test tells anything from 0.

    Args:
        differences: by seed.
        values: from which they were computed, perhaps in float32.
    """
    return max(differences) - min(differences) > 1e-6 * max(map(abs, values))


def compare(contrast: Contrast, runs: Runs, published: ItemIntervals | None = None) -> dict[str, Any] | None:
    """A contrast over the seeds that both arms have: paired t; beside it over items, where their scores were kept.

    Items are clusters: an item's scores of all seeds are one draw. None with fewer than two seeds.
    """
    from nbg_lightning.evaluation.statistics import paired_comparison

    first, second = (runs.get((contrast.budget, arm), {}) for arm in (contrast.first, contrast.second))
    seeds = shared_seeds(first, second)
    if len(seeds) < 2:
        return None
    sides = [[side[seed]["metrics"][contrast.metric] for seed in seeds] for side in (first, second)]
    found = paired_comparison(*sides, bounds=None)
    differences = [b - a for a, b in zip(*sides, strict=True)]
    operations = [statistics.mean(sum(side[seed]["operations"].values()) for seed in seeds) for side in (first, second)]
    result = {
        "contrast": str(contrast),
        "metric": contrast.metric,
        "budget": contrast.budget,
        "seeds": len(seeds),
        "difference": found.difference,
        "interval_95": list(found.interval),
        "p": found.p_value if spreads(differences, [value for side in sides for value in side]) else 1.0,
        "second_higher_in": found.wins,
        "by_seed": differences,
        "operations_ratio": operations[1] / operations[0] if operations[0] else None,
    }
    if all(contrast.metric in side[seed].get("items", {}) for side in (first, second) for seed in seeds):
        result["interval_95_over_items"] = over_items(
            *([side[seed] for seed in seeds] for side in (first, second)), contrast
        )
    elif published is not None and (interval := published(contrast, runs)) is not None:
        result["interval_95_over_items"] = interval
    return result


def over_items(first: Sequence[Any], second: Sequence[Any], contrast: Contrast) -> list[float]:
    """Interval of the mean difference over items, the runs taken as they are.

    Raises:
        PlanError: the arms of a seed have not equally many.
    """
    from nbg_lightning.evaluation.statistics import paired_comparison

    scores = [[run["items"][contrast.metric] for run in side] for side in (first, second)]
    for place, (own, other) in enumerate(zip(*scores, strict=True)):
        if len(own) != len(other):
            raise PlanError(
                f"items of {contrast.metric}, {contrast.budget}, are not paired: the {place + 1}. shared seed has {len(own)} of "
                f"{contrast.first} and {len(other)} of {contrast.second}; score the same items in both arms"
            )
    joined = [[score for run in side for score in run] for side in scores]
    items = [item for run in scores[0] for item in range(len(run))]
    return list(paired_comparison(*joined, bounds=None, clusters=items).interval)


def slope(trend: Trend, runs: Runs) -> dict[str, Any] | None:
    """Least squares of a contrast on the decimal logarithm of its places, by seed; t over the seeds that all budgets have.

    None with fewer than two seeds.
    """
    from nbg_lightning.evaluation.statistics import mean_interval

    sides = [runs.get((budget, arm), {}) for budget in trend.places for arm in (trend.first, trend.second)]
    seeds = sorted(set.intersection(*map(set, sides)))
    if len(seeds) < 2:
        return None
    places = [math.log10(place) for place in trend.places.values()]
    slopes, values = [], []
    for seed in seeds:
        gains = [
            runs[budget, trend.second][seed]["metrics"][trend.metric]
            - runs[budget, trend.first][seed]["metrics"][trend.metric]
            for budget in trend.places
        ]
        slopes.append(statistics.linear_regression(places, gains).slope)
        values += gains
    low, high = mean_interval(slopes, bounds=None)
    tells = spreads(slopes, values) and not low <= 0 <= high
    return {
        "contrast": f"{trend.second} - {trend.first}",
        "metric": trend.metric,
        "places": dict(trend.places),
        "seeds": len(seeds),
        "slope": statistics.mean(slopes),
        "interval_95": [low, high],
        "by_seed": slopes,
        "verdict": ("grows" if low > 0 else "falls") if tells else "cannot tell",
    }


def answered(results: Mapping[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The contrasts that have been computed, the primary one first, by contrast, metric and budget."""
    found = filter(None, (results["primary"], *results["secondary"]))
    return {(each["contrast"], each["metric"], each["budget"]): each for each in found}


def same_in_all_seeds(found: Mapping[str, Any]) -> bool:
    """Whether a contrast's difference is the same in all seeds, and not 0."""
    return bool(found["difference"]) and found["p"] == 1.0


def verdict(found: Mapping[str, Any], higher_is_better: bool) -> Verdict:
    """What may be said of the second arm: by its interval if it is the primary contrast, else by the adjusted p value."""
    tells = found["p_holm"] < 0.05 if "p_holm" in found else found["p"] < 0.05
    if not tells:
        return "cannot tell"
    return "better" if (found["difference"] > 0) == higher_is_better else "worse"


def amounts(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Operations and processor seconds of an arm: the means, and each run's where they are known."""
    found: dict[str, Any] = {}
    for name in AMOUNTS:
        each = [sum(run[name].values()) if name == "operations" else run[name] for run in runs]
        found[name] = statistics.mean(each)
        found[f"{name}_by_seed"] = [None if run.get(OF_MEANS) else value for run, value in zip(runs, each, strict=True)]
    return found


def summarize(experiment: Experiment, runs: Runs, published: ItemIntervals | None = None) -> dict[str, Any]:
    """All numbers of a page: each arm by seed, operations, and the contrasts.

    Args:
        experiment: whose.
        runs: what is done.
        published: gives the interval over items of a contrast whose runs have no scores of items any more.
    """
    arms = {
        budget: {
            arm: {
                "seeds": sorted(own),
                "metrics": {name: [own[seed]["metrics"][name] for seed in sorted(own)] for name in experiment.metrics},
                **amounts([own[seed] for seed in sorted(own)]),
            }
            for arm in experiment.arms_of(budget)
            if (own := runs.get((budget, arm)))
        }
        for budget in experiment.budgets
    }
    primary = compare(experiment.primary, runs, published)
    secondary = [
        found for contrast in experiment.secondary if (found := compare(contrast, runs, published)) is not None
    ]
    missing = [1.0] * (len(experiment.secondary) - len(secondary))  # not run yet, but of the family
    for found, adjusted in zip(secondary, holm([*(each["p"] for each in secondary), *missing]), strict=False):
        found["p_holm"] = adjusted
    for found in ([primary] if primary else []) + secondary:
        found["verdict"] = verdict(found, experiment.metrics[found["metric"]].higher_is_better)
    trends = [found for trend in experiment.trends if (found := slope(trend, runs)) is not None]
    return {"arms": arms, "primary": primary, "secondary": secondary, "trends": trends}


def seeds_needed(spread: float, effect: float, power: float = 0.8, confidence: float = 0.95) -> int:
    """Seeds at which a paired t test tells an effect with the given power, from the spread of tuning seeds.

    The least n with ``n >= ((t_{n-1}(1 - a/2) + t_{n-1}(power)) spread / effect)^2``.

    Args:
        spread: standard deviation of the paired differences.
        effect: to be told from 0.
        power: probability of telling it.
        confidence: of the interval.

    Example:
        >>> seeds_needed(spread=1.0, effect=1.0)
        10
    """
    from nbg_lightning.evaluation.statistics import student_t_quantile

    for number in range(2, 10_000):
        quantiles = student_t_quantile((1 + confidence) / 2, number - 1) + student_t_quantile(power, number - 1)
        if number >= (quantiles * spread / effect) ** 2:
            return number
    raise ValueError(f"effect is invalid: {effect}; with a spread of {spread} it needs more than 10,000 seeds")
