"""Progress of a build on stderr: a bar on a terminal, else a plain line every ten seconds."""

from __future__ import annotations

import sys
import time
from typing import Any

LOG_SECONDS = 10.0  # between plain lines


class Progress:
    """Counts what is done; use it in a ``with`` block.

    Args:
        name: of the build.
        total: how much there is to do; None where nobody knows.
        enabled: show it.
        unit: what is counted.
    """

    def __init__(self, name: str, total: int | None = None, enabled: bool = True, unit: str = "items"):
        self.name, self.total, self.enabled, self.unit = name, total, enabled, unit
        self.done = self.before = 0
        self.start = self.last_line = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self.enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[says]}"))
            self._bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.name, total=self.total, says="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, number: int, remark: str = "", fresh: bool = True) -> None:
        """So many more are done.

        Args:
            number: how many.
            remark: what else to say.
            fresh: they were done now; False for those of an earlier run, which say nothing of the speed.
        """
        self.done += number
        self.before += 0 if fresh else number
        of = "" if self.total is None else f" of {self.total:,}"
        rate = (self.done - self.before) / max(1e-3, time.monotonic() - self.start)
        says = f"{self.done:,}{of} {self.unit}, {rate:,.2f} a second" + (f", {remark}" if remark else "")
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, says=says)
        elif self.enabled and time.monotonic() - self.last_line > LOG_SECONDS:
            self.last_line = time.monotonic()
            print(f"{self.name}: {says}", file=sys.stderr, flush=True)
