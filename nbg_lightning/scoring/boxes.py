r"""Marked answers in a text: ``\boxed{}``, ``<answer>``, formulas. All functions take linear time."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?:\s{0,8}\{|(?=\s{1,8}[^\s{]))")
_BRACE = re.compile(r"\\(?:boxed|fbox|framebox)\s{0,8}\{|\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"\s+([^\s${}\\]{1,100})")
_FORMULA = re.compile(r"\\.|\$\$?", re.DOTALL)
_TAG, _TAG_END = re.compile(r"<answer>", re.IGNORECASE), re.compile(r"</answer>", re.IGNORECASE)
_CLOSING = {"$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]"}


def boxed(text: str) -> str | None:
    r"""The content of the last complete ``\boxed{...}`` (or ``\fbox``).

    Example:
        >>> boxed(r"so \boxed{1} or rather \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
    """
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"), text.rfind("\\framebox"))
    if start < 0:
        return None
    last = _BOX.match(text, start)
    if last is not None and not last.group().endswith("{"):
        bare = _BARE.match(text, last.end())
        if bare is not None:
            return bare.group(1)
    if last is not None:  # most texts end with a complete box
        end = _closing_brace(text, last.end())
        if end is not None:
            return text[last.end() : end].strip()
    return _last_complete(text)


def _closing_brace(text: str, begin: int) -> int | None:
    depth = 1
    for match in _BRACE.finditer(text, begin):
        token = match.group()
        depth += token.endswith("{") and token != "\\{"
        depth -= token == "}"
        if depth == 0:
            return match.start()
    return None


def _last_complete(text: str) -> str | None:
    """Match all braces once; of the closed boxes, return the one that begins last."""
    begin, end = -1, -1
    opened: list[int] = []  # start of a box's content; -1 for other braces
    for match in _BRACE.finditer(text):
        token = match.group()
        if token == "}":
            if opened and (place := opened.pop()) > begin:
                begin, end = place, match.start()
        elif token == "{":
            opened.append(-1)
        elif token.endswith("{") and token != "\\{":
            opened.append(match.end())
    return text[begin:end].strip() if begin >= 0 else None


def tagged(text: str) -> str | None:
    """The content of the last ``<answer>...</answer>``.

    Example:
        >>> tagged("Let me see. <answer> 42 </answer>")
        '42'
    """
    end = next(iter(deque(_TAG_END.finditer(text), maxlen=1)), None)
    if end is None:
        return None
    begin = next(iter(deque(_TAG.finditer(text, 0, end.start()), maxlen=1)), None)
    return None if begin is None else text[begin.end() : end.start()].strip()


def last_formula(text: str) -> str | None:
    r"""The last complete ``$...$``, ``$$...$$``, ``\(...\)`` or ``\[...\]``.

    Example:
        >>> last_formula(r"From $x > 1$ follows \(x = 2\).")
        'x = 2'
    """
    last = None
    for last in formulas(text):  # noqa: B007 - the last one is wanted
        pass
    return None if last is None else text[slice(*last)].strip()


def formulas(text: str) -> Iterator[tuple[int, int]]:
    """Begin and end of formulas, without their delimiters; empty ones are skipped."""
    opening, begin = "", 0
    for match in _FORMULA.finditer(text):
        token = match.group()
        if not opening and token in _CLOSING:
            opening, begin = token, match.end()
        elif opening and token == _CLOSING[opening]:
            if text[begin : match.start()].strip():
                yield begin, match.start()
            opening = ""
