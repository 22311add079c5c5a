"""A pass-rate ledger as records, one per question."""

from __future__ import annotations

import math
from pathlib import Path

from nbg_lightning.pages.records import Bar, EveryNth, ShownRecord, ShownRecords, all_facts, fact
from nbg_lightning.pages.values import as_text
from nbg_lightning.rl.pass_rate.ledger import PassRate, PassRateLedger


def ledger_collection(path: Path, limit: int) -> ShownRecords:
    """A ledger with its histogram.

    Raises:
        FileNotFoundError, ValueError: there is none, or something else.
    """
    ledger = PassRateLedger.load(path)
    kept: EveryNth[ShownRecord] = EveryNth(limit)
    for row in ledger:
        kept.add(_record(row))
    bins = ledger.histogram().bins()
    most = max((count for _, count in bins), default=0) or 1
    bars = [Bar(label, count / most, f"{count:,}") for label, count in bins]
    sampling = ledger.about.get("sampling")
    facts = all_facts([fact("weights", _text(ledger.about.get("weights"))), fact("sampling", _text(sampling))])
    return ShownRecords(
        str(path), "questions", kept.items, len(ledger), facts=facts, bars=("questions by pass rate", bars)
    )


def _text(value: object) -> str | None:
    return None if value is None else as_text(value)


def _record(row: PassRate) -> ShownRecord:
    rate = "no rate" if math.isnan(row.rate) else f"{row.rate:.0%}"
    facts = all_facts(
        [
            (("pass rate", rate), ("passes", f"{row.passes} of {row.n - row.errors}")),
            fact("errors", row.errors or None),
            fact("mean score", row.mean_score),
            fact("mean tokens", round(row.mean_length, 1)),
            fact("cut off", row.truncations or None),
            fact("first error", row.first_error or None),
        ]
    )
    return ShownRecord(
        row.key, f"question {row.key}", row.source, facts=facts, rate=None if math.isnan(row.rate) else row.rate
    )
