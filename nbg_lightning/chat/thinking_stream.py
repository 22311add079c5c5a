"""Thinking and answer told apart while they are written."""

from __future__ import annotations

from typing import Literal

from nbg_lightning.chat.conversation import THINK_CLOSE, THINK_OPEN

AnswerPart = Literal["thinking", "answer"]


class ThinkingStream:
    """Cuts a text that comes in pieces at its think tags, which are left out.

    For the eye only: `nbg_lightning.chat.thinking.read_thinking` reads the whole text.

    Args:
        opened: the prompt has opened the thinking.

    Example:
        >>> stream = ThinkingStream()
        >>> [part for piece in ("<thi", "nk>why", "</think>so") for part in stream.feed(piece)] + stream.end()
        [('thinking', 'why'), ('answer', 'so')]
    """

    def __init__(self, opened: bool = False):
        self._part: AnswerPart = "thinking" if opened else "answer"
        self._held = ""  # what may be the beginning of a tag
        self._begins = True  # nothing of the part but blanks has been shown

    def feed(self, piece: str) -> list[tuple[AnswerPart, str]]:
        """What can be shown after a further piece; its end waits where it may be a tag's beginning."""
        text, self._held = self._held + piece, ""
        shown: list[tuple[AnswerPart, str]] = []
        while True:
            tag, part = (THINK_CLOSE, "answer") if self._part == "thinking" else (THINK_OPEN, "thinking")
            before, found, after = text.partition(tag)
            if not found:
                break
            self._show(shown, before)
            self._part, self._begins = part, True  # type: ignore[assignment]
            text = after
        held = next((size for size in range(len(tag) - 1, 0, -1) if text.endswith(tag[:size])), 0)
        self._held = text[len(text) - held :]
        self._show(shown, text[: len(text) - held])
        return shown

    def end(self) -> list[tuple[AnswerPart, str]]:
        """What was held back."""
        shown: list[tuple[AnswerPart, str]] = []
        self._show(shown, self._held)
        self._held = ""
        return shown

    def _show(self, shown: list[tuple[AnswerPart, str]], text: str) -> None:
        text = text.lstrip("\n") if self._begins else text
        if text:
            self._begins = False
            shown.append((self._part, text))
