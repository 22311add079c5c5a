"""`nbg runs [FOLDER]`: the runs in a folder, with what came out of each."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.printable import printable
from nbg_lightning.quantities import size_text

if TYPE_CHECKING:
    from rich.table import Table

    from nbg_lightning.commands.run_folder import RunFolder

_STYLES = {"running": "bold green", "failed": "red", "killed": "red", "stopped": "yellow", "unknown": "dim"}
_LABELS = {"validation loss": "val", "validation accuracy": "val acc", "held-out reward": "val reward"}  # short forms


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
    """
    arguments = parser().parse_args(argv)
    root = Path(arguments.folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"folder is invalid: {arguments.folder}; there is no such folder: give one with runs (default_root_dir of trainings)"
        )

    from nbg_lightning.commands.run_folder import find_runs, read_run

    runs = [read_run(path) for path in find_runs(root)]
    if arguments.json:
        print(json.dumps([as_json(run) for run in runs], indent=1, allow_nan=False))
        return 0
    if not runs:
        raise FileNotFoundError(f"there is no run in {arguments.folder}; start one with nbg fit")
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    console.print(table(runs, root))
    for run in runs:
        if run.problem is not None:
            console.print(printable(f"{_name(run, root)}: {run.problem}"), style="dim", markup=False, soft_wrap=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(prog="nbg runs", description="List the runs in a folder, with their latest results.")
    made.add_argument(
        "folder", nargs="?", default="runs", metavar="FOLDER", help="searched four levels deep (default runs)"
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return made


def as_json(run: RunFolder) -> dict[str, Any]:
    """A run as plain values."""
    paths = {"path": str(run.path), "checkpoint": None if run.checkpoint is None else str(run.checkpoint)}
    return {**vars(run), **paths}


def table(runs: Sequence[RunFolder], root: Path) -> Table:
    """Rows are runs."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    names = ("run", "state", "step", "stage", "results", "size", "age")
    now, rows = time.time(), []
    for run in runs:
        steps = "" if run.step is None else f"{run.step:,}" + ("" if run.steps is None else f"/{run.steps:,}")
        cells = [
            _name(run, root).replace("\n", " "),
            run.state,
            steps,
            run.stage or "",
            _numbers({_LABELS.get(name, name): value for name, value in run.results.items()} | run.benchmarks),
            size_text(run.size),
            age(now - run.changed),
        ]
        shown = [Text("\n".join(printable(line)[:300] for line in cell.split("\n"))) for cell in cells]
        shown[1].stylize(_STYLES.get(run.state, ""))
        rows.append(shown)
    made = Table(box=box.SIMPLE_HEAD)
    kept = [
        place for place in range(len(names)) if any(row[place] for row in rows)
    ]  # a column without a value is left out
    for place in kept:
        right = names[place] in ("step", "size", "age")
        whole = right or names[place] in ("state", "stage")
        made.add_column(names[place], justify="right" if right else "left", no_wrap=whole, overflow="fold")
    for row in rows:
        made.add_row(*(row[place] for place in kept))
    return made


def _name(run: RunFolder, root: Path) -> str:
    return str(run.path.relative_to(root)) if run.path != root else str(root)


def _numbers(values: dict[str, float]) -> str:
    return "\n".join(f"{name.replace(chr(10), ' ')} {value:.3g}" for name, value in values.items())


def age(seconds: float) -> str:
    """A time span for people.

    Example:
        >>> age(59), age(7200), age(260_000)
        ('59 s', '2 h', '3 d')
    """
    for unit, length, bound in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 172_800)):
        if seconds < bound:
            return f"{max(seconds, 0) / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
