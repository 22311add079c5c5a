"""Conversion of untrusted values: a text, a number, a list, or nothing."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any


def as_text(value: Any) -> str:
    """A text; anything else as JSON, and an empty text for None."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def as_number(value: Any) -> float | None:
    """A finite number, or None for all else.

    Example:
        >>> as_number(1), as_number(True), as_number(float("nan")), as_number("3")
        (1.0, 1.0, None, None)
    """
    if not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; empty for all else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def key_of(*values: Any) -> str:
    """A short digest that identifies the same record in another run."""
    content = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(content.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()
