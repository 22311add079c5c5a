"""The picture of an experiment's JSON: each run of the primary budget, and all contrasts with their intervals."""

from __future__ import annotations

import json
import statistics
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pictures import COLORS, IMAGES, INK, figure

from nbg_lightning.data.durable import atomic


def runs(axes: Axes, arms: Mapping[str, Any], metric: str, scale: float) -> None:
    """A column an arm: a dot a seed, a line at the mean; thin lines join the runs of a seed."""
    by_seed: dict[int, list[tuple[int, float]]] = {}
    for place, own in enumerate(arms.values()):
        values = [value * scale for value in own["metrics"][metric]]
        color = COLORS[place % len(COLORS)]
        axes.scatter([place] * len(values), values, s=20, color=color, zorder=3)
        axes.hlines(statistics.mean(values), place - 0.28, place + 0.28, color=color, lw=2.4, zorder=2)
        for seed, value in zip(own["seeds"], values, strict=True):
            by_seed.setdefault(seed, []).append((place, value))
    for points in by_seed.values():
        axes.plot(*zip(*points, strict=True), color="#d5d8dd", lw=0.8, zorder=1)
    axes.set_xticks(
        range(len(arms)),
        [name.replace("_", "\n").replace(" ", "\n") for name in arms],
        fontsize=min(8, 80 / max(1, len(arms))),
    )
    axes.set_xlim(-0.6, len(arms) - 0.4)


def contrasts(axes: Axes, plan: Mapping[str, Any], results: Mapping[str, Any], metric: str) -> None:
    """Contrasts of one metric as points with 95 % intervals over seeds; the primary one, on top, in another colour."""
    found = [each for each in (results["primary"], *results["secondary"]) if each and each["metric"] == metric]
    scale = plan["metrics"][metric]["scale"]
    for place, each in enumerate(reversed(found)):
        color = COLORS[2] if "p_holm" not in each else COLORS[1]
        low, high = (end * scale for end in each["interval_95"])
        axes.hlines(place, low, high, color=color, lw=2.2)
        axes.scatter([each["difference"] * scale], [place], s=26, color=color, zorder=3)
    axes.axvline(0, color=COLORS[0], lw=0.9, ls="--", zorder=0)
    axes.set_yticks(
        range(len(found)), [f"{each['contrast']}\n{each['budget']}" for each in reversed(found)], fontsize=7.5
    )
    axes.set_title("differences, 95 % over seeds; red: the primary one", fontsize=9.5, color=INK)


def picture(document: Mapping[str, Any]) -> Figure:
    """Runs on the left, contrasts on the right."""
    plan, results = document["settings"], document["results"]
    metric, budget = plan["primary"]["metric"], plan["primary"]["budget"]
    told = plan["metrics"][metric]
    number = sum(1 for each in (results["primary"], *results["secondary"]) if each and each["metric"] == metric)
    found, axes = figure(2, width=11, height=max(3.4, 0.42 * number + 1.2))
    runs(axes[0], results["arms"][budget], metric, told["scale"])
    axes[0].set_title(textwrap.fill(f"{told['text']}, {budget}; a dot a seed", 60), fontsize=9.5, color=INK)
    contrasts(axes[1], plan, results, metric)
    return found


def draw(result: Path) -> Path:
    """Write the picture of a result to the pages' images."""
    document = json.loads(result.read_text())
    name = IMAGES / f"science-{result.stem.replace('_', '-')}.png"
    with atomic(name) as stream:
        picture(document).savefig(stream, format="png")
    return name
