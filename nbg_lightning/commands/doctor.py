"""`nbg doctor`: check that this machine has what runs need, and say how to fix what is missing."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from nbg_lightning.commands.doctor_checks import Finding, findings
from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.printable import printable

_STYLES = {"OK": "green", "note": "yellow", "MISSING": "bold red"}


def main(argv: list[str]) -> int:
    """Run all checks, print a line for each as it ends, and answer 1 if something is missing."""
    arguments = parser().parse_args(argv)
    found: list[Finding] = []
    for finding in findings(arguments.folder):
        found.append(finding)
        if not arguments.json:
            show(finding)
    missing = [finding.name for finding in found if finding.state == "MISSING"]
    if arguments.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in found], indent=1))
    else:
        print(summary(found))
    return 1 if missing else 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(prog="nbg doctor", description=__doc__)
    made.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs"), help="where runs will be written (default runs)"
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of lines")
    return made


def show(finding: Finding) -> None:
    """Print what was found, and below it what to type."""
    from rich.console import Console
    from rich.text import Text

    line = Text(f"{finding.state:<8}", style=_STYLES[finding.state])
    line.append(f"{printable(finding.name):<16} ", style="bold")
    line.append(printable(finding.said), style="none")
    console = Console()
    console.print(line, soft_wrap=True)
    if finding.fix:
        console.print(Text(f"{'':<25}-> {printable(finding.fix)}"), soft_wrap=True)


def summary(found: Sequence[Finding]) -> str:
    """The number of checks with each result, on one line."""
    missing = [finding.name for finding in found if finding.state == "MISSING"]
    notes = sum(finding.state == "note" for finding in found)
    if missing:
        return f"{len(missing)} missing: {', '.join(missing)}"
    return f"ready: {len(found) - notes} OK, {notes} to note"
