"""A plan as lines and a table that fit 80 columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nbg_lightning.planning.plan import PhasePlan, ResourcePlan
from nbg_lightning.quantities import count_text
from nbg_lightning.schedule.tokens import format_tokens

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


_NUMBERS = (
    "window", "tokens\na step", "forwards\nx rows", "GiB\na GPU", "s a\nstep", "tokens\na s", "GB\nin", "days", "GPU\nhours",
)  # fmt: skip


def print_resources(plan: ResourcePlan, title: str, console: Console | None = None) -> None:
    """Print a plan: model and cluster, a row a phase, and what to change where it does not fit."""
    from rich.console import Console as RichConsole

    if console is None:
        console = RichConsole()
        if not console.is_terminal:
            console = RichConsole(width=100)
    for line in lines(plan, title):
        console.print(line, highlight=False)
    console.print(_table(plan))
    for line in verdict(plan):
        console.print(line, highlight=False)


def lines(plan: ResourcePlan, title: str) -> Iterator[str]:
    """The header: the workload and the cluster."""
    workload, cluster = plan.workload, plan.cluster
    parallel = workload.parallel
    copies = cluster.copies(parallel)
    adapter = (
        "" if workload.trained.lora is None else f" ({format_tokens(workload.num_trained)} in the adapter are trained)"
    )
    yield (
        f"{title}: {workload.task} of {format_tokens(workload.shape.num_parameters)} parameters{adapter} on {cluster.ranks} x "
        f"{plan.device.name} ({count_text(cluster.nodes, 'node')}, "
        f"{'one copy' if copies == 1 else f'{copies} copies'} of the sharded model)"
    )
    float8 = "" if parallel.float8 == "none" else f", float8 {parallel.float8}"
    context = "" if parallel.context == 1 else f", {parallel.context} ranks per window"
    checkpointing = f"activation checkpointing {parallel.activation_checkpointing}"
    muon = ", Muon" if workload.trained.algorithm == "muon" else ""
    yield f"{parallel.compute_dtype}{float8}, {checkpointing}{context}{muon} (predicted, not measured)"
    yield _of_time(plan)


def _of_time(plan: ResourcePlan) -> str:
    """What the time is predicted for."""
    workload, phase = plan.workload, plan.phases[0].phase
    if workload.answer:
        mean = workload.answer if phase.answer is None else phase.answer
        return f"time: answers of {mean:,.0f} tokens on average; memory: of {workload.answer:,}"
    if phase.attended == phase.window and phase.computed == 1:
        return "time: full windows; --prepared counts what the data hold"
    predicted = workload.predicted if phase.predicted is None else phase.predicted
    return (
        f"time: documents of {phase.attended:,} tokens, {phase.computed:.0%} of the positions computed, logits at "
        f"{predicted:.0%}; memory: full windows"
    )


def _table(plan: ResourcePlan) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column("phase", style="bold", overflow="fold")
    for header in _NUMBERS:
        table.add_column(header, justify="right", no_wrap=True)
    for phase in plan.phases:
        table.add_row(*_cells(phase, plan))
    return table


def _cells(phase: PhasePlan, plan: ResourcePlan) -> list[str]:
    hours = phase.hours
    return [
        phase.phase.name,
        f"{phase.phase.window:,}",
        format_tokens(phase.phase.tokens_per_step),
        f"{phase.forwards} x {phase.rows}",
        f"{phase.memory.total:.1f}" + ("" if phase.memory.total <= plan.room else " !"),
        f"{phase.time.total:.3g}",
        format_tokens(phase.phase.tokens_per_step * phase.phase.computed / phase.time.total),
        f"{phase.time.communicated:.0f}",
        "?" if hours is None else f"{hours / 24:.3g}",
        "?" if hours is None else f"{hours * plan.cluster.ranks:,.0f}",
    ]


def verdict(plan: ResourcePlan) -> Iterator[str]:
    """The memory of the largest phase by kind, whether it fits, and what would."""
    largest = max(plan.phases, key=lambda phase: phase.memory.total)
    parts = ", ".join(f"{name} {size:.1f}" for name, size in dataclasses.asdict(largest.memory).items())
    yield f"memory of {largest.phase.name}: {parts} GiB"
    engine = plan.workload.engine_share * plan.device.memory
    rest = f" beside the engine's {engine:.0f} GiB" if engine else ""
    if plan.fits:
        yield f"fits: {plan.room:.1f} GiB are free for it{rest}, after {plan.device.reserved:.0f} GiB that the device keeps"
        return
    yield f"does NOT fit: {plan.room:.1f} GiB are free for it{rest}; one setting changed:"
    for change in plan.changes:
        fits = "fits" if change.total <= plan.room else "still too much"
        yield f"  {change.setting}  -> {change.total:.1f} GiB, {fits}"
    if not any(change.total <= plan.room for change in plan.changes):
        yield "  none of these alone is enough: combine them, or take a device with more memory"


def as_json(plan: ResourcePlan) -> dict[str, Any]:
    """The plan as plain values."""
    return {
        "task": plan.workload.task,
        "parameters": plan.workload.shape.num_parameters,
        "trained": plan.workload.num_trained,
        "ranks": plan.cluster.ranks,
        "context": plan.workload.parallel.context,
        "device": plan.device.name,
        "room_gib": plan.room,
        "fits": plan.fits,
        "phases": [
            {
                **dataclasses.asdict(phase.phase),
                "forwards": phase.forwards,
                "rows": phase.rows,
                "memory_gib": {**dataclasses.asdict(phase.memory), "total": phase.memory.total},
                "step_seconds": {**dataclasses.asdict(phase.time), "total": phase.time.total},
            }
            for phase in plan.phases
        ],
        "changes": [dataclasses.asdict(change) for change in plan.changes],
    }
