"""Splitting of generated text into reasoning and answer in one pass, robust against any use of the tags."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nbg_lightning.chat.conversation import THINK_CLOSE, THINK_OPEN

_TAG = re.compile(f"{re.escape(THINK_OPEN)}|{re.escape(THINK_CLOSE)}")


def read_thinking(text: str, complete: bool = True) -> tuple[str | None, str | None]:
    """Split a generated text into reasoning and answer.

    The answer is the text outside of think tags. A closing tag ends all thinking before it, whether it was opened by
    the model, by the prompt, or twice; a second one at the end of the text is dropped.

    Args:
        text: all generated text with its tags; if the prompt opened `<think>`, it begins with that tag.
        complete: whether generation ended by itself. A truncated text ends in its thinking if any tag is open; a complete
            one only if that tag begins a line, since within a line it is only mentioned.

    Returns:
        (reasoning, answer): the reasoning is None if there is none. The answer is None if the thinking does not end.

    Example:
        >>> read_thinking("<think>\\n2 + 2\\n</think>\\n\\n4")
        ('2 + 2', '4')
        >>> read_thinking("<think>\\n2 + 2 is", complete=False)
        (None, None)
    """
    tags = list(_TAG.finditer(text))
    last = _without_closing_tags(text, tags)
    thoughts: list[str] = []
    pieces: list[str] = []  # parts of the answer
    begin = 0  # start of the current part or thought
    opened: int | None = None  # position of the open tag
    before = ""  # text before it, back to the previous tag
    for tag in tags:
        if tag.group() == THINK_OPEN:
            if opened is None:
                before, opened = text[begin : tag.start()], tag.start()
                pieces += [before] if before.strip() else []
                begin = tag.end()
            continue
        inside = text[begin : tag.start()]
        if opened is not None:
            thoughts.append(inside)
        elif tag.end() < last or not thoughts:  # never opened: everything before is thinking
            thoughts += [*pieces, inside]
            pieces = []
        else:
            pieces.append(inside)
        opened, begin = None, tag.end()
    if opened is not None:
        if not complete or not before[before.rfind("\n") + 1 :].strip():
            return None, None
        pieces[-1] += text[opened:]
    else:
        pieces.append(text[begin:])
    if len(pieces) + len(thoughts) == 1:
        return None, text
    reasoning = "\n".join(thought for each in thoughts if (thought := each.strip("\n")))
    return reasoning or None, _joined(pieces)


def _without_closing_tags(text: str, tags: Sequence[re.Match[str]]) -> int:
    """End of the text without trailing whitespace and closing tags."""
    end = len(text)
    for tag in reversed(tags):
        if tag.group() == THINK_OPEN or text[tag.end() : end].strip():
            break
        end = tag.start()
    return end


def _joined(pieces: Sequence[str]) -> str:
    """Join the parts of an answer; thinking between two parts separates words and numbers."""
    kept: list[str] = []
    for piece in pieces:
        if not kept:
            piece = piece.lstrip("\n")
        elif piece and not kept[-1][-1].isspace() and not piece[0].isspace():
            kept.append("\n")
        if piece:
            kept.append(piece)
    return "".join(kept)
