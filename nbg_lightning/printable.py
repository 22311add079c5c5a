"""Untrusted text on a terminal: characters that would control the terminal, or reorder or hide text, are escaped."""

from __future__ import annotations

import re
import unicodedata

# Joiners are parts of words and of emoji; everything else of these categories acts without being seen.
_JOINERS = "\u200c\u200d"
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_PLAIN = re.compile(r"[\n\t\x20-\x7e]*")


def printable(text: str) -> str:
    """Escape control and formatting characters of a text, except newlines, tabs and joiners.

    Escape sequences (CSI, OSC), carriage returns, backspaces, marks of writing direction, line and paragraph separators,
    tags, lone surrogates and unassigned characters become Python escapes.

    Example:
        >>> printable("a\\x1b[31mb\\u202ec")
        'a\\\\x1b[31mb\\\\u202ec'
    """
    if _PLAIN.fullmatch(text):
        return text
    return "".join(character if _is_shown(character) else _escape(character) for character in text)


def _is_shown(character: str) -> bool:
    return character in "\n\t" or character in _JOINERS or unicodedata.category(character) not in _HIDDEN


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
