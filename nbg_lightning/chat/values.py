"""Values in conversations: text that is valid UTF-8 and JSON within bounds, checked on input."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from nbg_lightning.suggestion import closest

MAX_DEPTH = 64  # levels of a JSON value; real schemas have fewer than 20
MAX_INTEGER_BITS = 14_000  # Python does not print integers of more than 4,300 digits
QUOTED_CHARACTERS = 60  # of a value in error messages


class ConversationError(ValueError):
    """A sample that cannot be trained on; one line naming the cause. The caller adds the sample's location."""


def quoted(value: Any) -> str:
    """Quote an untrusted value briefly, in one line."""
    text = value if isinstance(value, str) else type(value).__name__
    short = text if len(text) <= QUOTED_CHARACTERS else text[:QUOTED_CHARACTERS] + "…"
    return ascii(short) if not short.isprintable() else repr(short)


def key_list(keys: Collection[Any]) -> str:
    """The keys of an object, as many as fit in a line."""
    names = sorted(quoted(key)[1:-1] if isinstance(key, str) else type(key).__name__ for key in list(keys)[:40])
    return ", ".join(names[:20]) + (", …" if len(keys) > 20 else "") if names else "none"


def did_you_mean(name: str, known: Collection[str]) -> str:
    """`; did you mean …?` if a known name is similar, else an empty text."""
    meant = closest(name[:QUOTED_CHARACTERS], known, 0.7)
    return f"; did you mean {meant!r}?" if meant else ""


def check_text(text: str) -> str:
    """Return the text if it is valid UTF-8: JSON can contain lone surrogates.

    Raises:
        ConversationError: with the position of the surrogate.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ConversationError(f"half of a surrogate pair at character {error.start}, no UTF-8") from None
    return text


def optional_text(value: Any, what: str) -> str | None:
    """A text that may be missing; an empty one counts as missing.

    Raises:
        ConversationError: it has another type, or is not valid UTF-8.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ConversationError(f"{what} must be a text, got {type(value).__name__}")
    return check_text(value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without duplicate keys, of which a parser would silently take the second."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add gives None, which is false
        raise ConversationError(f"a JSON object has the key {quoted(twice)} twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)  # json.loads would create one per text
_QUICK_DECODER = json.JSONDecoder()
_SPACED_COLON = re.compile(r'"[ \t\n\r]+:')


def _keys_differ(text: str, value: Any) -> bool:
    """Whether no object in the value had duplicate keys in its JSON, as far as counting can tell.

    Every key is followed by ``":``, which texts contain too (after a backslash), so there are at least as many of these as keys.
    """
    count, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            count += len(item)
            item = item.values()
        elif type(item) is not list:
            continue
        waiting += [part for part in item if type(part) is dict or type(part) is list]
    return text.count('":') == count and _SPACED_COLON.search(text) is None


def _is_deep(value: Any) -> bool:
    """Whether objects and lists have more than `MAX_DEPTH` levels."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [part for part in level if type(part) is dict or type(part) is list]
        level = [each for part in level for each in (part.values() if type(part) is dict else part)]
        if not level:
            return False
    return True


def read_json(text: str, what: str) -> Any:
    """Parse JSON text.

    Args:
        text: the JSON text.
        what: subject and verb of the error: ``tools are``.

    Raises:
        ConversationError: invalid JSON, a duplicate key, more than `MAX_DEPTH` levels, or a number that is too long.
    """
    try:
        value = _QUICK_DECODER.decode(text)
        if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
            raise RecursionError  # as Python's own, which depends on what else runs
        return value if _keys_differ(text, value) else _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ConversationError(f"{what} not JSON: {error}") from None
    except RecursionError:
        raise ConversationError(f"{what} nested too deeply: {MAX_DEPTH} levels are the most") from None
    except ConversationError as error:
        raise ConversationError(f"{what} malformed: {error}") from None
    except ValueError:  # an integer that Python refuses to parse
        raise ConversationError(f"{what} malformed: a number has too many digits") from None


def check_json(value: Any, what: str) -> None:
    """Refuse values that JSON cannot represent, or that could not be written again.

    Args:
        value: objects, lists, texts, numbers, booleans and None.
        what: subject of the error: ``the arguments of tool call 'add'``.

    Raises:
        ConversationError: another type, a key that is not a text, a non-finite number, a lone surrogate, or more
            than `MAX_DEPTH` levels.
    """
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise ConversationError(f"{what} are nested too deeply: {MAX_DEPTH} levels are the most")
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text_of(item, what)
            elif isinstance(item, Mapping):
                for key in item:
                    if not isinstance(key, str):
                        raise ConversationError(f"{what} have a key of type {type(key).__name__}: keys must be texts")
                    _check_text_of(key, what)
                below += item.values()
            elif isinstance(item, (list, tuple)):
                below += item
            elif isinstance(item, float):
                if not math.isfinite(item):
                    raise ConversationError(f"{what} have the number {item}, which JSON cannot say")
            elif isinstance(item, int):
                if item.bit_length() > MAX_INTEGER_BITS:
                    raise ConversationError(f"{what} have a number of too many digits")
            elif item is not None:
                raise ConversationError(f"{what} have a value of type {type(item).__name__}, which JSON cannot say")
        level, depth = below, depth + 1


def _check_text_of(text: str, what: str) -> None:
    try:
        check_text(text)
    except ConversationError as error:
        raise ConversationError(f"{what} have {error}") from None
