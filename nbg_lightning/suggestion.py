"""The name that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`` (did you mean NAME?)`` for the known name that is most like the given one; empty if none is.

    Example:
        >>> did_you_mean("tokenzier", ["tokenizer", "sources"])
        ' (did you mean tokenizer?)'
    """
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.6)
    return f" (did you mean {names[close[0]]}?)" if close and names[close[0]] != given else ""
