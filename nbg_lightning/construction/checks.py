"""Checks of settings that many builders have."""

from __future__ import annotations


def check_least(least: float, **settings: float) -> None:
    """Check that settings are at least so much.

    Raises:
        ValueError: one is less, or not a number.
    """
    for name, value in settings.items():
        if not value >= least:
            raise ValueError(f"{name} is invalid: {value}; give at least {least:g}")
