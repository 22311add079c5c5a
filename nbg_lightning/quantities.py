"""Formatting of sizes and counts."""

from __future__ import annotations


def size_text(num_bytes: float) -> str:
    """Format a number of bytes.

    Example:
        >>> size_text(999), size_text(12_345_678)
        ('999 B', '12.3 MB')
    """
    for unit, bound in (("B", 1e3), ("kB", 1e6), ("MB", 1e9), ("GB", 1e12)):
        if num_bytes < bound:
            return f"{num_bytes / bound * 1e3:.3g} {unit}"
    return f"{num_bytes / 1e12:.3g} TB"


def count_text(number: int, noun: str) -> str:
    """Format a count with its noun.

    Args:
        number: the count.
        noun: the noun in the singular; its plural has an ``s``.

    Example:
        >>> count_text(1, "document"), count_text(1234, "document")
        ('1 document', '1,234 documents')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
