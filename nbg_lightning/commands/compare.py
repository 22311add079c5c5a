"""`nbg compare A B`: the difference of two benchmark results on the same items, and whether it may be chance."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any

from nbg_lightning.commands.parser import CommandParser

if TYPE_CHECKING:
    from nbg_lightning.evaluation.compare import MetricComparison

SUMMARY = "Compare two benchmark results item by item, with confidence intervals."


def main(argv: list[str]) -> int:
    """Run the command.

    Raises:
        FileNotFoundError, ValueError: a path that is not a result, or results without a common item.
    """
    arguments = parser().parse_args(argv)

    from nbg_lightning.evaluation.compare import compare, comparison_table
    from nbg_lightning.evaluation.results import load_result

    first, second = results = [load_result(folder) for folder in (arguments.first, arguments.second)]
    comparisons = compare(first, second)
    if arguments.json:
        print(json.dumps([_as_json(each) for each in comparisons], indent=1, allow_nan=False))
        return 0
    from rich.console import Console
    from rich.text import Text

    from nbg_lightning.printable import printable

    console = Console()
    console.print(Text(printable(f"A  {arguments.first}\nB  {arguments.second}")), soft_wrap=True)
    console.print(comparison_table(comparisons))
    for each in comparisons:
        if each.only_one:
            left = f"{each.name}: {each.only_one} items have a score in one result only, and are left out"
            console.print(Text(printable(left)))
        for warning in each.warnings:
            console.print(Text(printable(f"warning: {each.name}: {warning}")))
    compared = {each.name for each in comparisons}
    every = dict.fromkeys(result.name for each in results for result in each.benchmarks)
    if left_out := [name for name in every if name not in compared]:
        console.print(
            Text(printable(f"left out, without a scored item in both: {', '.join(left_out)}")), soft_wrap=True
        )
    return 0


def _as_json(comparison: MetricComparison) -> dict[str, Any]:
    """The numbers of a comparison; an interval without ends (one item without bounds) is null."""
    paired = comparison.paired._asdict()
    if not all(map(math.isfinite, paired["interval"])):
        paired["interval"] = None
    return {**dataclasses.asdict(comparison), "paired": paired}


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = CommandParser(prog="nbg compare", description=SUMMARY)
    made.add_argument("first", metavar="A", help="result folder, below RUN/benchmarks")
    made.add_argument("second", metavar="B", help="the other result folder")
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return made
