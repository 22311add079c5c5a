"""What a curriculum will do, before anyone pays for it: a plan as data, as a table and as a picture.

Everything is computed per stage, never per step, so 23T tokens take as long as 23K.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nbg_lightning.drawing import literal_text
from nbg_lightning.schedules import Curriculum, format_tokens, parse_tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

# Up to four epochs repeated data is worth almost as much as new data; Muennighoff et al., arXiv 2305.16264.
MAX_USEFUL_EPOCHS = 4.0
# Rounding to whole steps always moves a stage a little; below this it is no news.
ROUNDING_TOLERANCE = 1e-3


@dataclass(frozen=True)
class SourceShare:
    """What one stage takes from one source.

    Args:
        source: Name of the source.
        share: Part of the stage's tokens, 0 to 1.
        tokens: Tokens drawn in this stage.
        epochs: How often this stage goes through the source; None if its size is unknown.
        cumulative_epochs: The same from the beginning of the run to the end of this stage.
    """

    source: str
    share: float
    tokens: int
    epochs: float | None
    cumulative_epochs: float | None


@dataclass(frozen=True)
class StagePlan:
    """One stage in numbers.

    Args:
        name: Name of the stage.
        requested_tokens: What the table asks for.
        tokens: What whole steps make of it.
        share: Part of the run's tokens, 0 to 1.
        first_step: First optimizer step, from 0.
        steps: Number of optimizer steps.
        first_token: Tokens consumed before the stage.
        learning_rate_start: Value of the learning-rate rule before the first step.
        learning_rate_end: Learning rate of the last step.
        decay: Form of the learning rate between the two.
        sequence_length: Tokens in a window.
        rope_theta: RoPE base; None is the model's own.
        samples_per_step: Windows in a step, over all ranks.
        mixture: What is taken from each source of positive weight.
    """

    name: str
    requested_tokens: int
    tokens: int
    share: float
    first_step: int
    steps: int
    first_token: int
    learning_rate_start: float
    learning_rate_end: float
    decay: str
    sequence_length: int
    rope_theta: float | None
    samples_per_step: int
    mixture: list[SourceShare]


@dataclass(frozen=True)
class SourcePlan:
    """One source over the whole run; `size` and `epochs` are None where the size is unknown."""

    source: str
    size: int | None
    tokens: int
    epochs: float | None


@dataclass(frozen=True)
class PlanWarning:
    """Something that is allowed but probably not meant.

    Args:
        code: rounded-stage, learning-rate-jump, decay-without-effect, repeated-source or unused-source.
        subject: The stage or source concerned.
        message: One line with cause and mend.
    """

    code: str
    subject: str
    message: str


@dataclass(frozen=True)
class Plan:
    """A curriculum in numbers; `requested_tokens` and `tokens` as in `StagePlan`."""

    requested_tokens: int
    tokens: int
    steps: int
    tokens_per_step: int
    stages: list[StagePlan]
    sources: list[SourcePlan]
    warnings: list[PlanWarning]
    curriculum: Curriculum


def make_plan(curriculum: Curriculum, source_tokens: Mapping[str, int | float | str | None] | None = None) -> Plan:
    """What the run will take from every source, stage by stage.

    Args:
        curriculum: The stages.
        source_tokens: Size of each source in tokens, prepared or declared ("6.5T"); a source that is None or
            missing has an unknown size.

    Raises:
        ValueError: A size is no positive number of tokens.

    >>> from nbg_lightning.schedules import Stage
    >>> curriculum = Curriculum([Stage("only", "1M", 1e-3, {"web": 3, "qa": 1})], 1000, sequence_length=100)
    >>> plan = make_plan(curriculum, {"web": "0.5M"})
    >>> [(source.source, source.tokens, source.epochs) for source in plan.sources]
    [('web', 750000, 1.5), ('qa', 250000, None)]
    """
    sizes: dict[str, int] = {}
    for source, declared in (source_tokens or {}).items():
        if declared is not None:
            try:
                sizes[source] = parse_tokens(declared)
            except ValueError as error:
                raise ValueError(f"size of source {source!r}: {error}") from error
            if sizes[source] == 0:
                raise ValueError(f"source {source!r} has 0 tokens; prepare it, or leave its size out if it is unknown")
    taken = dict.fromkeys(curriculum.sources, 0)

    def epochs_of(source: str, tokens: int) -> float | None:
        return tokens / sizes[source] if source in sizes else None

    stages = []
    for index, stage in enumerate(curriculum.stages):
        tokens = curriculum.tokens_of(index)
        mixture = []
        for source, share in stage.shares.items():
            drawn = round(tokens * share)
            taken[source] += drawn
            mixture.append(
                SourceShare(source, share, drawn, epochs_of(source, drawn), epochs_of(source, taken[source]))
            )
        start, end = stage.learning_rate_ends
        stages.append(
            StagePlan(
                name=stage.name,
                requested_tokens=int(stage.tokens),
                tokens=tokens,
                share=tokens / curriculum.num_tokens,
                first_step=curriculum.first_step(index),
                steps=curriculum.steps_of(index),
                first_token=curriculum.first_step(index) * int(curriculum.tokens_per_step),
                learning_rate_start=start,
                learning_rate_end=end,
                decay=stage.decay if start != end else "constant",
                sequence_length=curriculum.sequence_length_of(index),
                rope_theta=stage.rope_theta,
                samples_per_step=curriculum.samples_per_step(index),
                mixture=mixture,
            )
        )
    sources = [SourcePlan(name, sizes.get(name), tokens, epochs_of(name, tokens)) for name, tokens in taken.items()]
    return Plan(
        requested_tokens=sum(stage.requested_tokens for stage in stages),
        tokens=curriculum.num_tokens,
        steps=curriculum.num_steps,
        tokens_per_step=int(curriculum.tokens_per_step),
        stages=stages,
        sources=sources,
        warnings=_stage_warnings(curriculum, stages) + _source_warnings(sources, source_tokens or {}),
        curriculum=curriculum,
    )


def _stage_warnings(curriculum: Curriculum, stages: list[StagePlan]) -> list[PlanWarning]:
    found = []
    for stage, before in zip(stages, [None, *stages], strict=False):
        if abs(stage.tokens - stage.requested_tokens) > ROUNDING_TOLERANCE * stage.requested_tokens:
            message = (
                f"stage {stage.name!r} asks for {stage.requested_tokens:,} tokens and gets {stage.tokens:,} "
                f"({stage.steps:,} whole steps of {curriculum.tokens_per_step:,}); "
                "use a multiple of tokens_per_step, or smaller steps"
            )
            found.append(PlanWarning("rounded-stage", stage.name, message))
        if before and not math.isclose(before.learning_rate_end, stage.learning_rate_start, rel_tol=1e-6):
            message = (
                f"the learning rate jumps from {before.learning_rate_end:g} at the end of stage "
                f"{before.name!r} "
                f"to {stage.learning_rate_start:g} at the start of {stage.name!r}; "
                "let each stage start where the one before ends, unless this is meant"
            )
            found.append(PlanWarning("learning-rate-jump", stage.name, message))
    for given in curriculum.stages:
        if given.decay != "linear" and given.learning_rate_ends[0] == given.learning_rate_ends[1]:
            message = (
                f"decay {given.decay!r} has no effect in stage {given.name!r}, whose learning rate is "
                "constant; "
                "remove it, or give lr as [start, end]"
            )
            found.append(PlanWarning("decay-without-effect", given.name, message))
    return found


def _source_warnings(sources: list[SourcePlan], source_tokens: Mapping[str, object]) -> list[PlanWarning]:
    found = []
    for source in sources:
        if source.epochs is not None and source.size is not None and source.epochs > MAX_USEFUL_EPOCHS:
            message = (
                f"source {source.source!r} is seen {source.epochs:.1f} times "
                f"({format_tokens(source.tokens)} from "
                f"{format_tokens(source.size)} tokens); beyond {MAX_USEFUL_EPOCHS:g} epochs repetition is "
                "worth "
                "little: lower its weight or add data"
            )
            found.append(PlanWarning("repeated-source", source.source, message))
    unused = [source.source for source in sources if source.tokens == 0]
    unused += [name for name in source_tokens if name not in {source.source for source in sources}]
    for name in unused:
        message = f"source {name!r} is used by no stage; give it a weight in one, or remove it"
        found.append(PlanWarning("unused-source", name, message))
    return found


def plan_to_json(plan: Plan) -> str:
    """The plan, with the curriculum it was made from, as an indented JSON object."""
    return json.dumps(asdict(plan), indent=2, ensure_ascii=False)


def format_learning_rate(value: float) -> str:
    """A learning rate as it is written in papers.

    >>> format_learning_rate(4.5e-4), format_learning_rate(1e-3), format_learning_rate(0.0)
    ('4.5e-4', '1e-3', '0')
    """
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _format_theta(value: float | None) -> str:
    return "model" if value is None else format_learning_rate(value).replace("e0", "")


def _format_percent(share: float) -> str:
    percent = 100 * share
    if share == 1:
        return "100 %"
    return f"{percent:.1f} %" if percent >= 0.1 else f"{percent:.1g} %"


def _format_epochs(epochs: float | None) -> str:
    return "?" if epochs is None else f"{epochs:.2f}"


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print the plan as tables that fit 100 columns.

    Args:
        plan: What to print.
        console: Where to print; by default standard output, 100 columns wide where that is no terminal.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    if console is None:
        console = RichConsole()
        if not console.is_terminal:
            console = RichConsole(width=100)
    console.print(
        f"{format_tokens(plan.tokens)} tokens in {plan.steps:,} steps of "
        f"{format_tokens(plan.tokens_per_step)} "
        f"({plan.tokens:,} tokens; requested {plan.requested_tokens:,})",
        highlight=False,
    )

    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="Stages", title_justify="left")
    table.padding, table.collapse_padding = (0, 1), True
    table.add_column("stage", style="bold", overflow="fold")
    headers = (
        "requested",
        "achieved",
        "share",
        "steps",
        "learning\nrate",
        "window",
        "RoPE\ntheta",
        "windows\na step",
    )
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for stage in plan.stages:
        rate = format_learning_rate(stage.learning_rate_end)
        if stage.decay != "constant":
            rate = f"{format_learning_rate(stage.learning_rate_start)} →\n{rate} {stage.decay}"
        table.add_row(
            Text(stage.name),
            format_tokens(stage.requested_tokens),
            format_tokens(stage.tokens),
            _format_percent(stage.share),
            f"{stage.steps:,}",
            rate,
            f"{stage.sequence_length:,}",
            _format_theta(stage.rope_theta),
            f"{stage.samples_per_step:,}",
        )
    console.print(table)

    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="Mixture", title_justify="left")
    table.add_column("stage", style="bold", overflow="fold")
    table.add_column("source", overflow="fold")
    for header in ("share", "tokens", "epochs in stage", "epochs so far"):
        table.add_column(header, justify="right", no_wrap=True)
    for stage in plan.stages:
        for number, part in enumerate(stage.mixture):
            table.add_row(
                Text(stage.name if number == 0 else ""),
                Text(part.source),
                _format_percent(part.share),
                format_tokens(part.tokens),
                _format_epochs(part.epochs),
                _format_epochs(part.cumulative_epochs),
                end_section=number == len(stage.mixture) - 1,
            )
    console.print(table)

    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="Sources over the whole run", title_justify="left")
    table.add_column("source", style="bold", overflow="fold")
    for header in ("size", "tokens", "share", "epochs"):
        table.add_column(header, justify="right", no_wrap=True)
    for source in plan.sources:
        table.add_row(
            Text(source.source),
            "?" if source.size is None else format_tokens(source.size),
            format_tokens(source.tokens),
            _format_percent(source.tokens / plan.tokens),
            _format_epochs(source.epochs),
        )
    console.print(table)
    for warning in plan.warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), warning.message), soft_wrap=False)


# --- the picture ------------------------------------------------------------------------------------------

_INK, _MUTED, _GRID = "#1f2933", "#6b7785", "#dfe4ea"
_LEARNING_RATE_COLOR = "#c2410c"
# Muted colours that stay apart for colour-blind readers and in grey print; more sources get them again,
# hatched.
_SOURCE_COLORS = (
    "#2f6690", "#81b29a", "#f2cc8f", "#e07a5f", "#6d597a",
    "#8ecae6", "#b5838d", "#588157", "#bc9c6c", "#3d405b",
)  # fmt: skip
_CURVE_POINTS = 200


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

    colors = {}
    for number, source in enumerate(plan.sources):
        round_trip, place = divmod(number, len(_SOURCE_COLORS))
        colors[source.source] = (_SOURCE_COLORS[place], "///" if round_trip else "")

    header = 0.5 + _draw_headers(top, plan, edges, inches)
    _draw_learning_rate(top, plan, edges, inches)
    _draw_mixture(bottom, plan, edges, inches, colors)
    _draw_tokens_axis(bottom, plan, edges, (right - left) * width)
    for axes in (top, bottom):
        axes.set_xlim(0, 1)
        axes.tick_params(colors=_MUTED, labelcolor=_INK, labelsize=9.5, length=3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(_MUTED)
        for edge in edges[1:-1]:
            axes.axvline(edge, color=_MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=4)

    handles = [
        bottom.bar([0], [0], color=color, hatch=hatch, edgecolor="white", linewidth=0, label=name)
        for name, (color, hatch) in colors.items()
    ]
    columns = min(len(handles), 6)
    rows = math.ceil(len(handles) / columns)
    # Heights in inches: the header grows with its lines, the legend with its rows.
    legend = 0.7 + 0.26 * rows
    height = 5.0 + header + legend
    figure.set_size_inches(width, height)
    figure.subplots_adjust(left=left, right=right, top=1 - header / height, bottom=legend / height)
    figure.legend(
        handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=10, labelcolor=_INK,
        bbox_to_anchor=((left + right) / 2, 0.0), handlelength=1.2, handleheight=1.2, columnspacing=1.8,
    )  # fmt: skip
    title = f"{format_tokens(plan.tokens)} tokens · {plan.steps:,} steps of {format_tokens(plan.tokens_per_step)}"
    figure.text(left, 1 - 0.14 / height, title, fontsize=13, fontweight="bold", color=_INK, va="top")
    widened = [
        stage.name for a, b, stage in zip(edges, edges[1:], plan.stages, strict=False) if b - a > 1.02 * stage.share
    ]
    if widened:
        single = len(widened) == 1 and len(widened[0]) < 30
        subject = f"{widened[0]!r} is drawn wider than its" if single else "short stages are drawn wider than their"
        note = f"{subject} share of the tokens"
        figure.text(right, 1 - 0.17 / height, note, fontsize=9, fontstyle="italic", color=_MUTED, va="top", ha="right")
    figure.savefig(path, format="png")


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


def _draw_headers(axes: Axes, plan: Plan, edges: list[float], inches: list[float]) -> float:
    """Names and sizes of the stages above the axes; returns the height they take, in inches."""
    size = 10.0 if min(inches) > 0.75 else 7.0
    lengths = {stage.sequence_length for stage in plan.stages}
    thetas = {stage.rope_theta for stage in plan.stages}
    blocks = []
    for stage, room in zip(plan.stages, inches, strict=True):
        # A bold letter is about 0.6 of the font size wide, a point is 1/72 inch.
        letters = max(6, int((room - 0.08) * 72 / (0.6 * size)))
        name = textwrap.wrap(stage.name.replace("_", " "), letters, break_long_words=True) or [stage.name]
        # Details are a little smaller and not bold.
        letters = max(6, int((room - 0.04) * 72 / (0.54 * (size - 0.8))))
        details = [format_tokens(stage.tokens), _format_percent(stage.share)]
        if len(lengths) > 1:
            details.append(f"{stage.sequence_length:,} window")
        if len(thetas) > 1 and stage.rope_theta is not None:
            details.append(f"θ {_format_theta(stage.rope_theta)}")
        joined = [" · ".join(details[:2]), *details[2:]]
        if sum(map(len, details)) + 3 * (len(details) - 1) <= letters:
            joined = [" · ".join(details)]
        elif len(joined[0]) > letters:
            joined = [line for detail in details for line in textwrap.wrap(detail, letters)]
        blocks.append((name, joined))
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
    # One label wherever the rate has an end: start and end of the run, jumps, both ends of a slope.
    marks: dict[float, tuple[float, Literal["left", "center", "right"], int]] = {}
    for number, (stage, a, b) in enumerate(zip(plan.stages, edges, edges[1:], strict=False)):
        first, last = stage.learning_rate_start, stage.learning_rate_end
        final = number == len(plan.stages) - 1
        if number == 0 or plan.stages[number - 1].learning_rate_end != first:
            marks[a] = (first, "left", number)
        elif first != last:
            marks[a] = (first, "center", number)
        if first != last or final:
            marks[b] = (last, "right" if final else "center", number)
    # Of labels that would touch each other the earlier one stays, and the last one always.
    distance = 0.6 / sum(inches)
    kept: list[float] = []
    for place in sorted(marks):
        if place == 1.0 or (place <= 1 - distance and (not kept or place - kept[-1] >= distance)):
            kept.append(place)
    for place in kept:
        rate, side, number = marks[place]
        y = rate / 10**exponent
        # At the foot of a steep slope the label stands beside the line, elsewhere above it.
        reach = min(1.0, 0.5 / inches[number])
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


def _draw_mixture(
    axes: Axes, plan: Plan, edges: list[float], inches: list[float], colors: dict[str, tuple[str, str]]
) -> None:
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
