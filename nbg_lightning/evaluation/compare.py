"""Comparison of two results of a suite, item by item."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nbg_lightning.evaluation.results import BenchmarkResult, Record, SuiteResult, clusters_of
from nbg_lightning.evaluation.statistics import PairedComparison, paired_comparison

if TYPE_CHECKING:
    from rich.table import Table

_NATS = "nats per byte"


@dataclass(frozen=True)
class MetricComparison:
    """Comparison of one benchmark in both results.

    Attributes:
        name: name of the benchmark.
        metric: the compared metric: the benchmark's primary one, or nats per byte for perplexities (lower is better).
        paired: the paired comparison.
        only_one: number of items scored in only one of the results; they are excluded.
        warnings: why the two may not be comparable.
    """

    name: str
    metric: str
    paired: PairedComparison
    only_one: int
    warnings: list[str] = field(default_factory=list)

    @property
    def better(self) -> bool | None:
        """Whether the second is better; None if the interval of the difference contains 0."""
        low, high = self.paired.interval
        if low <= 0 <= high:
            return None
        return (high < 0) == (self.metric == _NATS)


def compare(first: SuiteResult, second: SuiteResult, confidence: float = 0.95) -> list[MetricComparison]:
    """Compare all benchmarks of which both results have scored items.

    Raises:
        ValueError: there are none.
    """
    comparisons = []
    for one in first.benchmarks:
        other = next((result for result in second.benchmarks if result.name == one.name), None)
        if other is None:
            continue
        records, others_records = (_by_id(each.records.get(one.name, [])) for each in (first, second))
        metric, scores = _scores(one, records)
        other_metric, others = _scores(other, others_records)
        shared = [key for key in scores if key in others]
        if shared and (metric == _NATS) == (other_metric == _NATS):
            clusters, differ = _clusters([records[key] for key in shared], [others_records[key] for key in shared])
            paired = paired_comparison(
                [scores[key] for key in shared],
                [others[key] for key in shared],
                confidence,
                bounds=None if metric == _NATS else (0.0, 1.0),
                clusters=clusters,
            )
            only_one = len(scores) + len(others) - 2 * len(shared)
            warnings = _differences(one, other) + ([_CLUSTERS_DIFFER] if differ else [])
            comparisons.append(MetricComparison(one.name, metric, paired, only_one, warnings))
    if not comparisons:
        names = [", ".join(result.name for result in each.benchmarks) or "nothing" for each in (first, second)]
        raise ValueError(
            f"the results have no scored item in common (one has {names[0]}, the other {names[1]}); give two results of one suite"
        )
    return comparisons


def _by_id(records: Sequence[Record]) -> dict[str, Record]:
    return {record["id"]: record for record in records}


def _scores(result: BenchmarkResult, records: Mapping[str, Record]) -> tuple[str, dict[str, float]]:
    """The compared metric, and its value for each item that has one.

    Raises:
        ValueError: a record without a comparable value; it is named.
    """
    nats = result.about.get("kind") == "perplexity"
    key = "score_norm" if result.primary == "accuracy_norm" else "score"
    scores: dict[str, float] = {}
    for name, record in records.items():
        if record["status"] == "error":
            continue
        value = _nats_per_byte(record) if nats else record.get(key)
        if not isinstance(value, (int, float)) or not (math.isfinite(value) if nats else 0 <= value <= 1):
            what = _NATS if nats else key
            raise ValueError(
                f"{result.name}: the {what} of item {name!r:.80} is invalid: {value!r:.40}; remove its record, and run the "
                "benchmark again"
            )
        scores[name] = value
    return _NATS if nats else result.primary, scores


def _nats_per_byte(record: Record) -> float | None:
    nats, size = record.get("nll"), record.get("bytes")
    return nats / size if isinstance(nats, (int, float)) and isinstance(size, int) and size > 0 else None


def _clusters(first: Sequence[Record], second: Sequence[Record]) -> tuple[Sequence[Hashable] | None, bool]:
    """Clusters of items, and whether the results disagree on them.

    A result may be older than the clusters of its items. If both have some, those of the first are used.
    """
    one, other = clusters_of(first), clusters_of(second)
    if one is None or other is None:
        return one or other, False
    return one, one != other


_CLUSTERS_DIFFER = "the clusters of items differ: those of the first count"
_SAME = {
    "prompt_hash": "the prompts differ",
    "num_shots": "the numbers of worked examples differ",
    "format": "the formats differ",
    "sampling": "the sampling differs",
    "origin": "the items are from different places",
}


def _differences(one: BenchmarkResult, other: BenchmarkResult) -> list[str]:
    found = [text for key, text in _SAME.items() if one.about.get(key) != other.about.get(key)]
    if one.primary != other.primary:
        found.append(f"one counts {one.primary}, the other {other.primary}")
    return found


def comparison_table(comparisons: list[MetricComparison]) -> Table:
    """A table for the terminal: B - A with its interval, and the number of items on which A and B score higher (``A:B``)."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from nbg_lightning.printable import printable

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    widths = {
        "metric": 8,
        "items": 5,
        "A": 5,
        "B": 5,
        "B - A": 6,
        "interval": 13,
        "p": 6,
        "A:B": 7,
    }  # only names are cut
    table.add_column("benchmark", overflow="fold")
    for column, width in widths.items():
        table.add_column(column, justify="left" if column == "metric" else "right", no_wrap=True, min_width=width)
    for each in comparisons:
        paired = each.paired
        table.add_row(
            Text(printable(each.name)),
            Text(printable(each.metric)),
            str(paired.items),
            f"{paired.first:.3f}",
            f"{paired.second:.3f}",
            f"{paired.difference:+.3f}",
            f"{paired.interval.low:+.3f} {paired.interval.high:+.3f}",
            f"{paired.p_value:.2g}",
            f"{paired.losses}:{paired.wins}",
        )
    return table
