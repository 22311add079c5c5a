"""What a run says to the person who started it: once, from the first rank."""

from __future__ import annotations

import logging

_log = logging.getLogger("nbg_lightning")


def info(message: str) -> None:
    """A line about the run."""
    _say(logging.INFO, message)


def warn(message: str) -> None:
    """A line about something that looks wrong, but does not stop the run."""
    _say(logging.WARNING, f"warning: {message}")


def _say(level: int, message: str) -> None:
    from lightning.pytorch.utilities.rank_zero import (
        rank_zero_only,
    )  # imports torch, which a line may do and a module not

    rank_zero_only(_log.log)(level, message)
