"""Answers to held-out questions, and their metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable

from nbg_lightning import log
from nbg_lightning.distributed import gather_objects
from nbg_lightning.rl.metrics import RolloutSummary
from nbg_lightning.rl.rollouts import Rollout


class HeldOut:
    """Collects the answers of one validation after the other.

    Attributes:
        dropped: a signal cut the present validation short. Its metrics are NaN then: those of a part would mislead, and a
            `ModelCheckpoint` asks for each that it monitors.
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
        """Note metrics that this run's answers have, of training too: a dropped validation has them as NaN."""
        self._measured |= {f"val/{name}" for name in names if name.startswith(RolloutSummary.OF_VALIDATION)}

    def end(self) -> dict[str, float]:
        """The metrics of all ranks' answers, by the names they are logged under; all ranks together."""
        found = RolloutSummary.joined(gather_objects(RolloutSummary.of(self._rollouts, {}, 0))).validation_metrics()
        self._rollouts = []
        self._measured |= set(found)
        if not self.dropped:
            return found
        log.info("this validation is dropped, and its metrics are NaN: those of a part would mislead")
        return dict.fromkeys(sorted(self._measured), math.nan)
