"""Tables and texts for every logger of Lightning."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch.loggers import CometLogger, CSVLogger, Logger, MLFlowLogger, TensorBoardLogger

from nbg_lightning.printable import printable

TableCell = str | float | int | bool | None
TableRows = Sequence[Sequence[TableCell]]


@runtime_checkable
class LogsTables(Protocol):
    """A logger with native tables: Lightning's `WandbLogger`, our `TrackioLogger`, and any other with this method."""

    def log_table(self, key: str, columns: Any = None, data: Any = None, *, step: int | None = None) -> None:
        """Log a table.

        Args:
            key: name of the table.
            columns: column names.
            data: rows.
            step: step of the run.
        """


def shows_tables(loggers: Iterable[Logger]) -> bool:
    """Whether any of these loggers supports `log_table` and `log_text`."""
    return any(
        isinstance(each, LogsTables) or _table.dispatch(type(each)) is not _table.dispatch(object) for each in loggers
    )


def log_table(
    loggers: Iterable[Logger],
    name: str,
    columns: Sequence[str],
    rows: TableRows,
    step: int,
    markdown: str | None = None,
) -> None:
    """Log a table to every logger that supports it: as a native table, as Markdown, or as a file next to the run.

    Control characters in texts are escaped (see `nbg_lightning.printable`). Call it on the first rank.

    Args:
        loggers: the trainer's loggers.
        name: name of the table, such as ``rollouts``.
        columns: column names.
        rows: texts, numbers, or None.
        step: step of the run.
        markdown: the same data in another layout, for loggers that display Markdown; by default derived from the rows.
    """
    safe = [[printable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    for logger in loggers:
        if isinstance(logger, LogsTables):
            logger.log_table(name, columns=list(columns), data=safe, step=step)
        else:
            _table(logger, name, columns, safe, step, markdown)


def log_text(loggers: Iterable[Logger], name: str, texts: Sequence[tuple[str, str]], step: int) -> None:
    """Log texts with titles: as a table of two columns, or in Markdown as a heading and a paragraph each.

    Args:
        loggers: the trainer's loggers.
        name: name, such as ``samples``.
        texts: title and text of each, such as a prompt and its continuation.
        step: step of the run.
    """
    body = "\n\n".join(f"**{markdown_cell(title)}**{markdown_cell(text)}" for title, text in texts)
    log_table(loggers, name, ["prompt", "text"], texts, step, body)


# -- a kind of logger each -----------------------------------------------------------------------------------------------


@singledispatch
def _table(logger: object, name: str, columns: Sequence[str], rows: TableRows, step: int, markdown: str | None) -> None:
    """Nothing: a logger that knows no tables."""


@_table.register
def _(
    logger: TensorBoardLogger, name: str, columns: Sequence[str], rows: TableRows, step: int, markdown: str | None
) -> None:
    logger.experiment.add_text(name, markdown_table(columns, rows) if markdown is None else markdown, step)


@_table.register
def _(logger: CSVLogger, name: str, columns: Sequence[str], rows: TableRows, step: int, markdown: str | None) -> None:
    """A file ``<name>.csv`` beside ``metrics.csv`` that grows."""
    file = Path(logger.log_dir, f"{name.replace('/', '-')}.csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    begins = not file.exists()
    with file.open("a", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = csv.writer(stream)
        writer.writerows([["step", *columns]] if begins else [])
        writer.writerows([step, *row] for row in rows)


@_table.register
def _(
    logger: MLFlowLogger, name: str, columns: Sequence[str], rows: TableRows, step: int, markdown: str | None
) -> None:
    """An artifact for each step, which MLflow's page shows as a table."""
    values = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
    logger.experiment.log_table(logger.run_id, values, f"{name}/step-{step:08d}.json")


@_table.register
def _(logger: CometLogger, name: str, columns: Sequence[str], rows: TableRows, step: int, markdown: str | None) -> None:
    logger.experiment.log_table(
        f"{name}-{step:08d}.csv", tabular_data=[list(row) for row in rows], headers=list(columns)
    )


# -- Markdown ------------------------------------------------------------------------------------------------------------


def markdown_table(columns: Sequence[str], rows: TableRows) -> str:
    """Rows as a Markdown table.

    Example:
        >>> print(markdown_table(["a", "b"], [["x|y", 0.5], ["two\\nlines", None]]))
        | a | b |
        |---|---|
        | x\\|y | 0.5 |
        | two<br>lines |  |
    """
    lines = [columns, *rows]
    shown = [f"| {' | '.join(markdown_cell(_shown(cell)) for cell in line)} |" for line in lines]
    return "\n".join([shown[0], "|" + "---|" * len(columns), *shown[1:]])


def _shown(cell: TableCell) -> str:
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def markdown_cell(text: str) -> str:
    """A text escaped for a Markdown table cell: no new column or row, no markup.

    Example:
        >>> markdown_cell("a | b\\n<script>")
        'a \\\\| b<br>&lt;script&gt;'
    """
    text = printable(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
    return "<br>".join(text.splitlines())
