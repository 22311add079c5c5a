"""`nbg build-...`: any builder of data by a YAML file and options, and its report in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nbg_lightning.commands.precheck import check_builder
from nbg_lightning.commands.settings import parse_settings, settings_parser
from nbg_lightning.construction.builder import Builder, ReportTable
from nbg_lightning.construction.former_names import SETTINGS
from nbg_lightning.import_path import import_object


@dataclass(frozen=True)
class BuilderCommand:
    """The command of a builder.

    Attributes:
        class_path: of the builder, under ``nbg_lightning.construction``.
    """

    class_path: str

    @property
    def whole_path(self) -> str:
        """The builder's import path."""
        return f"nbg_lightning.construction.{self.class_path}"

    @property
    def kind(self) -> type[Builder]:
        """The builder's class."""
        found: type[Builder] = import_object(self.whole_path)
        return found

    def parser(self) -> Any:
        """The options, which are the builder's settings; nothing is made."""
        return settings_parser(self.kind.name, self.kind)

    def builder(self, argv: Sequence[str]) -> Builder:
        """Make the builder of options and configs.

        Raises:
            FileNotFoundError, ValueError: options or settings that it cannot have.
        """
        check_builder(self.whole_path, argv, SETTINGS)  # before anything heavy is imported
        return self.kind(**parse_settings(self.parser(), argv, SETTINGS))

    def main(self, argv: Sequence[str]) -> int:
        """Build, and show the report.

        Raises:
            FileNotFoundError, ValueError: settings, input or models that cannot be used.
            RuntimeError: nothing came of it, or another process builds in the folder.
        """
        builder = self.builder(argv)
        show(builder.shown(builder.run()))
        return 0


def show(shown: Sequence[str | ReportTable]) -> None:
    """Print lines, not broken, and tables."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for each in shown:
        if isinstance(each, str):
            console.print(each, soft_wrap=True, markup=False, highlight=False)
            continue
        table = Table(title=each.title, box=box.SIMPLE_HEAD)
        for place, column in enumerate(each.columns):
            values = [row[place] for row in each.rows]
            numbers = all(value[:1].isdigit() or value[:1] in ("", "-") for value in values) and any(values)
            table.add_column(
                column,
                justify="right" if numbers and place else "left",
                no_wrap=numbers or not place,
                overflow="fold",
                min_width=max(map(len, [*values, column])) if not place else None,
            )
        for row in each.rows:
            table.add_row(*row)
        console.print(table)
