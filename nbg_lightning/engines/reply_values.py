"""Validation of values in a server's response, and quoting of responses in messages."""

from __future__ import annotations

from typing import Any

from nbg_lightning.printable import printable


def of_type(value: Any, kind: type) -> Any:
    """Return the value if it has this type.

    Raises:
        TypeError: it has another type.
    """
    if not isinstance(value, kind):
        raise TypeError(f"a {kind.__name__} where it has a {type(value).__name__}")
    return value


def token_id(value: Any) -> int:
    """Return the value if it can be a token id.

    Raises:
        ValueError: it cannot.
    """
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise ValueError(f"token ids: it has {str(value)[:40]!r}")
    return value


def shortened(content: bytes) -> str:
    """The beginning of a response in one line, for a message."""
    text = printable(" ".join(content[:2000].decode("utf-8", "replace").split()))
    return text if len(text) <= 200 else text[:200] + " ..."


def seconds(retry_after: str | None) -> float:
    """A Retry-After header in seconds; dates, which are rare, are treated as missing."""
    try:
        return max(0.0, float(retry_after or 0.0))
    except ValueError:
        return 0.0
