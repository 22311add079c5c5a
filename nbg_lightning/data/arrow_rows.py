"""Rows from Arrow (Parquet, datasets): all structures in a column have the same keys, so missing ones come back as None.

In a column where another call has `{"a": 2}`, a call `{"city": "Rome"}` is stored and read as `{"city": "Rome", "a": None}`.
The file does not distinguish such a filled-in null from a given one, so both are removed from tools and calls. To keep a
null, store arguments and schemas as JSON text, which is read unchanged.
"""

from __future__ import annotations

from typing import Any

from nbg_lightning.chat.formats import TOOL_COLUMNS

CALL_FIELDS = ("tool_calls", "function_call")


def without_nulls(row: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The row without None-valued keys in its tools and tool calls, and how many were removed.

    None in a list is kept, since Arrow fills in no elements. An Arrow map, a list of (key, value), becomes an object.

    Example:
        >>> calls = [{"function": {"name": "clock", "arguments": {"city": "Rome", "a": None}}}]
        >>> row, removed = without_nulls({"messages": [{"role": "assistant", "tool_calls": calls}]})
        >>> row["messages"][0]["tool_calls"], removed
        ([{'function': {'name': 'clock', 'arguments': {'city': 'Rome'}}}], 1)
    """
    removed = [0]
    clean = {}
    for column, value in row.items():
        if column in TOOL_COLUMNS:
            value = _cleaned(value, removed)
        elif isinstance(value, list):
            value = [_message(item, removed) if isinstance(item, dict) else item for item in value]
        elif isinstance(value, dict):
            value = _message(value, removed)
        clean[column] = value
    return clean, removed[0]


def _message(message: dict[str, Any], removed: list[int]) -> dict[str, Any]:
    for name in CALL_FIELDS:
        if message.get(name):
            message = {**message, name: _cleaned(message[name], removed)}
    return message


def _cleaned(value: Any, removed: list[int]) -> Any:
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            value = dict(value)
        else:
            return [_cleaned(item, removed) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _cleaned(item, removed) for key, item in value.items() if item is not None}
    removed[0] += len(value) - len(found)
    return found
