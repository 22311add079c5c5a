"""A plan as tables that fit 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbg_lightning.schedule.plan import Plan, StagePlan
from nbg_lightning.schedule.texts import format_epochs, format_learning_rate, format_percent, format_theta
from nbg_lightning.schedule.tokens import format_tokens

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_RATE = "learning\nrate"
_STAGE_HEADERS = ("tokens", "share", "steps", _RATE, "window", "RoPE\ntheta", "windows\na step")


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print the plan as tables that fit 80 columns.

    Args:
        plan: What to print.
        console: Where to print; by default standard output, 100 columns wide where it is not a terminal.
    """
    from rich.console import Console as RichConsole
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
    for table in (_stages(plan), _mixtures(plan), _sources(plan)):
        console.print(table)
    for warning in plan.warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), warning.message), soft_wrap=False)


def _table(title: str, names: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    """An empty table whose first columns hold names, and whose others hold numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for index, header in enumerate(names):
        table.add_column(header, style="bold" if index == 0 else "", overflow="fold")
    for header in numbers:
        # The learning rate takes a third line where names need the columns.
        table.add_column(header, justify="right", no_wrap=header != _RATE)
    return table


def _stages(plan: Plan) -> Table:
    from rich.text import Text

    table = _table("Stages", ("stage",), _STAGE_HEADERS)
    table.padding, table.collapse_padding = (0, 1), True
    for stage in plan.stages:
        table.add_row(
            Text(stage.name),
            _tokens(stage),
            format_percent(stage.share),
            f"{stage.steps:,}",
            _learning_rate(stage),
            f"{stage.sequence_length:,}",
            format_theta(stage.rope_theta),
            f"{stage.samples_per_step:,}",
        )
    return table


def _tokens(stage: StagePlan) -> str:
    """The stage's tokens; below them those that were requested, where whole steps make a visible difference."""
    achieved, requested = format_tokens(stage.tokens), format_tokens(stage.requested_tokens)
    return achieved if achieved == requested else f"{achieved}\n(of {requested})"


def _learning_rate(stage: StagePlan) -> str:
    """The stage's learning rate, or its two ends."""
    end = format_learning_rate(stage.learning_rate_end)
    if stage.decay == "constant":
        return end
    return f"{format_learning_rate(stage.learning_rate_start)} →\n{end} {stage.decay}"


def _mixtures(plan: Plan) -> Table:
    from rich.text import Text

    table = _table("Mixture", ("stage", "source"), ("share", "tokens", "epochs in stage", "epochs so far"))
    for stage in plan.stages:
        for number, part in enumerate(stage.mixture):
            table.add_row(
                Text(stage.name if number == 0 else ""),
                Text(part.source),
                format_percent(part.share),
                format_tokens(part.tokens),
                format_epochs(part.epochs),
                format_epochs(part.cumulative_epochs),
                end_section=number == len(stage.mixture) - 1,
            )
    return table


def _sources(plan: Plan) -> Table:
    from rich.text import Text

    table = _table("Sources over the whole run", ("source",), ("size", "tokens", "share", "epochs"))
    for source in plan.sources:
        table.add_row(
            Text(source.source),
            "?" if source.size is None else format_tokens(source.size),
            format_tokens(source.tokens),
            format_percent(source.tokens / plan.tokens),
            format_epochs(source.epochs),
        )
    return table
