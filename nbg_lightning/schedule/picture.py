"""Plot of a plan: learning rate and mixture over tokens."""

from __future__ import annotations

import math
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nbg_lightning.drawing import literal_text
from nbg_lightning.schedule.plan import Plan, StagePlan
from nbg_lightning.schedule.texts import format_learning_rate, format_percent, format_theta
from nbg_lightning.schedule.tokens import format_tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _MUTED, _GRID = "#1f2933", "#6b7785", "#dfe4ea"
_LEARNING_RATE_COLOR = "#c2410c"
# Muted colours that stay apart for colour-blind readers and in grey print; more sources get them again,
# hatched.
_SOURCE_COLORS = (
    "#2f6690", "#81b29a", "#f2cc8f", "#e07a5f", "#6d597a",
    "#8ecae6", "#b5838d", "#588157", "#bc9c6c", "#3d405b",
)  # fmt: skip
_CURVE_POINTS = 200

Colors = dict[str, tuple[str, str]]
"""Source name -> colour and hatch."""


@literal_text
def draw_plan(plan: Plan, path: str | Path) -> None:
    """Draw learning rate and mixture over tokens into a PNG file.

    A stage that would be too narrow to read, such as a warm-up of 0.4 %, is drawn wider than its share; the
    picture says so. The tokens axis is linear inside each stage.

    Args:
        plan: What to draw.
        path: File to write; its folder must exist.
    """
    # The object interface with the Agg canvas: no display, no change to the global state of pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = 12.0
    figure = Figure(figsize=(width, 6.6), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [1.15, 1], "hspace": 0.1})
    left, right = 0.07, 0.975
    edges = _stage_edges([stage.share for stage in plan.stages])
    inches = [(b - a) * (right - left) * width for a, b in pairwise(edges)]

    colors = _colors(plan)
    header = 0.5 + _draw_headers(top, plan, edges, inches)
    _draw_learning_rate(top, plan, edges, inches)
    _draw_mixture(bottom, plan, edges, inches, colors)
    _draw_tokens_axis(bottom, plan, edges, (right - left) * width)
    for axes in (top, bottom):
        _style(axes, edges)
    # Heights in inches: the header grows with its lines, the legend with its rows.
    columns = min(len(colors), 6)
    legend = 0.7 + 0.26 * math.ceil(len(colors) / columns)
    height = 5.0 + header + legend
    figure.set_size_inches(width, height)
    figure.subplots_adjust(left=left, right=right, top=1 - header / height, bottom=legend / height)
    figure.legend(
        handles=_legend_handles(bottom, colors), loc="lower center", ncols=columns, frameon=False, fontsize=10,
        labelcolor=_INK, bbox_to_anchor=((left + right) / 2, 0.0), handlelength=1.2, handleheight=1.2, columnspacing=1.8,
    )  # fmt: skip
    title = f"{format_tokens(plan.tokens)} tokens · {plan.steps:,} steps of {format_tokens(plan.tokens_per_step)}"
    figure.text(left, 1 - 0.14 / height, title, fontsize=13, fontweight="bold", color=_INK, va="top")
    if note := _widened_note(plan, edges):
        figure.text(right, 1 - 0.17 / height, note, fontsize=9, fontstyle="italic", color=_MUTED, va="top", ha="right")
    figure.savefig(path, format="png")


def _colors(plan: Plan) -> Colors:
    """Colour and hatch of each source."""
    colors = {}
    for number, source in enumerate(plan.sources):
        round_trip, place = divmod(number, len(_SOURCE_COLORS))
        colors[source.source] = (_SOURCE_COLORS[place], "///" if round_trip else "")
    return colors


def _style(axes: Axes, edges: list[float]) -> None:
    """Quiet spines and ticks, and a dashed line at each border of stages."""
    axes.set_xlim(0, 1)
    axes.tick_params(colors=_MUTED, labelcolor=_INK, labelsize=9.5, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_MUTED)
    for edge in edges[1:-1]:
        axes.axvline(edge, color=_MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=4)


def _legend_handles(axes: Axes, colors: Colors) -> list[Any]:
    """A patch for each source."""
    return [
        axes.bar([0], [0], color=color, hatch=hatch, edgecolor="white", linewidth=0, label=name)
        for name, (color, hatch) in colors.items()
    ]


def _widened_note(plan: Plan, edges: list[float]) -> str:
    """A note about stages that are drawn wider than their share; empty if there are none."""
    widened = [
        stage.name for a, b, stage in zip(edges, edges[1:], plan.stages, strict=False) if b - a > 1.02 * stage.share
    ]
    if not widened:
        return ""
    single = len(widened) == 1 and len(widened[0]) < 30
    subject = f"{widened[0]!r} is drawn wider than its" if single else "short stages are drawn wider than their"
    return f"{subject} share of the tokens"


def _stage_edges(shares: list[float]) -> list[float]:
    """Stage borders on the axis from 0 to 1: token shares, but none narrower than is readable."""
    minimum = min(0.085, 0.6 / len(shares))
    widths = [max(share, minimum) for share in shares]
    # What the narrow ones take too much is taken from the wide ones, in proportion to what they have to
    # spare.
    excess = sum(widths) - 1
    spare = sum(width - minimum for width in widths)
    edges = [0.0]
    for width in widths:
        edges.append(edges[-1] + width - (excess * (width - minimum) / spare if spare else 0))
    edges[-1] = 1.0
    return edges


def _details(plan: Plan, stage: StagePlan) -> list[str]:
    """Size and share of a stage, and what distinguishes it from the others."""
    details = [format_tokens(stage.tokens), format_percent(stage.share)]
    if len({other.sequence_length for other in plan.stages}) > 1:
        details.append(f"{stage.sequence_length:,} window")
    if len({other.rope_theta for other in plan.stages}) > 1 and stage.rope_theta is not None:
        details.append(f"θ {format_theta(stage.rope_theta)}")
    return details


def _wrapped_name(name: str, room: float, size: float) -> list[str]:
    """A stage's name, wrapped to a width in inches."""
    # A bold letter is about 0.6 of the font size wide, a point is 1/72 inch.
    letters = max(6, int((room - 0.08) * 72 / (0.6 * size)))
    return textwrap.wrap(name.replace("_", " "), letters, break_long_words=True) or [name]


def _wrapped_details(details: list[str], room: float, size: float) -> list[str]:
    """The details, wrapped to a width in inches in as few lines as possible."""
    # Details are a little smaller and not bold.
    letters = max(6, int((room - 0.04) * 72 / (0.54 * (size - 0.8))))
    joined = [" · ".join(details[:2]), *details[2:]]
    if sum(map(len, details)) + 3 * (len(details) - 1) <= letters:
        return [" · ".join(details)]
    if len(joined[0]) > letters:
        return [line for detail in details for line in textwrap.wrap(detail, letters)]
    return joined


def _draw_headers(axes: Axes, plan: Plan, edges: list[float], inches: list[float]) -> float:
    """Names and sizes of the stages above the axes; returns the height they take, in inches."""
    size = 10.0 if min(inches) > 0.75 else 7.0
    blocks = [
        (_wrapped_name(stage.name, room, size), _wrapped_details(_details(plan, stage), room, size))
        for stage, room in zip(plan.stages, inches, strict=True)
    ]
    name_lines = max(len(name) for name, _ in blocks)
    detail_lines = max(len(details) for _, details in blocks)
    for (name, details), a, b in zip(blocks, edges, edges[1:], strict=False):
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        place |= {"ha": "center", "va": "baseline"}
        # Names stand on one line over all stages, details hang below it.
        line = 1.32 * size
        axes.annotate(
            "\n".join(name), ((a + b) / 2, 1.0), xytext=(0, 8 + line * detail_lines), fontsize=size,
            fontweight="bold", color=_INK, linespacing=1.15, **place,
        )  # fmt: skip
        place["va"] = "top"
        axes.annotate(
            "\n".join(details), ((a + b) / 2, 1.0), xytext=(0, 4 + line * detail_lines), fontsize=size - 0.8,
            color=_MUTED, linespacing=1.2, **place,
        )  # fmt: skip
    return (name_lines + detail_lines) * 1.32 * size / 72


def _draw_learning_rate(axes: Axes, plan: Plan, edges: list[float], inches: list[float]) -> None:
    x: list[float] = []
    rates: list[float] = []
    for rule, a, b in zip(plan.curriculum.stages, edges, edges[1:], strict=False):
        for point in range(_CURVE_POINTS + 1):
            progress = point / _CURVE_POINTS
            x.append(a + (b - a) * progress)
            rates.append(rule.learning_rate_at(progress))
    highest = max(rates) or 1.0  # a run at learning rate 0 is drawn too
    exponent = math.floor(math.log10(highest))
    axes.plot(x, [rate / 10**exponent for rate in rates], color=_LEARNING_RATE_COLOR, linewidth=2.4, zorder=5)
    axes.fill_between(x, [rate / 10**exponent for rate in rates], color=_LEARNING_RATE_COLOR, alpha=0.07, linewidth=0)
    axes.set_ylim(0, highest / 10**exponent * 1.22)
    axes.set_ylabel(f"learning rate  (×1e{exponent})", color=_INK, fontsize=10.5, labelpad=8)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", bottom=False)
    for place, mark in _marks(plan, edges, 0.6 / sum(inches)).items():
        _draw_mark(axes, plan, place, mark, inches[mark.stage], highest)


class _Mark(NamedTuple):
    """A learning-rate label: its value, where the line continues, and the index of its stage."""

    rate: float
    side: Literal["left", "center", "right"]
    stage: int


def _marks(plan: Plan, edges: list[float], distance: float) -> dict[float, _Mark]:
    """One label wherever the learning rate starts, ends, jumps, or changes its slope.

    Of overlapping labels the earlier one is kept, and always the last.
    """
    marks: dict[float, _Mark] = {}
    for number, (stage, a, b) in enumerate(zip(plan.stages, edges, edges[1:], strict=False)):
        first, last = stage.learning_rate_start, stage.learning_rate_end
        final = number == len(plan.stages) - 1
        if number == 0 or plan.stages[number - 1].learning_rate_end != first:
            marks[a] = _Mark(first, "left", number)
        elif first != last:
            marks[a] = _Mark(first, "center", number)
        if first != last or final:
            marks[b] = _Mark(last, "right" if final else "center", number)
    kept: list[float] = []
    for place in sorted(marks):
        if place == 1.0 or (place <= 1 - distance and (not kept or place - kept[-1] >= distance)):
            kept.append(place)
    return {place: marks[place] for place in kept}


def _draw_mark(axes: Axes, plan: Plan, place: float, mark: _Mark, room: float, highest: float) -> None:
    """A dot on the line and its learning rate beside it."""
    rate, side, number = mark
    y = rate / 10 ** math.floor(math.log10(highest))
    # At the foot of a steep slope the label stands beside the line, elsewhere above it.
    reach = min(1.0, 0.5 / room)
    nearby = plan.curriculum.stages[number].learning_rate_at(reach if side == "left" else 1 - reach)
    beside = side != "center" and nearby - rate > 0.15 * highest
    inward = {"left": 1, "center": 0, "right": -1}[side]
    # It must clear the line at its far end too; the curve is about 150 points high.
    lift = 7 + 150 * max(0.0, nearby - rate) / highest if side != "center" else 7
    offset = (inward * 13, 2) if beside else (inward * 2, lift)
    axes.plot([place], [y], "o", color=_LEARNING_RATE_COLOR, markersize=5, zorder=6, clip_on=False)
    axes.annotate(
        format_learning_rate(rate), (place, y), xytext=offset, textcoords="offset points", ha=side,
        va="bottom", fontsize=9.5, color=_LEARNING_RATE_COLOR, fontweight="bold", zorder=7,
        bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
    )  # fmt: skip


def _draw_mixture(axes: Axes, plan: Plan, edges: list[float], inches: list[float], colors: Colors) -> None:
    order = {source.source: number for number, source in enumerate(plan.sources)}
    for stage, a, b, room in zip(plan.stages, edges, edges[1:], inches, strict=False):
        base = 0.0
        for part in sorted(stage.mixture, key=lambda part: order[part.source]):
            color, hatch = colors[part.source]
            axes.bar(
                [a], [100 * part.share], width=b - a, bottom=base, align="edge", color=color, hatch=hatch,
                edgecolor="white", linewidth=0.8, zorder=2,
            )  # fmt: skip
            # Of the 2.3 inches that 100 % have a label needs 0.15, a small one 0.09; and half an inch of
            # width.
            if part.share >= 0.04 and room > 0.5:
                red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.6
                axes.text(
                    (a + b) / 2, base + 50 * part.share, f"{100 * part.share:.0f} %", ha="center",
                    va="center_baseline", fontsize=9.5 if part.share >= 0.07 else 7, color="white" if dark
                    else _INK, zorder=5,
                )  # fmt: skip
            base += 100 * part.share
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_ylabel("mixture  (% of tokens)", color=_INK, fontsize=10.5, labelpad=8)


def _draw_tokens_axis(axes: Axes, plan: Plan, edges: list[float], inches: float) -> None:
    """Ticks at the stage borders, and round numbers between them where there is room."""
    borders = [*(stage.first_token for stage in plan.stages), plan.tokens]

    def place(tokens: float) -> float:
        index = min(max(i for i, border in enumerate(borders) if border <= tokens), len(plan.stages) - 1)
        a, b = borders[index], borders[index + 1]
        return edges[index] + (edges[index + 1] - edges[index]) * (tokens - a) / (b - a)

    room = 0.5 / inches  # a label like "12.5T" and the space beside it
    ticks = dict(zip(edges, borders, strict=True))
    step = 10 ** math.floor(math.log10(plan.tokens))
    step = next(step * factor for factor in (1, 0.5, 0.2, 0.1) if plan.tokens / (step * factor) >= 5 or factor == 0.1)
    for number in range(1, int(plan.tokens / step) + 1):
        x = place(number * step)
        if all(abs(x - other) >= room for other in ticks):
            ticks[x] = number * step
    # As many digits as it takes to tell the borders apart.
    labels = next(
        labels
        for digits in range(3, 20)
        if len(set(labels := [format_tokens(tokens, digits) for tokens in ticks.values()])) == len(ticks)
    )
    axes.set_xticks(list(ticks), labels)
    axes.set_xlabel("tokens", color=_INK, fontsize=10.5, labelpad=4)
