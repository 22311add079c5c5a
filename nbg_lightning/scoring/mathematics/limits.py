"""Limits on parsing a model's text: whatever exceeds them is unreadable, and thus a wrong answer.

Golds of the benchmarks are far below: the longest of MATH has 154 characters, 4 bracket levels and 8 elements.
"""

MAX_ANSWER = 2_000
"""Characters of a final answer."""

MAX_DIGITS = 1_000
"""Digits of a written number; Python refuses to print integers of more than 4,300."""

MAX_BITS = 4_096
"""Bits of a computed numerator or denominator: 1,233 digits."""

MAX_EXPONENT = 1_000
"""Exponent of ten in ``1.5e3``."""

MAX_NESTING = 24
"""Nesting of brackets, braces and commands."""

MAX_ELEMENTS = 64
"""Elements of a list, set, tuple or matrix."""

MAX_POWER = 32
"""Exponent of a sum, such as ``(x+1)^{32}``. Numbers are limited by their bits."""

MAX_TERMS = 64
"""Terms of an expanded sum."""

MAX_OPERATIONS = 20_000
"""Products of terms per answer; a few hundredths of a second."""

MAX_PLACES = 8
"""Announcements such as "the answer is" that are considered, from the last one backwards."""

MAX_GAP = 40
"""Characters between an announcement and its number."""


class UnreadableError(ValueError):
    """A text that the grammar does not accept as an answer: an unmatched bracket, ``5/0``, ``1 2``."""


class OpenError(UnreadableError):
    """Mathematics that the grammar does not evaluate (functions, absolute values); a larger parser may."""


class LimitError(UnreadableError):
    """The text exceeds a limit; no other parser should try to read it."""
