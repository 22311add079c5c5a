"""Answers to held-out questions, and their metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable

from nbg_lightning import log
from nbg_lightning.distributed import gather_objects
from nbg_lightning.rl.metrics import RolloutSummary
from nbg_lightning.rl.rollouts import Rollout


class HeldOut:
    """Collects the answers of each validation.

    Attributes:
        dropped: a signal interrupted the current validation. Its metrics are then NaN: partial ones would mislead, and a
            `ModelCheckpoint` requires every metric that it monitors.
    """

    def __init__(self) -> None:
        self.dropped = False
        self._rollouts: list[Rollout] = []
        self._measured: set[str] = set()

    def start(self) -> None:
        """Begin a validation."""
        self._rollouts, self.dropped = [], False

    def add(self, rollouts: list[Rollout] | None) -> None:
        """Add answers; None drops the validation."""
        self.dropped |= rollouts is None
        self._rollouts += rollouts or []

    def remember(self, names: Iterable[str]) -> None:
        """Record the names of this run's metrics, including those of training: a dropped validation reports them as NaN."""
        self._measured |= {f"val/{name}" for name in names if name.startswith(RolloutSummary.OF_VALIDATION)}

    def end(self) -> dict[str, float]:
        """The metrics of all ranks' answers, by metric name. Collective."""
        found = RolloutSummary.joined(gather_objects(RolloutSummary.of(self._rollouts, {}, 0))).validation_metrics()
        self._rollouts = []
        self._measured |= set(found)
        if not self.dropped:
            return found
        log.info("this validation is dropped, and its metrics are NaN: partial ones would mislead")
        return dict.fromkeys(sorted(self._measured), math.nan)
