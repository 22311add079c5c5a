"""How far a measurement is, for whoever waits for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nbg_lightning import log

_SAY_SECONDS = 15.0  # between two lines of progress without a terminal


@contextmanager
def meter(enabled: bool, total: int, done: int) -> Iterator[Any]:
    """How far it is: a bar on a terminal, else a line every few seconds."""
    passes = graded = 0
    last = time.monotonic()
    if enabled and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        bar = Progress(
            TextColumn("questions"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        task = bar.add_task("", total=total, completed=done, rate="")
        with bar:

            def advance(questions: int, more_passes: int, more_graded: int) -> None:
                nonlocal passes, graded
                passes, graded = passes + more_passes, graded + more_graded
                bar.update(task, advance=questions, rate=f"pass rate {passes / max(1, graded):.1%}")

            yield advance
        return

    def say(questions: int, more_passes: int, more_graded: int) -> None:
        nonlocal passes, graded, done, last
        passes, graded, done = passes + more_passes, graded + more_graded, done + questions
        if enabled and (time.monotonic() - last > _SAY_SECONDS or done == total):
            last = time.monotonic()
            log.info(f"{done:,} of {total:,} questions, pass rate so far {passes / max(1, graded):.1%}")

    yield say
