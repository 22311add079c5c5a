"""Separation of thinking and answer during streaming."""

from __future__ import annotations

from typing import Literal

from nbg_lightning.chat.conversation import THINK_CLOSE, THINK_OPEN

AnswerPart = Literal["thinking", "answer"]


class ThinkingStream:
    """Splits streamed text at its think tags, which are removed.

    For display only: `nbg_lightning.chat.thinking.read_thinking` parses the whole text.

    Args:
        opened: whether the prompt opened the thinking.

    Example:
        >>> stream = ThinkingStream()
        >>> [part for piece in ("<thi", "nk>why", "</think>so") for part in stream.feed(piece)] + stream.end()
        [('thinking', 'why'), ('answer', 'so')]
    """

    def __init__(self, opened: bool = False):
        self._part: AnswerPart = "thinking" if opened else "answer"
        self._held = ""  # possible beginning of a tag
        self._begins = True  # only whitespace of this part has been shown so far

    def feed(self, piece: str) -> list[tuple[AnswerPart, str]]:
        """The text to show after a further piece; a possible beginning of a tag is held back."""
        text, self._held = self._held + piece, ""
        shown: list[tuple[AnswerPart, str]] = []
        while True:
            tag, part = (THINK_CLOSE, "answer") if self._part == "thinking" else (THINK_OPEN, "thinking")
            before, found, after = text.partition(tag)
            if not found:
                break
            self._show(shown, before)
            self._part, self._begins = part, True  # type: ignore[assignment]  # one of the two literals
            text = after
        held = next((size for size in range(len(tag) - 1, 0, -1) if text.endswith(tag[:size])), 0)
        self._held = text[len(text) - held :]
        self._show(shown, text[: len(text) - held])
        return shown

    def end(self) -> list[tuple[AnswerPart, str]]:
        """The text that was held back."""
        shown: list[tuple[AnswerPart, str]] = []
        self._show(shown, self._held)
        self._held = ""
        return shown

    def _show(self, shown: list[tuple[AnswerPart, str]], text: str) -> None:
        text = text.lstrip("\n") if self._begins else text
        if text:
            self._begins = False
            shown.append((self._part, text))
