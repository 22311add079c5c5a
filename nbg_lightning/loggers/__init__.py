"""Loggers of the library, and tables and texts for all of Lightning's loggers: ``nbg_lightning.loggers``."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.loggers.record import RunRecord as RunRecord
    from nbg_lightning.loggers.tables import LogsTables as LogsTables
    from nbg_lightning.loggers.tables import log_table as log_table
    from nbg_lightning.loggers.tables import log_text as log_text
    from nbg_lightning.loggers.trackio import TrackioLogger as TrackioLogger
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {"record": ["RunRecord"], "tables": ["LogsTables", "log_table", "log_text"], "trackio": ["TrackioLogger"]},
    )
