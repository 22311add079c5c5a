"""Results of a benchmark from the records of its items: means, intervals, and error counts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning import log
from nbg_lightning.data.durable import write_atomic
from nbg_lightning.digests import unseal_line
from nbg_lightning.error_line import first_line
from nbg_lightning.evaluation.file_names import check_file_name
from nbg_lightning.evaluation.statistics import (
    Interval,
    average_at_k,
    consensus_at_k,
    mean,
    mean_interval,
    pass_at_k,
)
from nbg_lightning.json_lines import byte_lines

if TYPE_CHECKING:
    from rich.table import Table

Record = dict[str, Any]
RESULTS = "results.json"
RESULT_COLUMNS = ["benchmark", "metric", "value", "low", "high", "items", "errors"]
_UNREADABLE = ("parse_failure", "truncated")  # statuses of samples in which no answer was found


@dataclass
class BenchmarkResult:
    """The results of one benchmark.

    Attributes:
        name: name of the benchmark.
        primary: name of its headline metric.
        metrics: values by name; shares are 0 to 1. Undefined ones (every item an error) are absent.
        intervals: intervals of the metrics that are means over items (`mean_interval`), clustered if items have clusters.
        items: number of items; ``scored`` of them have a score, ``errors`` do not.
        scored: see ``items``.
        errors: see ``items``. An error is never counted as a wrong answer.
        first_error: message of the first one.
        categories: the primary metric of each category, with its number of items.
        about: origin of items, licence, sampling, hashes, cost.
    """

    name: str
    primary: str
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    items: int = 0
    scored: int = 0
    errors: int = 0
    first_error: str | None = None
    categories: dict[str, tuple[float, int]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The primary metric; NaN if no item could be scored."""
        return self.metrics.get(self.primary, math.nan)


@dataclass
class SuiteResult:
    """The results of a suite, the same on all ranks except for the records, which only the first rank has.

    Attributes:
        name: name of the suite.
        benchmarks: results, in the suite's order.
        records: records of each benchmark's items: prompt, answer and score. Empty on other ranks than the first.
        folder: where everything is written, or None.
    """

    name: str
    benchmarks: list[BenchmarkResult]
    records: dict[str, list[Record]] = field(default_factory=dict)
    folder: str | None = None

    def __getitem__(self, name: str) -> BenchmarkResult:
        return next(result for result in self.benchmarks if result.name == name)

    @property
    def metrics(self) -> dict[str, float]:
        """``benchmark/<name>/<metric>`` of all benchmarks, for loggers."""
        return {
            f"benchmark/{result.name}/{metric}": value
            for result in self.benchmarks
            for metric, value in {**result.metrics, "errors": float(result.errors)}.items()
        }

    def rows(self) -> list[list[str | float | None]]:
        """Rows with `RESULT_COLUMNS`; undefined values are None."""
        found: list[list[str | float | None]] = []
        for result in self.benchmarks:
            interval = result.intervals.get(result.primary)
            value = None if math.isnan(result.value) else result.value
            low, high = (None, None) if interval is None else (interval.low, interval.high)
            found.append([result.name, result.primary, value, low, high, result.items, result.errors])
        return found

    def table(self) -> Table:
        """A table for the terminal; uninformative columns are omitted, and on narrow terminals only names are truncated."""
        from rich import box
        from rich.table import Table

        rows = []
        for result in self.benchmarks:
            interval = result.intervals.get(result.primary)
            shares = [result.metrics.get(name) for name in ("truncation_rate", "parse_failure_rate")]
            rows.append(
                {
                    "benchmark": result.name,
                    "metric": result.primary,
                    "value": "-" if math.isnan(result.value) else f"{result.value:.3f}",
                    "interval": "" if interval is None else f"{interval.low:.3f}-{interval.high:.3f}",
                    "items": str(result.items),
                    "errors": str(result.errors or ""),
                    **{name: f"{s:.0%}" if s else "" for name, s in zip(("cut off", "unread"), shares, strict=True)},
                }
            )
        table = Table(title=self.name, box=box.SIMPLE_HEAD)
        columns = [name for name in rows[0] if any(row[name] for row in rows)]
        for name in columns:
            if name == "benchmark":
                table.add_column(name, overflow="fold")
            else:
                width = max(len(name), *(len(row[name]) for row in rows))
                table.add_column(name, justify="left" if name == "metric" else "right", min_width=width, no_wrap=True)
        for row in rows:
            table.add_row(*(row[name] for name in columns))
        return table

    def save(self, folder: Path) -> None:
        """Write ``results.json``; the records next to it are written during the run."""
        whole = {"suite": self.name, "benchmarks": [dataclasses.asdict(result) for result in self.benchmarks]}
        write_atomic(folder / RESULTS, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def load_result(path: str | Path) -> SuiteResult:
    """Load a saved result with its records.

    Args:
        path: its folder, or the ``results.json`` in it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: something else is there.
    """
    folder = Path(path).expanduser()
    folder = folder.parent if folder.name == RESULTS else folder
    if not (folder / RESULTS).is_file():
        below = sorted(str(found.parent) for found in folder.glob(f"**/{RESULTS}")) if folder.is_dir() else []
        hint = f"there are {', '.join(below[:5])}" if below else "give a result folder of nbg test, RUN/benchmarks/NAME"
        raise FileNotFoundError(f"{path} is not a benchmark result (it has no {RESULTS}); {hint}")
    try:
        whole = json.loads((folder / RESULTS).read_text("utf-8"))
        name, benchmarks = whole["suite"], [_from_dict(entry) for entry in whole["benchmarks"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{folder / RESULTS} is not a result of this library ({first_line(error)}); run the benchmark again"
        ) from error
    records = {result.name: read_records(record_file(folder, result.name)) for result in benchmarks}
    for result in benchmarks:
        if (there := len(records[result.name])) and there < result.items:
            log.warn(f"{folder}: {result.name} has the records of {there:,} of its {result.items:,} items")
    return SuiteResult(name, benchmarks, records, str(folder))


def _from_dict(entry: dict[str, Any]) -> BenchmarkResult:
    check_file_name(entry["name"], "the name of a benchmark")
    wrong = [name for name, value in entry["metrics"].items() if not isinstance(value, (int, float))]
    if wrong:
        raise ValueError(f"its metric {wrong[0]!r:.40} is no number")
    intervals = {name: Interval(*interval) for name, interval in entry["intervals"].items()}
    categories = {name: (value, count) for name, (value, count) in entry["categories"].items()}
    return BenchmarkResult(**{**entry, "intervals": intervals, "categories": categories})


def record_file(folder: Path, benchmark: str) -> Path:
    """The path of a benchmark's records."""
    return folder / f"{benchmark}.jsonl"


def read_records(file: Path) -> list[Record]:
    """The records of a file, in the items' order; of an item that was repeated, the last one.

    A truncated or damaged line is skipped with a warning: its item is evaluated again by the next run. Lines of earlier
    versions have no digest, and are accepted as they are.

    Raises:
        ValueError: a line is complete, but not a record.
    """
    found: dict[Any, Record] = {}
    if not file.is_file():
        return []
    with file.open("rb") as stream:
        for number, line in enumerate(byte_lines(stream, str(file)), start=1):
            if not line.strip():
                continue
            try:
                record = unseal_line(line)
            except (ValueError, RecursionError) as error:
                if line.endswith(b"\n"):  # the last one may have been torn by a kill
                    log.warn(
                        f"{file}, line {number} is damaged ({first_line(error)}): it is skipped, and its item is evaluated again"
                    )
                continue
            if not isinstance(record, dict) or not {"id", "index", "status"} <= set(record):
                raise ValueError(f"{file}, line {number} is no record of an item; remove it")
            if not isinstance(record["id"], (str, int)) or not isinstance(record["index"], int):
                raise ValueError(f"{file}, line {number} has no id of an item, or no place; remove it")
            other = found.get(record["id"], record)["index"]
            if other != record["index"]:
                raise ValueError(
                    f"{file}, line {number} is of another item than an earlier line with its id {record['id']!r:.80} "
                    f"(their places are {record['index']} and {other}); run the benchmark again into another folder"
                )
            found[record["id"]] = record
    return sorted(found.values(), key=lambda record: record["index"])


# -- numbers -----------------------------------------------------------------------------------------------------------


def summarize(
    name: str, kind: str, primary: str, records: Sequence[Record], n: int, confidence: float = 0.95
) -> BenchmarkResult:
    """The results of a benchmark from its records.

    Args:
        name: name of the benchmark.
        kind: ``generate``, ``episodes``, ``choices`` or ``perplexity``.
        primary: name of its headline metric; with several samples per item, ``accuracy`` is ``avg@n``.
        records: records of its items.
        n: samples per item.
        confidence: confidence level of intervals.
    """
    scored = [record for record in records if record["status"] != "error"]
    errors = [record for record in records if record["status"] == "error"]
    average = "accuracy" if n == 1 else f"avg@{n}"
    sampled = kind in ("generate", "episodes")
    result = BenchmarkResult(
        name, average if sampled and primary == "accuracy" else primary, items=len(records), scored=len(scored),
        errors=len(errors), first_error=errors[0]["error"] if errors else None,
    )  # fmt: skip
    if not scored:
        return result

    def over_items(
        metric: str, values: Sequence[float], of: Sequence[Record] = scored, weights: Sequence[float] | None = None
    ) -> None:
        total = math.fsum(weights) if weights is not None else len(values)
        result.metrics[metric] = math.fsum(values) / total
        bounds = None if kind == "perplexity" else (0.0, 1.0)
        interval = mean_interval(values, weights, confidence, bounds, clusters_of(of))
        if math.isfinite(interval.low):
            result.intervals[metric] = interval

    if kind == "perplexity":
        over_items(
            "bits_per_byte",
            [record["nll"] / math.log(2) for record in scored],
            weights=[float(record["bytes"]) for record in scored],
        )
        tokens = sum(record["tokens"] for record in scored)
        result.metrics["perplexity"] = math.exp(min(700.0, math.fsum(record["nll"] for record in scored) / tokens))
    elif kind == "choices":
        over_items("accuracy", [record["score"] for record in scored])
        over_items("accuracy_norm", [record["score_norm"] for record in scored])
    else:
        _summarize_samples(result, average, scored, n, over_items)
    key: Callable[[Record], float] = _primary_score(kind, result.primary)
    for category in sorted({record["category"] for record in scored if record.get("category")}):
        part = [record for record in scored if record["category"] == category]
        weights = [float(r["bytes"]) for r in part] if kind == "perplexity" else [1.0] * len(part)
        result.categories[category] = (math.fsum(map(key, part)) / math.fsum(weights), len(part))
    return result


def _primary_score(kind: str, primary: str) -> Callable[[Record], float]:
    if kind == "perplexity":
        return lambda record: record["nll"] / math.log(2)
    if kind == "choices" and primary == "accuracy_norm":
        return lambda record: record["score_norm"]
    return lambda record: record["score"]


def _summarize_samples(
    result: BenchmarkResult, average: str, scored: Sequence[Record], n: int, over_items: Callable[..., None]
) -> None:
    kept = [[sample for sample in record["samples"] if sample["score"] is not None] for record in scored]
    over_items(average, [average_at_k(scores, len(scores)) for scores in ([s["score"] for s in item] for item in kept)])
    if n > 1:
        whole = [item for item in kept if len(item) == n]  # pass@n and cons@n are of n samples
        of = [record for record, item in zip(scored, kept, strict=True) if len(item) == n]
        if whole:
            over_items(f"pass@{n}", [pass_at_k(n, sum(s["score"] >= 1.0 for s in item), n) for item in whole], of)
            votes = [consensus_at_k([s["answer"] for s in item], [s["score"] for s in item], n) for item in whole]
            over_items(f"cons@{n}", votes, of)
    samples = [sample for item in kept for sample in item]
    result.metrics["truncation_rate"] = mean([float(s["finish_reason"] == "length") for s in samples])
    result.metrics["parse_failure_rate"] = mean([float(s["status"] in _UNREADABLE) for s in samples])
    result.metrics["mean_tokens"] = mean([float(s["tokens"]) for s in samples])
    for name in sorted({name for sample in samples for name in sample.get("episode", ())}):
        result.metrics[f"episode/{name}"] = mean([sample["episode"].get(name, 0.0) for sample in samples])
    for name in sorted({name for sample in samples for name in sample.get("extra", ())}):
        pairs = [sample["extra"][name] for sample in samples if name in sample.get("extra", ())]
        if count := math.fsum(p[1] for p in pairs):
            result.metrics[name] = math.fsum(p[0] for p in pairs) / count


def category_mean(records: Sequence[Record]) -> float:
    """The mean of the categories' mean scores, with equal weights.

    Args:
        records: scored records of benchmarks with generated answers.
    """
    scores: dict[str, list[float]] = {}
    for record in records:
        scores.setdefault(record.get("category") or "", []).append(record["score"])
    return mean([mean(own) for own in scores.values()])


def clusters_of(records: Sequence[Record]) -> list[tuple[str, str]] | None:
    """The cluster of each item, its own if it has none; None if no item has one."""
    if not any(record.get("cluster") for record in records):
        return None
    return [("cluster", str(r["cluster"])) if r.get("cluster") else ("item", r["id"]) for r in records]


def combined_hash(records: Sequence[Record], name: str) -> str:
    """One digest of the digests of all items, independent of order."""
    parts = sorted(f"{record['id']} {record[name]}" for record in records if record.get(name))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
