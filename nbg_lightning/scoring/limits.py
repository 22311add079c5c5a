"""Limits of what is read of a model's text: whatever is beyond them is unreadable, and so a wrong answer.

Golds of the benchmarks are far inside: the longest of MATH has 154 characters, 4 levels of brackets and 8 elements.
"""

MAX_ANSWER = 2_000
"""Characters of a final answer."""

MAX_DIGITS = 1_000
"""Digits of a written number; Python refuses to print integers of more than 4,300."""

MAX_BITS = 4_096
"""Bits of a computed numerator or denominator: 1,233 digits."""

MAX_EXPONENT = 1_000
"""Of ten in ``1.5e3``."""

MAX_NESTING = 24
"""Levels of brackets, braces and commands in each other."""

MAX_ELEMENTS = 64
"""Of a list, set, tuple or matrix."""

MAX_POWER = 32
"""Exponent of a sum, such as ``(x+1)^{32}``. Numbers are bounded by their bits."""

MAX_TERMS = 64
"""Terms of a sum that is multiplied out."""

MAX_OPERATIONS = 20_000
"""Products of terms for an answer; a few hundredths of a second."""

MAX_PLACES = 8
"""Announcements such as "the answer is" that are looked at, from the last one backwards."""

MAX_GAP = 40
"""Characters between an announcement and its number."""


class UnreadableError(ValueError):
    """A text that is no answer by the grammar: a bracket without its counterpart, ``5/0``, ``1 2``."""


class OpenError(UnreadableError):
    """Mathematics that the grammar does not compute (functions, absolute values); a larger parser may."""


class LimitError(UnreadableError):
    """The text is beyond a limit; nothing else shall try to read it either."""
