"""From scores to pools: the best documents (HQ), the good ones (MQ), and what trains on them.

Documents are ranked by a weighted sum of columns; equal ones by a hash of their id. HQ is the top of that order up to a
threshold, a number of tokens or a share of all; MQ goes on from there. Documents that fail certain rules are in no pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.construction.filtering.columns import build_columns
from nbg_lightning.construction.filtering.selection_report import write_reports
from nbg_lightning.construction.filtering.table import PartWriter, Table, part_file, read_groups, read_record
from nbg_lightning.construction.filtering.tagger import QUALITY
from nbg_lightning.construction.jobs import EngineName, run_jobs
from nbg_lightning.construction.store import REPORT, Store
from nbg_lightning.data.durable import remove_leftovers
from nbg_lightning.data.order import mix
from nbg_lightning.data.progress import Progress
from nbg_lightning.schedule.tokens import parse_tokens

POOLS = ("hq", "mq")
BYTES_PER_TOKEN = 4.0  # without a tokenizer: an estimate for English and large vocabularies
_BINS = 60
_REST, _BARRED = 0, 255
_SAMPLES, _EXCERPT = 3, 400


@dataclass(frozen=True)
class PoolSize:
    """How far a pool goes down the order; exactly one of these.

    Args:
        threshold: least score.
        tokens: how many ("3B", 12_000), reached with the last document.
        share: of the tokens of all documents that are not barred, 0 to 1.

    Raises:
        ValueError: none or several of them, or a value that cannot be.
    """

    threshold: float | None = None
    tokens: int | str | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.threshold, self.tokens, self.share)) != 1:
            raise ValueError("a pool needs exactly one of threshold, tokens and share")
        if self.share is not None and not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}: it must be between 0 and 1")
        if self.tokens is not None:
            parse_tokens(self.tokens)

    def cut(self, scores: np.ndarray, tokens: np.ndarray, begin: int, total: int) -> int:
        """Where the pool ends in the order, exclusively.

        Args:
            scores: of the documents in order, falling.
            tokens: of them.
            begin: where the pool begins.
            total: tokens of all of them.
        """
        if self.threshold is not None:
            return max(begin, int(np.searchsorted(-scores, -self.threshold, side="right")))
        wanted = parse_tokens(self.tokens) if self.tokens is not None else round((self.share or 0.0) * total)
        if wanted == 0:
            return begin
        return min(len(scores), begin + 1 + int(np.searchsorted(np.cumsum(tokens[begin:]), wanted)))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: value for name, value in self.__dict__.items() if value is not None}


@dataclass(frozen=True)
class SelectionSettings:
    """How pools are made.

    Attributes:
        score: column to weight; by default 1 for ``quality``, and 2 for ``recall`` where it is given.
        bar: patterns of rules; a document that fails one of them is in no pool. By default those of repetition that hold
            for texts of any kind and length: source code and long manuals repeat 5-grams by nature.
        limits: column to [least, most], None for no limit; a document outside is in no pool.
        hq: size of HQ.
        mq: size of MQ, counted from the end of HQ.
        tokens_per_step: of the stages in the YAML fragment.
        sequence_length: the same.
        seed: of the order of equal documents and of the samples in the report.
    """

    score: dict[str, float] | None = None
    bar: tuple[str, ...] = ("repetition/lines", "repetition/paragraphs", "repetition/top_*")
    limits: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    hq: PoolSize = field(default_factory=lambda: PoolSize(share=0.3))
    mq: PoolSize = field(default_factory=lambda: PoolSize(share=0.4))
    tokens_per_step: int = 8192
    sequence_length: int = 256
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self.__dict__, "hq": self.hq.to_dict(), "mq": self.mq.to_dict(), "bar": list(self.bar)}


@dataclass(frozen=True)
class _PoolJob:
    index: int
    files: tuple[Path, ...]
    folder: Path
    pools: np.ndarray  # uint8[rows]: 1 HQ, 2 MQ
    scores: np.ndarray
    columns: dict[str, tuple[float, float]]  # numeric columns and the range of their histograms
    samples: tuple[int, ...]


def _write_pools(job: _PoolJob) -> dict[str, Any]:
    """The documents of one part to its pools; returns histograms and samples."""
    import pyarrow

    string = pyarrow.string()
    schema = pyarrow.schema(
        {"id": string, "source": string, "text": pyarrow.large_string(), "score": pyarrow.float64()}
    )
    writers = [PartWriter(job.folder / pool, job.index, schema) for pool in POOLS]
    values: dict[str, list[float]] = {name: [] for name in job.columns}
    samples: dict[int, dict[str, Any]] = {}
    wanted = set(job.samples)
    try:
        for row_number, row in enumerate(joined_rows(job.files, ["text", *job.columns])):
            pool = int(job.pools[row_number])
            score = float(job.scores[row_number])
            if pool in (1, 2):
                writers[pool - 1].write({"id": row["id"], "source": row["source"], "text": row["text"], "score": score})
            for name, found in values.items():
                found.append(np.nan if row[name] is None else row[name])
            if row_number in wanted:
                own = {"id": row["id"], "source": row["source"], "score": score, "text": row["text"][:_EXCERPT]}
                samples[row_number] = own
        histograms = {
            name: [
                np.histogram(np.asarray(found)[mask & np.isfinite(found)], _BINS, job.columns[name])[0].tolist()
                for mask in (job.pools == 1, job.pools == 2, (job.pools != 1) & (job.pools != 2))
            ]
            for name, found in values.items()
        }
        record = {"histograms": histograms, "samples": {str(number): own for number, own in samples.items()}}
        for writer in reversed(writers):
            writer.commit(record)
        return record
    except BaseException:
        for writer in writers:
            writer.discard()
        raise


def joined_rows(files: Sequence[Path], columns: Sequence[str]) -> Any:
    """Rows of a corpus part with the columns of parts beside it.

    Args:
        files: of the corpus first, then of the columns.
        columns: beside id and source, each of the first file that has it.

    Raises:
        ValueError: parts that do not belong together.
    """
    from nbg_lightning.data.sources import open_parquet

    left = list(dict.fromkeys(columns))
    streams = []
    for number, file in enumerate(files):
        with open_parquet(str(file)) as parquet:
            names = set(parquet.schema_arrow.names)
        own = [name for name in left if name in names]
        left = [name for name in left if name not in own]
        wanted = ["id", *(["source"] if number == 0 else []), *own]
        streams.append(row for rows in read_groups(file, wanted) for row in rows)
    if left:
        raise ValueError(f"there is no column {left[0]!r} in the corpus or the folders of columns that are given")
    for parts in zip(*streams, strict=True):
        if len({part["id"] for part in parts}) > 1:
            raise ValueError(f"{files[-1]} has other documents than {files[0]}: build the columns again")
        yield {name: value for part in reversed(parts) for name, value in part.items()}


def build_selection(
    corpus: Table,
    columns: Sequence[Table],
    out: str | Path,
    settings: SelectionSettings | None = None,
    tokenizer: str | None = None,
    engine: EngineName = "local",
    num_workers: int | None = None,
) -> dict[str, Any]:
    """Write ``hq/`` and ``mq/`` (Parquet: id, source, text, score), ``report.md`` with its picture, and ``curriculum.yaml``.

    Args:
        corpus: of `nbg build-corpus`.
        columns: of `nbg build-tags` and `nbg build-recall`.
        out: folder.
        settings: see `SelectionSettings`.
        tokenizer: counts tokens exactly; without it they are bytes / 4, and the report says so.
        engine: where parts are worked on.
        num_workers: how many at a time.

    Returns:
        The report.

    Raises:
        ValueError: columns of another corpus, unknown columns, or an empty pool.
    """
    settings = settings or SelectionSettings()
    tables = list(columns)
    for table in tables:
        table.check_aligned(corpus)
    about = {
        "build": "selection",
        "corpus": corpus.fingerprint,
        "columns": [_about(table) for table in tables],
        "settings": settings.to_dict(),
    }
    if tokenizer is not None:
        from nbg_lightning.construction.filtering.perplexity import TokenCount

        step = TokenCount(tokenizer)
        about["tokenizer"] = step.identity()
    with Store(out, about) as store:
        if (store.folder / REPORT).is_file():
            import json

            return json.loads((store.folder / REPORT).read_text("utf-8"))
        for pool in POOLS:
            (store.folder / pool).mkdir(exist_ok=True)
            remove_leftovers(store.folder / pool)
        if tokenizer is not None:
            tables.append(build_columns("counting tokens", corpus, step, store.folder / "tokens", engine, num_workers))
        weights = _score_weights(settings, tables)
        ranking = _Ranking(corpus, tables, weights, settings, exact=tokenizer is not None)
        jobs = [
            _PoolJob(
                index,
                tuple(table.files[index] for table in (corpus, *tables)),
                store.folder,
                ranking.pools[first:end],
                ranking.scores[first:end],
                ranking.ranges,
                tuple(int(number) - first for number in ranking.samples if first <= number < end),
            )
            for index, (first, end) in enumerate(ranking.borders)
        ]
        todo = [job for job in jobs if not part_file(store.folder / POOLS[0], job.index).is_file()]
        with Progress("writing pools", len(jobs), unit="parts") as progress:
            progress.advance(len(jobs) - len(todo), fresh=False)
            for _ in run_jobs(_write_pools, todo, engine, num_workers):
                progress.advance(1)
        records = [read_record(part_file(store.folder / POOLS[0], job.index)) for job in jobs]
        report = ranking.report()
        write_reports(store.folder, report, records, ranking, settings)
        store.write_report(report)
        return report


def _about(table: Table) -> dict[str, Any]:
    import json

    from nbg_lightning.construction.store import ABOUT

    return json.loads((table.folder / ABOUT).read_text("utf-8"))


def _score_weights(settings: SelectionSettings, tables: Sequence[Table]) -> dict[str, float]:
    if settings.score is not None:
        if not settings.score:
            raise ValueError("score has no column: name at least one, such as quality")
        return dict(settings.score)
    names = {name for table in tables for name in table.schema.names}
    weights = {name: weight for name, weight in ((QUALITY, 1.0), ("recall", 2.0)) if name in names}
    if not weights:
        raise ValueError("there is no column quality or recall: give the folder of tags, or set score")
    return weights


class _Ranking:
    """Scores, tokens and pools of all documents: some 30 bytes each in memory."""

    def __init__(
        self,
        corpus: Table,
        tables: Sequence[Table],
        weights: Mapping[str, float],
        settings: SelectionSettings,
        exact: bool,
    ):
        self.corpus, self.weights, self.settings, self.exact = corpus, dict(weights), settings, exact
        self.sources = sorted(corpus.report["sources"])
        number = len(corpus)
        self.scores = np.zeros(number)
        self.tokens = np.zeros(number, np.int64)
        self.source = np.zeros(number, np.uint16)
        self.pools = np.zeros(number, np.uint8)
        self.barred: dict[str, int] = {}
        self.borders: list[tuple[int, int]] = []
        self.ranges: dict[str, tuple[float, float]] = {}
        hashes = np.zeros(number, np.uint64)
        self._read(corpus, tables, hashes)
        self._rank(mix(hashes + np.uint64(settings.seed)))

    def _read(self, corpus: Table, tables: Sequence[Table], hashes: np.ndarray) -> None:
        import pyarrow.types as types

        schemas = {field.name: field.type for table in (*reversed(tables), corpus) for field in table.schema}
        shown = [field.name for table in tables for field in table.schema if types.is_floating(field.type)]
        self.shown = list(dict.fromkeys([*shown, *(name for name in self.weights if name in schemas)]))
        has_rules = "failed_rules" in schemas
        needed = [*self.weights, *self.settings.limits, *self.shown, "tokens" if self.exact else "bytes"]
        for name in (*self.weights, *self.settings.limits):
            if name not in schemas:
                raise ValueError(f"there is no column {name!r}; there are: {', '.join(sorted(schemas))}")
            if not (types.is_floating(schemas[name]) or types.is_integer(schemas[name])):
                raise ValueError(f"column {name!r} is of type {schemas[name]}, which is no number")
        position = 0
        code = {name: index for index, name in enumerate(self.sources)}
        for index in range(len(corpus.files)):
            first = position
            files = tuple(table.files[index] for table in (corpus, *tables))
            for row in joined_rows(files, [*needed, *(["failed_rules"] if has_rules else [])]):
                self.source[position] = code[row["source"]]
                hashes[position] = int(row["id"][:16], 16)
                self.tokens[position] = row["tokens"] if self.exact else max(1, round(row["bytes"] / BYTES_PER_TOKEN))
                for name in self.shown:
                    value = row[name]
                    if value is not None and np.isfinite(value):
                        low, high = self.ranges.get(name, (value, value))
                        self.ranges[name] = min(low, value), max(high, value)
                reason = self._bar(row)
                if reason is not None:
                    self.barred[reason] = self.barred.get(reason, 0) + 1
                    self.pools[position] = _BARRED
                else:
                    self.scores[position] = sum(weight * row[name] for name, weight in self.weights.items())
                position += 1
            self.borders.append((first, position))
        self.ranges = {name: (low, high if high > low else low + 1.0) for name, (low, high) in self.ranges.items()}

    def _bar(self, row: Mapping[str, Any]) -> str | None:
        """Why a document is in no pool; None if it may be."""
        for rule in row.get("failed_rules") or ():
            if any(fnmatch(rule, pattern) for pattern in self.settings.bar):
                return rule
        for name, (low, high) in self.settings.limits.items():
            value = row[name]
            if value is None or (low is not None and value < low) or (high is not None and value > high):
                return f"limits/{name}"
        for name in self.weights:
            if row[name] is None or not np.isfinite(row[name]):
                return f"no_number/{name}"
        return None

    def _rank(self, keys: np.ndarray) -> None:
        allowed = np.flatnonzero(self.pools != _BARRED)
        order = allowed[np.lexsort((keys[allowed], -self.scores[allowed]))]
        scores, tokens = self.scores[order], self.tokens[order]
        total = int(tokens.sum())
        begin = 0
        self.cuts: dict[str, float] = {}
        for code, (pool, size) in enumerate(zip(POOLS, (self.settings.hq, self.settings.mq), strict=True), 1):
            end = size.cut(scores, tokens, begin, total)
            if end == begin:
                best = f"the best left has score {scores[begin]:.3g}" if begin < len(scores) else "nothing is left"
                raise ValueError(
                    f"pool {pool} is empty with {size.to_dict()}: {best}; lower its threshold or raise its size"
                )
            self.pools[order[begin:end]] = code
            self.cuts[pool] = float(scores[end - 1])
            begin = end
        self.deciles: list[tuple[float, float, list[int]]] = []
        for part in np.array_split(order, min(10, len(order))):
            picked = part[np.argsort(keys[part], kind="stable")[:_SAMPLES]]
            self.deciles.append((float(self.scores[part[0]]), float(self.scores[part[-1]]), picked.tolist()))
        self.samples = sorted({number for _, _, picked in self.deciles for number in picked})

    def report(self) -> dict[str, Any]:
        """Counts, as JSON."""
        pools = {}
        for code, pool in enumerate(POOLS, 1):
            inside = self.pools == code
            by_source = np.bincount(self.source[inside], self.tokens[inside], len(self.sources)).astype(int)
            pools[pool] = {
                "documents": int(inside.sum()),
                "tokens": int(self.tokens[inside].sum()),
                "least_score": self.cuts[pool],
                "tokens_by_source": dict(zip(self.sources, by_source.tolist(), strict=True)),
            }
        rest = self.pools == _REST
        return {
            "documents": len(self.pools),
            "tokens": int(self.tokens.sum()),
            "tokens_are": "counted" if self.exact else f"estimated as bytes / {BYTES_PER_TOKEN:g}",
            "score": self.weights,
            "pools": pools,
            "rest": {"documents": int(rest.sum()), "tokens": int(self.tokens[rest].sum())},
            "barred": dict(sorted(self.barred.items())),
            "barred_tokens": int(self.tokens[self.pools == _BARRED].sum()),
        }
