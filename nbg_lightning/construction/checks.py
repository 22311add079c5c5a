"""Checks of settings shared by many builders."""

from __future__ import annotations

from nbg_lightning.engines.protocol import Sampling


def check_least(least: float, **settings: float) -> None:
    """Check that settings are not below a minimum.

    Raises:
        ValueError: one is below it, or not a number.
    """
    for name, value in settings.items():
        if not value >= least:
            raise ValueError(f"{name} is invalid: {value}; give at least {least:g}")


def check_samples_differ(name: str, sampling: Sampling) -> None:
    """Check that several answers to a question can differ.

    Raises:
        ValueError: sampling is greedy; ``name`` is the setting with their number.
    """
    if sampling.greedy and sampling.n > 1:
        raise ValueError(f"{name} is invalid: {sampling.n} equal greedy answers; give 1, or a temperature above 0")
