"""Charts of a recipe's report: training curves of a step, pass rates of its questions, benchmarks over the stages."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbg_lightning.drawing import literal_text
from nbg_lightning.pages.document import text
from nbg_lightning.printable import printable
from nbg_lightning.recipe.gather import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (4.4, 2.9)  # inches
INK = "#7d8796"  # of axes and words: it can be read on white and on black
SMOOTHED_FROM = 30  # points; fewer are drawn as they are
SMOOTHED_SHARE = 20  # the half-life of the mean is this part of the curve


@dataclass(frozen=True)
class Chart:
    """A chart of several curves of a run.

    Attributes:
        title: title of the chart.
        tags: tags of the curves; one that ends in / is a prefix.
        suffix: suffix of the tags.
        stacked: shares of a whole, drawn as stacked areas with steps.
        noisy: drawn as a running mean, with the curve itself in the background.
    """

    title: str
    tags: tuple[str, ...]
    suffix: str = ""
    stacked: bool = False
    noisy: bool = True

    def has(self, tag: str) -> bool:
        """Whether a scalar of a run belongs here."""
        named = any(tag.startswith(each) if each.endswith("/") else tag == each for each in self.tags)
        return named and tag.endswith(self.suffix)


CHARTS = [
    Chart("learning rate", ("train/lr",), noisy=False),
    Chart("mixture", ("data/mixture/",), stacked=True),
    Chart("loss", ("train/loss",)),
    Chart("validation loss", ("val/",), "loss", noisy=False),
    Chart("reward", ("reward/",)),
    Chart("pass rate", ("pass_rate/",)),
    Chart("preference accuracy", ("train/accuracy",)),
    Chart("margin", ("train/margin",)),
    Chart("answer length in tokens", ("rollout/length",)),
    Chart("entropy", ("policy/entropy",)),
]


def charted(curves: Mapping[str, Curve]) -> Iterable[tuple[Chart, dict[str, Curve]]]:
    """Every chart for which a step has curves, with these curves."""
    for chart in CHARTS:
        chosen = {tag: curve for tag, curve in curves.items() if chart.has(tag) and len(curve.steps) > 1}
        if chosen:
            yield chart, chosen


def curve_images(curves: Mapping[str, Curve]) -> Iterable[str]:
    """The charts of a step, each as an ``<img>``."""
    for chart, chosen in charted(curves):
        yield _image(chart.title, draw_curves(chart, chosen))


def _image(title: str, source: str) -> str:
    return f"<img alt='{text(title)}' src='{source}'>"


@literal_text
def draw_curves(chart: Chart, curves: Mapping[str, Curve]) -> str:
    """Curves as a data URI; noisy ones as their running mean, with the curve itself behind it."""
    axes = _axes(chart.title)
    names = [_label(tag, _common(curves)) for tag in curves]
    if chart.stacked:
        steps = sorted({step for curve in curves.values() for step in curve.steps})
        shares = [carried(curve, steps) for curve in curves.values()]
        axes.stackplot(steps, *shares, labels=names, alpha=0.85, step="post")
        axes.set_ylim(0, 1)
    else:
        for name, curve in zip(names, curves.values(), strict=True):
            smooth = smoothed(curve.values) if chart.noisy else curve.values
            (line,) = axes.plot(curve.steps, smooth, label=name, linewidth=1.4)
            if smooth is not curve.values:
                axes.plot(curve.steps, curve.values, color=line.get_color(), linewidth=0.7, alpha=0.3)
    axes.set_xlabel("step", fontsize=8)
    if len(curves) > 1:
        legend = {"fontsize": 7, "frameon": False, "labelcolor": INK}
        place: Any = axes.figure if chart.stacked else axes  # beside areas, which leave no room
        place.legend(**legend, **({"loc": "outside lower center", "ncols": 3} if chart.stacked else {}))
    return _embedded(axes)


def _label(tag: str, common: str) -> str:
    """A curve's name without what all share; of a loss over all sources, ``all``."""
    rest = tag.removeprefix(common)
    return printable("all" if common and rest == "loss" else rest.removesuffix("/loss") or tag)


def smoothed(values: Sequence[float]) -> Sequence[float]:
    """The running mean of a long curve, with weights that halve over a twentieth of it; a short one unchanged.

    Weights are normalized by their sum (bias correction), so a constant stays constant.
    """
    if len(values) < SMOOTHED_FROM:
        return values
    keep = 0.5 ** (SMOOTHED_SHARE / len(values))
    total = weight = 0.0
    means = []
    for value in values:
        total, weight = total * keep + value, weight * keep + 1
        means.append(total / weight)
    return means


def carried(curve: Curve, steps: Sequence[int]) -> list[float]:
    """The curve's value at each step: the last one that was logged, and 0 before the first.

    Example:
        >>> carried(Curve([2, 4], [0.5, 1.0]), [1, 2, 3, 4])
        [0.0, 0.5, 0.5, 1.0]
    """
    points = dict(zip(curve.steps, curve.values, strict=True))
    last, found = 0.0, []
    for step in steps:
        last = points.get(step, last)
        found.append(last)
    return found


def _common(curves: Mapping[str, Curve]) -> str:
    """The groups that all tags share; of a single one, none."""
    return os.path.commonpath(list(curves)) + "/" if len(curves) > 1 else ""


@literal_text
def histogram_image(bins: Sequence[tuple[str, int]]) -> str:
    """Questions by pass rate."""
    axes = _axes("questions by pass rate")
    places = range(len(bins))
    axes.bar(places, [count for _, count in bins], color="#4c78a8")
    axes.set_xticks(places, [label for label, _ in bins], rotation=60, fontsize=7)
    return _image("questions by pass rate", _embedded(axes))


@dataclass(frozen=True)
class Measured:
    """A benchmark result after a stage, or of a reference.

    Attributes:
        name: name of the stage.
        value: NaN without a result.
        low: lower end of its interval.
        high: upper end of its interval.
        reference: whether it belongs to a model that is not a stage.
    """

    name: str
    value: float
    low: float
    high: float
    reference: bool


@literal_text
def benchmark_image(name: str, metric: str, measured: Sequence[Measured]) -> str:
    """A benchmark over the stages with intervals; references are separate dashed lines."""
    axes = _axes(f"{printable(name)}: {printable(metric)}")
    stages = [each for each in measured if not each.reference and not math.isnan(each.value)]
    places = range(len(stages))
    spread = [[max(0.0, s.value - s.low) for s in stages], [max(0.0, s.high - s.value) for s in stages]]
    axes.errorbar(places, [s.value for s in stages], yerr=spread, fmt="o-", capsize=3, linewidth=1.3, color="#4c78a8")
    axes.set_xticks(places, [printable(s.name) for s in stages], fontsize=8)
    references = [each for each in measured if each.reference and not math.isnan(each.value)]
    for each, color in zip(references, ("#c8553d", "#c9982c", "#7b5ea7") * len(references), strict=False):
        axes.axhline(each.value, linestyle="--", linewidth=1, color=color, label=printable(each.name))
    if references:
        axes.legend(fontsize=7, frameon=False, labelcolor=INK)
    return _image(name, _embedded(axes))


def _axes(title: str) -> Axes:
    from matplotlib.figure import Figure

    axes: Any = Figure(figsize=SIZE, layout="constrained").subplots()
    axes.set_title(title, fontsize=10, color=INK)
    axes.tick_params(labelsize=8, colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(INK)
    return axes


def _embedded(axes: Axes) -> str:
    buffer = io.BytesIO()
    assert axes.figure is not None
    axes.figure.savefig(buffer, format="svg", transparent=True)  # type: ignore[union-attr]  # a whole figure, no part of one
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
