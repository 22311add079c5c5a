"""Validation of names of suites and benchmarks, which become file names."""

from __future__ import annotations

LONGEST = 200  # bytes: file systems allow 255, and a suite's folder has a label and a hash beside its name


def check_file_name(name: object, what: str) -> None:
    """Raise for a name that is not a valid file name within a folder.

    Args:
        name: the name, to become part of a file name.
        what: description of the name, for the message.

    Raises:
        ValueError: it is not a text, empty, too long, hidden, or a path.

    Example:
        >>> check_file_name("../results", "the name of a benchmark")
        Traceback (most recent call last):
        ValueError: the name of a benchmark is invalid: '../results'; give one without '/' that does not begin with '.'
    """
    if not isinstance(name, str) or not name or name.startswith(".") or "/" in name or not name.isprintable():
        raise ValueError(f"{what} is invalid: {name!r:.80}; give one without '/' that does not begin with '.'")
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST:
        raise ValueError(f"{what} is invalid: {name[:40]!r}... is longer than {LONGEST} bytes; shorten it")
