"""trackio, which stores runs on this machine and displays them in a browser: ``pip install trackio``, then ``trackio show``."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from typing_extensions import override

from nbg_lightning.loggers.tables import markdown_cell


class TrackioLogger(Logger):
    """Logs scalars and tables to trackio.

    Args:
        project: project that the run belongs to.
        run_name: name of the run; chosen by trackio by default. An existing name is continued, so that a resumed run is one
            run.
        space_id: a Hugging Face Space to log to, instead of this machine.

    Raises:
        ImportError: on first use, if trackio is not installed.
    """

    def __init__(self, project: str = "nbg_lightning", run_name: str | None = None, space_id: str | None = None):
        super().__init__()
        self.project, self.run_name, self.space_id = project, run_name, space_id
        self._run: Any = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The trackio run, started on first use."""
        if self._run is None:
            try:
                import trackio
            except ImportError:
                raise ImportError("TrackioLogger needs trackio; pip install trackio") from None
            resume = "never" if self.run_name is None else "allow"
            self._run = trackio.init(
                self.project, self.run_name, space_id=self.space_id, resume=resume, embed=False, auto_log_gpu=False,
                auto_log_cpu=False,
            )  # fmt: skip
        return self._run

    @property
    @override
    def name(self) -> str:
        return self.project

    @property
    @override
    def version(self) -> str | None:
        return self.run_name

    @override
    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.experiment.log({name: float(value) for name, value in metrics.items()}, step=step)

    @override
    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: trackio takes settings when a run starts, and they are in ``config.yaml``."""

    @rank_zero_only
    def log_table(self, key: str, columns: Any = None, data: Any = None, *, step: int | None = None) -> None:
        """Log a table; its texts are displayed verbatim, not as Markdown (see `LogsTables`)."""
        import trackio

        rows = [[markdown_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in data]
        self.experiment.log({key: trackio.Table(columns=list(columns), data=rows)}, step=step)

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None
