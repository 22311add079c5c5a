"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(given: str, known: Iterable[str], likeness: float) -> str | None:
    """The known name closest to another one, ignoring case; None if none is close, or it is that name."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=likeness)
    return names[close[0]] if close and names[close[0]] != given else None


def did_you_mean(given: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """`` (did you mean NAME?)`` for the known name closest to the given one; empty if none is close.

    Args:
        given: the unknown name.
        known: the known names.
        likeness: minimum similarity, 0 to 1.

    Example:
        >>> did_you_mean("tokenzier", ["tokenizer", "sources"])
        ' (did you mean tokenizer?)'
    """
    meant = closest(given, known, likeness)
    return f" (did you mean {meant}?)" if meant else ""
