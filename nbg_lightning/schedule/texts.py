"""Formatting of a plan's numbers for the table and the plot."""

from __future__ import annotations


def format_learning_rate(value: float) -> str:
    """A learning rate as it is written in papers.

    >>> format_learning_rate(4.5e-4), format_learning_rate(1e-3), format_learning_rate(0.0)
    ('4.5e-4', '1e-3', '0')
    """
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def format_theta(value: float | None) -> str:
    return "model" if value is None else format_learning_rate(value).replace("e0", "")


def format_percent(share: float) -> str:
    percent = 100 * share
    if share == 1:
        return "100 %"
    return f"{percent:.1f} %" if percent >= 0.1 else f"{percent:.1g} %"


def format_epochs(epochs: float | None) -> str:
    return "?" if epochs is None else f"{epochs:.2f}"
