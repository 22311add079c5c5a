"""What a run says to the person who started it: once, from the first rank."""

from __future__ import annotations

import logging

from lightning.pytorch.utilities.rank_zero import rank_zero_only

_log = logging.getLogger("nbg_lightning")


@rank_zero_only
def info(message: str) -> None:
    """A line about the run."""
    _log.info(message)


@rank_zero_only
def warn(message: str) -> None:
    """A line about something that looks wrong, but does not stop the run."""
    _log.warning(f"warning: {message}")
