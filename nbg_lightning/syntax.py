"""Syntax trees of Python sources, made by one thread at a time."""

from __future__ import annotations

import ast
import threading
from typing import Any

_LOCK = threading.Lock()  # CPython before 3.12 counts the depth of every thread's tree in one place: gh-106905


def parse(source: str | bytes, mode: str = "exec") -> Any:
    """`ast.parse`, which raises a SystemError in CPython 3.11 where two threads make trees at once.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`; the last two for a source nested too deeply.

    Example:
        >>> parse("f(1)", mode="eval").body.func.id
        'f'
    """
    with _LOCK:
        return ast.parse(source, mode=mode)
