"""Thread-safe parsing of Python sources to syntax trees."""

from __future__ import annotations

import ast
import threading
from typing import Any

_LOCK = threading.Lock()  # CPython before 3.12 counts the depth of every thread's tree in one place: gh-106905


def parse(source: str | bytes, mode: str = "exec") -> Any:
    """`ast.parse` under a lock, since it raises a SystemError in CPython 3.11 if two threads parse at once.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`; the last two for a source nested too deeply.

    Example:
        >>> parse("f(1)", mode="eval").body.func.id
        'f'
    """
    with _LOCK:
        return ast.parse(source, mode=mode)
