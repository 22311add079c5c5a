"""Answers on a terminal while they are written: thinking folded, several side by side, log-probs on request."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nbg_lightning.chat.thinking_stream import ThinkingStream
from nbg_lightning.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

THINKING_STYLE = "dim italic"
_COLOURS = ((-0.1, "green"), (-1.0, "yellow"), (-3.0, "dark_orange"), (-math.inf, "red"))  # from this log-prob on


class AnswerText:
    """The text of one answer as it is shown.

    Args:
        opened: the prompt has opened the thinking.
        show_thinking: all of it, and not only how long it was.

    Attributes:
        log_probs: of the pieces that have one, with their texts.
    """

    def __init__(self, opened: bool, show_thinking: bool):
        self._stream, self._show_thinking = ThinkingStream(opened), show_thinking
        self._parts: list[tuple[str, str]] = []  # text and style
        self._thoughts, self._began = 0, 0.0  # characters of thinking, and since when
        self._folded = False
        self.log_probs: list[tuple[str, float]] = []

    @property
    def thinks(self) -> bool:
        """Whether it is inside its thinking, which is folded."""
        return self._thoughts > 0 and not self._folded

    @property
    def folded(self) -> str:
        """How much was thought, in a few words."""
        return f"thinking: {self._thoughts:,} characters, {time.monotonic() - self._began:.1f} s"

    def add(self, piece: str, log_prob: float | None = None) -> list[tuple[str, str]]:
        """Take a further piece; returns what can be shown of it, with styles."""
        if log_prob is not None:
            self.log_probs.append((piece, log_prob))
        return self._take(self._stream.feed(piece))

    def end(self) -> list[tuple[str, str]]:
        """What is still to be shown."""
        rest = self._take(self._stream.end())
        return rest + self._fold() if self.thinks else rest

    def _take(self, parts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        shown: list[tuple[str, str]] = []
        for part, text in parts:
            if part == "thinking":
                if not self._thoughts:
                    self._began, self._folded = time.monotonic(), False
                self._thoughts += len(text)
                if self._show_thinking:
                    shown.append((printable(text), THINKING_STYLE))
                continue
            if self.thinks:
                shown += self._fold()
            shown.append((printable(text), ""))
        self._parts += shown
        return shown

    def _fold(self) -> list[tuple[str, str]]:
        self._folded = True
        line = "\n\n" if self._show_thinking else f"({self.folded}; --show-thinking shows it)\n"
        return [(line, THINKING_STYLE)]

    def text(self) -> Text:
        """All that is shown so far."""
        from rich.text import Text

        shown = Text()
        for text, style in self._parts:
            shown.append(text, style)
        if self.thinks and not self._show_thinking:
            shown.append(self.folded, THINKING_STYLE)
        return shown


class AnswerView:
    """Shows the samples of one or several models. Use it in a ``with`` block.

    On a terminal the ends of the answers are redrawn as they arrive, several in columns; then the whole answers are printed.
    Elsewhere one answer is printed as it comes, and several when they have ended.

    Args:
        console: where.
        titles: of the columns, one for each answer.
        opened: for each answer, whether its prompt has opened the thinking.
        show_thinking: see `AnswerText`.
        log_probs: print them after the answers.
    """

    def __init__(
        self, console: Console, titles: Sequence[str], opened: Sequence[bool], show_thinking: bool, log_probs: bool
    ):
        self.console, self.titles, self._with_log_probs = console, [printable(title) for title in titles], log_probs
        self.answers = [AnswerText(each, show_thinking) for each in opened]
        self._live: Live | None = None

    def __enter__(self) -> AnswerView:
        from rich.live import Live

        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=8, transient=True, get_renderable=self._drawn)
            self._live.start()
        return self

    def add(self, place: int, text: str, log_prob: float | None) -> None:
        """Show a further piece of one answer."""
        self._print(self.answers[place].add(text, log_prob))

    def _print(self, shown: Sequence[tuple[str, str]]) -> None:
        """Print at once where one answer goes to no terminal."""
        if len(self.answers) > 1 or self._live is not None:
            return
        for text, style in shown:
            self.console.print(text, style=style, end="", soft_wrap=True, markup=False, highlight=False)

    def _drawn(self) -> RenderableType:
        """What is drawn while answers come: as much of their ends as the terminal has room for."""
        height = max(4, self.console.size.height - 4)
        return self._columns(height) if len(self.answers) > 1 else _end_of(self.answers[0].text(), self.console, height)

    def _columns(self, height: int | None = None) -> RenderableType:
        from rich.panel import Panel
        from rich.table import Table

        grid = Table.grid(expand=True)
        for _ in self.answers:
            grid.add_column(ratio=1)
        width = self.console.width // len(self.answers) - 4
        panels = []
        for title, answer in zip(self.titles, self.answers, strict=True):
            text = answer.text()
            shown = text if height is None else _end_of(text, self.console, height - 2, width)
            panels.append(Panel(shown, title=_last(title, width - 6)))
        grid.add_row(*panels)
        return grid

    def __exit__(self, *_: object) -> None:
        for answer in self.answers:
            self._print(answer.end())
        if self._live is not None:
            self._live.stop()
        if len(self.answers) > 1:
            self.console.print(self._columns())
        elif self._live is not None:
            self.console.print(self.answers[0].text(), soft_wrap=True, highlight=False)
        else:
            self.console.print()
        if self._with_log_probs:
            for title, answer in zip(self.titles, self.answers, strict=True):
                named = title if len(self.answers) > 1 else ""
                self.console.print(log_prob_text(answer.log_probs, named), soft_wrap=True)


def _end_of(text: Text, console: Console, height: int, width: int | None = None) -> Text:
    """The last lines of a text, as the terminal wraps it."""
    from rich.text import Text

    lines = text.wrap(console, max(8, width or console.width))
    return Text("\n").join(list(lines)[-height:])


def _last(title: str, width: int) -> str:
    """The end of a title, where a model's name and a sample's number stand."""
    return title if len(title) <= width else "…" + title[-max(1, width - 1) :]


def log_prob_text(log_probs: Sequence[tuple[str, float]], title: str = "") -> Text:
    """Tokens with their log-probabilities (nats), coloured by them, and their mean."""
    from rich.text import Text

    shown = Text(f"{title}: " if title else "")
    if not log_probs:
        return shown.append("log-probs: the model gives none", "dim")
    for text, value in log_probs:
        colour = next(colour for bound, colour in _COLOURS if value >= bound)
        shown.append(repr(printable(text))[1:-1] or "·", colour).append(f" {value:.2f} ", "dim")
    mean = sum(value for _, value in log_probs) / len(log_probs)
    return shown.append(f"\nmean {mean:.3f} nats a token, perplexity {math.exp(min(-mean, 700)):.2f}", "dim")
