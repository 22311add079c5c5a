"""Outcomes of a build's items, with counts and the first example of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbg_lightning.construction.store import JsonRecord


class OutcomeCounts:
    """Counts of each outcome, with its first example.

    Example:
        >>> counts = OutcomeCounts()
        >>> counts.add("refused", "as an AI ...")
        >>> counts.add("refused")
        >>> counts.to_dict()
        {'refused': {'count': 2, 'first': 'as an AI ...'}}
    """

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def add(self, outcome: str, example: str = "", number: int = 1) -> None:
        """Count an outcome."""
        if not number:
            return
        self.number[outcome] = self.number.get(outcome, 0) + number
        if example and outcome not in self.first:
            self.first[outcome] = example[:300]

    def __getitem__(self, outcome: str) -> int:
        return self.number.get(outcome, 0)

    def to_dict(self) -> JsonRecord:
        """The counts as JSON, outcomes in alphabetical order."""
        return {
            outcome: {
                "count": self.number[outcome],
                **({"first": self.first[outcome]} if outcome in self.first else {}),
            }
            for outcome in sorted(self.number)
        }

    def summary(self) -> str:
        """The counts in one line: ``3 refused, 2 too_long``."""
        return ", ".join(f"{self.number[outcome]:,} {outcome}" for outcome in sorted(self.number)) or "none"


def dropped(reason: str, detail: str = "", **more: Any) -> JsonRecord:
    """The record of a dropped item.

    Args:
        reason: the outcome in one word; ``engine_error`` is an error, which the next run retries.
        detail: details in one line.
        **more: further entries of the record.
    """
    return {"status": "error" if reason == "engine_error" else "dropped", "reason": reason, "detail": detail, **more}


def step_kind(step: str) -> str:
    """The kind of a step: its name without the part that distinguishes repetitions.

    Example:
        >>> step_kind("draft/small/0#2")
        'draft'
    """
    return step.split("/")[0].split("#")[0]


def unusable_reason(trace: Sequence[JsonRecord], kind: str) -> tuple[str, str]:
    """The reason why no response to steps of a kind was usable: the last outcome, with engine errors first."""
    own = [entry for entry in trace if step_kind(entry["step"]) == kind and entry["outcome"] != "ok"]
    chosen = next((entry for entry in own if entry["outcome"] == "engine_error"), own[-1])
    if chosen["outcome"] == "engine_error":
        return "engine_error", chosen["detail"]
    return f"{kind}_{chosen['outcome']}", chosen.get("detail") or chosen["text"][:120]
