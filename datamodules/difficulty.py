"""Selecting questions of medium difficulty by the pass rates measured by `nbg pass-rate`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbg_lightning import log
from nbg_lightning.data.question import Question
from nbg_lightning.rl.pass_rate import PassRateBand, PassRateLedger


@dataclass(frozen=True)
class DifficultyFilter:
    """Keeps questions whose pass rate lies strictly inside a band.

    Args:
        file: path of the ledger.
        band: bounds of the pass rate.
        ledger: contents of the file.
    """

    file: str
    band: PassRateBand
    ledger: PassRateLedger

    @classmethod
    def load(cls, file: str, band: PassRateBand) -> DifficultyFilter:
        """Read the ledger and return the filter."""
        return cls(file, band, PassRateLedger.load(file))

    def check_weights(self, fingerprint: str) -> None:
        """Raise if the pass rates were measured with other weights than those the run starts from, compared by content
        rather than path.

        Args:
            fingerprint: fingerprint of the run's initial weights (`weights_fingerprint`).

        Raises:
            ValueError: the ledger was measured with other weights.
        """
        measured, weights = str(self.ledger.about.get("fingerprint")), self.ledger.about.get("weights")
        if not re.fullmatch("[0-9a-f]{16}", measured):
            log.warn(
                f"the pass rates of {self.file} are those of {measured}, whose weights cannot be compared with those "
                "that this run starts from"
            )
        elif measured != fingerprint:
            raise ValueError(
                f"the pass rates of {self.file} are those of other weights ({weights}, fingerprint {measured}) than "
                f"this run starts from ({fingerprint}); run `nbg pass-rate` again with this run's base_weights, or leave out "
                "data.init_args.ledger"
            )

    def kept(self, name: str, questions: list[Question]) -> list[Question]:
        """The questions of a source that lie inside the band.

        Raises:
            ValueError: a question that was not measured.
        """
        missing = [q for q in questions if q.key not in self.ledger]
        if missing:
            raise ValueError(
                f"{len(missing):,} of {len(questions):,} questions of source {name!r} are not in the ledger "
                f"{self.file}, the first: {str(missing[0].messages[-1]['content'])[:60]!r}; run `nbg pass-rate` "
                "on this config again"
            )
        kept = [q for q in questions if self.ledger.keeps(q.key, self.band)]
        log.info(
            f"{name}: {len(kept):,} of {len(questions):,} questions have {self.band} "
            f"({self.ledger.histogram([q.key for q in questions]).line()})"
        )
        return kept

    def too_few(self, problem: str, questions: list[Question]) -> ValueError:
        """An error about too few questions, suggesting a band that would keep more."""
        histogram = self.ledger.histogram([q.key for q in questions])
        return ValueError(f"{problem} with {self.band} ({histogram.line()}): {histogram.advice(self.band)}")
