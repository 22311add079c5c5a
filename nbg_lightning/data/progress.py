"""Progress of a preparation on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

LOG_SECONDS = 10.0  # between plain progress lines


def say(line: str) -> None:
    """A line for people, beside bars and logs."""
    print(line, file=sys.stderr, flush=True)


class Meter:
    """Progress of one source: a bar on a terminal, else a plain line every few seconds."""

    def __init__(self, name: str, size: int, enabled: bool) -> None:
        self.name, self.size, self.enabled = name, size, enabled
        self.documents = self.bytes = self.tokens = 0
        self.start = self.last_line = time.monotonic()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> Meter:
        if self.enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[rates]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task(self.name, total=max(1, self.size), rates="")
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, documents: int, num_bytes: int, tokens: int) -> None:
        """So much more is done."""
        self.documents += documents
        self.bytes += num_bytes
        self.tokens += tokens
        if self.bar is not None:
            self.bar.update(self.task, completed=min(self.bytes, self.size), rates=self._rates())
        elif self.enabled and time.monotonic() - self.last_line > LOG_SECONDS:
            self.last_line = time.monotonic()
            say(f"{self.name}: {self._rates()}")

    def _rates(self) -> str:
        seconds = max(1e-3, time.monotonic() - self.start)
        return (
            f"{self.documents:,} documents, {self.bytes / 1e6:,.1f} of about {self.size / 1e6:,.1f} MB, "
            f"{self.bytes / 1e6 / seconds:,.1f} MB/s, {self.tokens / seconds:,.0f} tokens/s"
        )
