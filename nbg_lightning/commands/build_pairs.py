"""`nbg build-pairs`: preference pairs of a teacher's and a student's answers; see `construction.pairs.builder`."""

from __future__ import annotations

from argparse import ArgumentError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbg_lightning.construction.pairs.builder import PairBuilder

SUMMARY = "build-pairs --config FILE: preference pairs of a teacher's good answers and the student's bad ones"


def main(argv: list[str]) -> int:
    """Build pairs by a YAML file.

    Raises:
        FileNotFoundError, ValueError: settings, questions or models that cannot be used.
        RuntimeError: no pair came of it, or another process builds in the folder.
    """
    builder = pair_builder(argv)
    report = builder.run()
    print_report(report, str(builder.out))
    return 0


def parser() -> Any:
    """The options, which are the arguments of `PairBuilder`."""
    from nbg_lightning.commands.function import config_parser
    from nbg_lightning.construction.pairs.builder import PairBuilder

    made = config_parser("build-pairs", SUMMARY)
    made.add_class_arguments(PairBuilder)
    return made


def pair_builder(argv: list[str]) -> PairBuilder:
    """The builder of the options and of ``--config`` files, later ones winning.

    Raises:
        ValueError: options or settings that it cannot have.
    """
    from nbg_lightning.commands.function import explained
    from nbg_lightning.construction.pairs.builder import PairBuilder
    from nbg_lightning.error_line import one_line

    options = parser()
    try:
        settings = options.instantiate_classes(options.parse_args(argv))
    except ArgumentError as error:
        if "required" in str(error):
            raise ValueError(f"give --config FILE: {one_line(str(error))}") from error
        raise ValueError(explained(error, "build-pairs", options)) from error
    return PairBuilder(**{name: value for name, value in vars(settings).items() if name != "config"})


def print_report(report: dict[str, Any], folder: str) -> None:
    """The report for a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"{report['questions']:,} questions", box=box.SIMPLE_HEAD)
    for column, justify in (("became", "left"), ("questions", "right"), ("the first", "left")):
        table.add_column(column, justify=justify, overflow="ellipsis", no_wrap=True)  # type: ignore[arg-type]
    table.add_row(f"{report['pairs']:,} pairs", f"{report['questions_with_pairs']:,}", "")
    for reason, found in report["dropped_questions"].items():
        table.add_row(reason, f"{found['count']:,}", found.get("first", "")[:80])
    console.print(table)
    for side, states in report["answers"].items():
        listed = ", ".join(f"{number:,} {state}" for state, number in states.items())
        mean = report["mean_score"][side]
        score = "" if mean is None else f"; mean score {mean:.3f}"
        console.print(f"answers that could be {side}: {listed}{score}", soft_wrap=True)
    same = report["same_tokens_when_rendered"]
    if same["of"]:
        console.print(f"tokens of {same['same']:,} of {same['of']:,} sampled answers in pairs are those of training")
    console.print(f"{folder}/pairs.jsonl: {report['pairs']:,} pairs; counts and provenance: {folder}/report.json")
