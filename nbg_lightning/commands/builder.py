"""What the builder commands share: a builder's arguments as options and YAML keys, and its report as a table."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentError
from collections.abc import Sequence
from typing import Any

from nbg_lightning.commands.function import config_parser, explained
from nbg_lightning.construction.builder import Builder
from nbg_lightning.construction.store import REPORT, Record
from nbg_lightning.error_line import one_line


def builder_parser(builder: type[Builder]) -> Any:
    """The parser of a builder's command; nothing is made."""
    parser = config_parser(builder.name, (builder.__doc__ or "").strip().split("\n\n")[0])
    parser.add_class_arguments(builder)
    return parser


def parse_builder(builder: type[Builder], argv: Sequence[str]) -> Builder:
    """The builder of the options and of ``--config`` files, later ones winning.

    Raises:
        ValueError: options or settings that it cannot have.
    """
    parser = builder_parser(builder)
    try:
        settings = parser.instantiate_classes(parser.parse_args(list(argv)))
        values: dict[str, Any] = {f.name: settings[f.name] for f in dataclasses.fields(builder) if f.init}
    except ArgumentError as error:
        if "out" in str(error) and "required" in str(error):
            raise ValueError(f"give --config FILE: {one_line(str(error))}") from error
        raise ValueError(explained(error, builder.name, parser)) from error
    return builder(**values)


def run_builder(builder: type[Builder], argv: Sequence[str]) -> int:
    """Parse, build, and tell what came of it."""
    made = parse_builder(builder, argv)
    report = made.run()
    print_report(report, made.out)
    return 0


def print_report(report: Record, folder: str) -> None:
    """The report for a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{report['build']}: {report['items']:,} items", box=box.SIMPLE_HEAD)
    table.add_column("became", no_wrap=True, min_width=max(map(len, [*report["became"], "became"])))
    table.add_column("items", justify="right", no_wrap=True, min_width=7)
    table.add_column("the first", overflow="fold")
    for kind, found in report["became"].items():
        table.add_row(kind, f"{found['count']:,}", " ".join(found.get("first", "").split())[:80])
    console.print(table)
    if report.get("answers"):
        answers = Table(title="answers of the models", box=box.SIMPLE_HEAD)
        for column in ("step", "usable", "of", "not usable"):
            answers.add_column(column, justify="left" if column in ("step", "not usable") else "right")
        for kind, outcomes in report["answers"].items():
            usable = outcomes.get("ok", {}).get("count", 0)
            total = sum(each["count"] for each in outcomes.values())
            others = ", ".join(f"{each['count']:,} {name}" for name, each in outcomes.items() if name != "ok")
            answers.add_row(kind, f"{usable:,}", f"{total:,}", others)
        console.print(answers)
    said = {"build", "items", "became", "answers", "input", "rows", "this_run"}
    for name, value in report.items():
        if name not in said and value not in (None, {}):
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else _number(value)
            console.print(f"{name.replace('_', ' ')}: {shown}", soft_wrap=True)
    for name, rows in report["rows"].items():
        console.print(f"{folder}/{name}.jsonl: {rows:,} rows", soft_wrap=True)
    console.print(f"all of it: {folder}/{REPORT}", soft_wrap=True)


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
