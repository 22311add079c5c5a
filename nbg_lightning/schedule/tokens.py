"""Parsing and formatting of token counts."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from numbers import Integral, Real

_SUFFIX_POWERS = {"": 0, "K": 3, "M": 6, "B": 9, "T": 12}
_MOST_TOKENS = 10**18  # sums of stages stay within 64 bits
_TOKENS_PATTERN = re.compile(r"\s*([0-9._]+(?:[eE][+-]?[0-9]+)?)\s*([KMBT]?)\s*", re.IGNORECASE)


def parse_tokens(value: int | float | str) -> int:
    """Parse a number of tokens as written in a YAML file.

    Args:
        value: An integer, a float without a fraction, or a string with an optional suffix K, M, B or T
            (decimal powers: 1e3, 1e6, 1e9, 1e12; upper or lower case). Underscores and exponents are
            accepted.

    Raises:
        ValueError: `value` is not a whole, non-negative, finite number of tokens.

    >>> parse_tokens("12.4T"), parse_tokens("64K"), parse_tokens("1_000"), parse_tokens(1e9)
    (12400000000000, 64000, 1000, 1000000000)
    """
    problem = f"number of tokens is invalid: {value!r}; write a whole number like 4096, '100B' or '12.4T'"
    if isinstance(value, bool):
        raise ValueError(problem)
    if isinstance(value, Integral):
        tokens = Decimal(int(value))
    elif isinstance(value, Real):
        tokens = Decimal(float(value))
    elif isinstance(value, str) and (match := _TOKENS_PATTERN.fullmatch(value)):
        try:
            tokens = Decimal(match[1]).scaleb(_SUFFIX_POWERS[match[2].upper()])
        except InvalidOperation as error:
            raise ValueError(problem) from error
    else:
        raise ValueError(problem)
    if not tokens.is_finite() or tokens < 0 or tokens != tokens.to_integral_value():
        raise ValueError(problem)
    if tokens > _MOST_TOKENS:
        raise ValueError(f"{value!r:.40} tokens are more than the {_MOST_TOKENS:,} that a run can count; give fewer")
    return int(tokens)


def format_tokens(tokens: int | float, digits: int = 3) -> str:
    """Format a number of tokens with three (or `digits`, at least 3) significant digits and a suffix.

    >>> format_tokens(12.4e12), format_tokens(100_000_000_000), format_tokens(4_194_304), format_tokens(512)
    ('12.4T', '100B', '4.19M', '512')
    """
    # What would be rounded to 1000 of a unit belongs to the next larger one: 0.9995 with 3 digits.
    units = ((suffix, abs(tokens) / 10**power) for suffix, power in reversed(_SUFFIX_POWERS.items()))
    suffix, scaled = next((unit for unit in units if unit[1] >= 1 - 0.5 * 10**-digits), ("", abs(tokens)))
    # From 1000T on there is no larger unit, and the g format would turn to exponents.
    text = f"{scaled:.0f}" if scaled >= 10 ** (digits - 1) else f"{scaled:.{digits}g}"
    return ("-" if tokens < 0 else "") + text + suffix
