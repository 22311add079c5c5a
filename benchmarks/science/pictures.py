"""The figures of docs/science.md, from the experiments' JSON results; those without results are skipped.

python benchmarks/science/pictures.py
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from seeds import RESULTS

IMAGES = Path(__file__).parents[2] / "docs" / "images"
COLORS = ("#8a8f98", "#2a6fbb", "#d1495b", "#3f9c6b", "#e3a008", "#7b5ea7", "#00798c", "#5a3e2b", "#b0b7c3")
INK = "#2b2f36"


def figure(columns: int, width: float = 9.5, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    """Axes side by side, without a display."""
    found = Figure(figsize=(width, height), dpi=110, facecolor="white", layout="constrained")
    FigureCanvasAgg(found)
    axes = found.subplots(1, columns, squeeze=False)[0]
    for each in axes:
        each.tick_params(colors=INK, labelsize=8.5)
        for side in ("top", "right"):
            each.spines[side].set_visible(False)
    return found, list(axes)


def arms(axes: Axes, values: Mapping[str, Sequence[float]], title: str, percent: bool = False) -> None:
    """A column an arm: a dot a seed, a line at the mean; thin lines join the runs of a seed."""
    scale = 100.0 if percent else 1.0
    names = list(values)
    for seed in range(len(next(iter(values.values())))):
        axes.plot(range(len(names)), [values[name][seed] * scale for name in names], color="#d5d8dd", lw=0.8, zorder=1)
    for place, name in enumerate(names):
        own = [value * scale for value in values[name]]
        axes.scatter([place] * len(own), own, s=22, color=COLORS[place % len(COLORS)], zorder=3)
        axes.hlines(
            statistics.mean(own), place - 0.28, place + 0.28, color=COLORS[place % len(COLORS)], lw=2.4, zorder=2
        )
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names], fontsize=8)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_title(title, fontsize=9.5, color=INK)


def fg_wsd(results: dict[str, Any]) -> Figure:
    """Held-out bits per byte and choices of each arm."""
    found, axes = figure(3)
    metrics = (
        ("hq_bits_per_byte", "held-out HQ, bits a byte (lower is better)"),
        ("mq_bits_per_byte", "held-out MQ, bits a byte"),
        ("accuracy", "true continuation of four, %"),
    )
    for each, (metric, title) in zip(axes, metrics, strict=True):
        values = {arm: [run[metric] for run in runs] for arm, runs in results["runs"].items()}
        arms(each, values, title, metric == "accuracy")
    return found


def dpd_small(results: dict[str, Any]) -> Figure:
    """Accuracy of each model."""
    found, (axes,) = figure(1)
    short = {
        "sft_on_chosen_equal_compute": "SFT on chosen,\nequal compute",
        "sft_on_chosen_equal_answers": "SFT on chosen,\nequal answers",
        "token_terms_only": "token terms\nonly",
        "dpd_joint": "DPD,\njoint",
        "dpo_only": "DPO only",
        "sft": "SFT student",
    }
    arms(
        axes,
        {short.get(name, name): own for name, own in results["accuracy_by_seed"].items()},
        "verified accuracy on sums that no stage has seen, %; a dot a seed",
        percent=True,
    )
    axes.set_ylim(0, 103)
    return found


def pass_rate_bands(results: dict[str, Any]) -> Figure:
    """What the steps were like, and what came of them."""
    found, axes = figure(3)
    for each, metric, title in (
        (axes[0], "pass_rate/mean", "pass rate of the answers trained on"),
        (axes[1], "rollout/zero_variance", "groups without variance"),
    ):
        for color, (band, steps) in zip(COLORS, results["steps_mean_over_seeds"].items(), strict=False):
            window = max(1, len(steps[metric]) // 10)
            sums = [0.0, *accumulate(steps[metric])]
            smooth = [(sums[end] - sums[end - window]) / window for end in range(window, len(sums))]
            each.plot(range(window, len(sums)), smooth, color=color, lw=1.6, label=band)
        each.set_title(title, fontsize=9.5, color=INK)
        each.set_xlabel("step (mean of the last tenth of the run, over seeds)", fontsize=8.5)
        each.set_ylim(0, 1)
    axes[0].legend(frameon=False, fontsize=8, title="band, %", title_fontsize=8)
    arms(axes[2], results["accuracy_by_seed"], "test accuracy (avg@4), %; a dot a seed", percent=True)
    return found


def filtering(results: dict[str, Any]) -> Figure:
    """Sources of the pools, and memory by size of the corpus."""
    found, axes = figure(2)
    pools = results["selection"]["pools"]
    sources = sorted(pools["hq"]["tokens_by_source"])
    left = [0.0] * len(pools)
    for number, source in enumerate(sources):
        share = [pool["tokens_by_source"].get(source, 0) / 1e6 for pool in pools.values()]
        axes[0].barh(list(pools), share, left=left, color=COLORS[number % len(COLORS)], label=source)
        left = [a + b for a, b in zip(left, share, strict=True)]
    axes[0].legend(frameon=False, fontsize=7.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    axes[0].set_title("million tokens of each pool, by source", fontsize=9.5, color=INK)
    sizes = [each["bytes"] / 1e9 for each in results["memory"]]
    axes[1].plot(sizes, [each["peak_bytes"] / 1e6 for each in results["memory"]], "o-", color=COLORS[1])
    axes[1].set_xscale("log")
    axes[1].set_ylim(0, 1.3 * max(each["peak_bytes"] for each in results["memory"]) / 1e6)
    axes[1].set_xlabel("corpus, GB", fontsize=8.5)
    axes[1].set_title("peak memory of tagging it in one process, MB", fontsize=9.5, color=INK)
    return found


def teacher_gap_surface(results: dict[str, Any]) -> Figure:
    """What DPD adds to SFT on the chosen answers, over the measured accuracy of the teacher; a line for each student."""
    found, [axes] = figure(1, width=6.4, height=3.6)
    students = sorted({name.partition(", ")[2] for name in results["arms"]})
    for color, student in zip(COLORS[1:], students, strict=False):
        own = {name: each for name, each in results["arms"].items() if name.endswith(student)}
        points = sorted((statistics.mean(each["teacher"]["metrics"]["accuracy"]), name) for name, each in own.items())
        intervals = {
            each["budget"]: (each["difference"], *each["interval_95"])
            for each in (results["primary"], *results["secondary"])
            if each and each["contrast"] == "joint - SFT on chosen"
        }
        places = [100 * place for place, _ in points]
        middle, low, high = ([100 * intervals[name][end] for _, name in points] for end in range(3))
        axes.plot(places, middle, "o-", color=color, lw=1.8, label=student)
        axes.vlines(places, low, high, color=color, lw=1.4)
    axes.axhline(0, color=COLORS[0], lw=0.9, ls="--", zorder=0)
    axes.set_xlabel("accuracy of the teacher, %", fontsize=8.5)
    axes.set_title("joint DPD - SFT on chosen, points; 95 % over seeds", fontsize=9.5, color=INK)
    axes.legend(frameon=False, fontsize=8)
    return found


PICTURES = {
    "filtering": filtering,
    "fg_wsd": fg_wsd,
    "dpd_small": dpd_small,
    "pass_rate_bands": pass_rate_bands,
    "teacher_gap": teacher_gap_surface,
}
"""By the experiment whose JSON they show."""


def main() -> None:
    for name, draw in PICTURES.items():
        file = RESULTS / f"{name}.json"
        if file.is_file():
            picture = IMAGES / f"science-{draw.__name__.replace('_', '-')}.png"
            draw(json.loads(file.read_text())["results"]).savefig(picture)
            print(picture)


if __name__ == "__main__":
    main()
