"""A recipe's benchmark results after each stage, in a few lines for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nbg_lightning.recipe.gather import StepReport, stages_first


def summary(reports: Sequence[StepReport]) -> list[str]:
    """A line per stage and benchmark: its value and the 95 % interval over items; references after the stages."""
    found = []
    for report in stages_first(reports):
        place = f"{'reference' if report.step.reference else 'after'} {report.step.measures or report.step.name}"
        for result in report.suite.benchmarks if report.suite else ():
            value = "no number" if math.isnan(result.value) else f"{result.value:.3f}"
            interval = result.intervals.get(result.primary)
            spread = "" if interval is None else f"  ({interval.low:.3f} to {interval.high:.3f})"
            found.append((place, f"{result.name} {result.primary}", value + spread))
    widths = [max((len(row[column]) for row in found), default=0) for column in range(2)]
    return [f"  {stage:<{widths[0]}}  {name:<{widths[1]}}  {value}" for stage, name, value in found]
