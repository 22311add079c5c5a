"""Log messages of a run for its user, printed once, by the first rank."""

from __future__ import annotations

import logging

_log = logging.getLogger("nbg_lightning")


def info(message: str) -> None:
    """Log information about the run."""
    _say(logging.INFO, message)


def warn(message: str) -> None:
    """Log a warning about something that looks wrong but does not stop the run."""
    _say(logging.WARNING, f"warning: {message}")


def _say(level: int, message: str) -> None:
    from lightning.pytorch.utilities.rank_zero import (
        rank_zero_only,
    )  # imports torch: fine in a call, not at module import

    rank_zero_only(_log.log)(level, message)
