"""Progress of long-running work on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

LOG_SECONDS = 10.0  # interval of plain progress lines


def say(line: str) -> None:
    """Print a line to stderr, beside bars and logs."""
    print(line, file=sys.stderr, flush=True)


class ProgressBar:
    """A bar on a terminal, otherwise a plain line every ten seconds; used as a context manager.

    Args:
        name: name of the work.
        total: amount of work; None if unknown.
        enabled: whether to show it.
    """

    def __init__(self, name: str, total: int | None, enabled: bool) -> None:
        self.name, self.total, self.enabled = name, total, enabled
        self.start = self.last_line = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self.enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[says]}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.name, total=self.total, says="")
            self._bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning; never 0."""
        return max(1e-3, time.monotonic() - self.start)

    def show(self, completed: int, says: str) -> None:
        """Show the progress.

        Args:
            completed: amount of work done.
            says: text to show.
        """
        if self._bar is not None:
            self._bar.update(self._task, completed=completed, says=says)
        elif self.enabled and time.monotonic() - self.last_line > LOG_SECONDS:
            self.last_line = time.monotonic()
            say(f"{self.name}: {says}")


class Meter(ProgressBar):
    """Progress of one source."""

    def __init__(self, name: str, size: int, enabled: bool) -> None:
        super().__init__(name, max(1, size), enabled)
        self.size = size
        self.documents = self.bytes = self.tokens = 0

    def advance(self, documents: int, num_bytes: int, tokens: int) -> None:
        """Count the work done since the last call."""
        self.documents += documents
        self.bytes += num_bytes
        self.tokens += tokens
        self.show(
            min(self.bytes, self.size),
            f"{self.documents:,} documents, {self.bytes / 1e6:,.1f} of about {self.size / 1e6:,.1f} MB, "
            f"{self.bytes / 1e6 / self.seconds:,.1f} MB/s, {self.tokens / self.seconds:,.0f} tokens/s",
        )


class Progress(ProgressBar):
    """Counts work done; used as a context manager.

    Args:
        name: name of the build.
        total: amount of work; None if unknown.
        enabled: whether to show it.
        unit: the unit of the count.
    """

    def __init__(self, name: str, total: int | None = None, enabled: bool = True, unit: str = "items"):
        super().__init__(name, total, enabled)
        self.unit = unit
        self.done = self.before = 0

    def advance(self, number: int, remark: str = "", fresh: bool = True) -> None:
        """Count the work done since the last call.

        Args:
            number: amount of work.
            remark: additional text.
            fresh: done in this run; False for results of an earlier run, which do not count for the speed.
        """
        self.done += number
        self.before += 0 if fresh else number
        of = "" if self.total is None else f" of {self.total:,}"
        rate = (self.done - self.before) / self.seconds
        self.show(self.done, f"{self.done:,}{of} {self.unit}, {rate:,.2f} a second" + (f", {remark}" if remark else ""))
