"""A plan as tables that fit 100 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbg_lightning.schedule.plan import Plan
from nbg_lightning.schedule.texts import format_epochs, format_learning_rate, format_percent, format_theta
from nbg_lightning.schedule.tokens import format_tokens

if TYPE_CHECKING:
    from rich.console import Console


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
            format_percent(stage.share),
            f"{stage.steps:,}",
            rate,
            f"{stage.sequence_length:,}",
            format_theta(stage.rope_theta),
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
                format_percent(part.share),
                format_tokens(part.tokens),
                format_epochs(part.epochs),
                format_epochs(part.cumulative_epochs),
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
            format_percent(source.tokens / plan.tokens),
            format_epochs(source.epochs),
        )
    console.print(table)
    for warning in plan.warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), warning.message), soft_wrap=False)
