"""Selection of pools by score: the best documents (HQ), the good ones (MQ), and a curriculum that trains on them.

Documents are ranked by a weighted sum of columns, with ties broken by a hash of the id. HQ is the top of the ranking up to a
threshold, a number of tokens or a share of all; MQ follows it. Documents that fail certain rules are excluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.construction.filtering.columns import build_columns
from nbg_lightning.construction.filtering.perplexity import TokenCount
from nbg_lightning.construction.filtering.pools import POOLS, SelectionSettings
from nbg_lightning.construction.filtering.ranking import Ranking, joined_rows
from nbg_lightning.construction.filtering.selection_report import write_reports
from nbg_lightning.construction.filtering.table import PartWriter, Table, part_file, read_record
from nbg_lightning.construction.filtering.tagger import QUALITY
from nbg_lightning.construction.store import REPORT, JsonRecord, Store, read_manifest, read_report
from nbg_lightning.data.durable import remove_leftovers
from nbg_lightning.data.progress import Progress
from nbg_lightning.jobs import EngineName, run_jobs

_BINS = 60
_EXCERPT = 400  # characters of a sample


@dataclass(frozen=True)
class _PoolJob:
    index: int
    files: tuple[Path, ...]
    folder: Path
    pools: np.ndarray  # uint8[rows]: 1 HQ, 2 MQ
    scores: np.ndarray
    columns: dict[str, tuple[float, float]]  # numeric columns with the range of their histograms
    samples: tuple[int, ...]


def _write_pools(job: _PoolJob) -> dict[str, Any]:
    """Write the documents of one part to their pools; returns histograms and samples."""
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


def build_selection(
    corpus: Table,
    columns: Sequence[Table],
    out: str | Path,
    settings: SelectionSettings | None = None,
    tokenizer: str | None = None,
    engine: EngineName = "local",
    num_workers: int | None = None,
) -> dict[str, Any]:
    """Write ``hq/`` and ``mq/`` (Parquet: id, source, text, score), ``report.md`` with its figure, and ``curriculum.yaml``.

    Args:
        corpus: a corpus of `nbg build-corpus`.
        columns: columns of `nbg build-tags` and `nbg build-recall`.
        out: folder of the selection.
        settings: see `SelectionSettings`.
        tokenizer: counts tokens exactly; without it they are estimated as bytes / 4, which the report mentions.
        engine: where parts are processed.
        num_workers: number of concurrent jobs.

    Returns:
        The report.

    Raises:
        ValueError: columns of another corpus, unknown columns, or an empty pool.
    """
    settings = settings or SelectionSettings()
    tables = list(columns)
    for table in tables:
        table.check_aligned(corpus)
    manifest: JsonRecord = {
        "build": "selection",
        "corpus": corpus.fingerprint,
        "columns": [read_manifest(table.folder) for table in tables],
        "settings": settings.to_dict(),
    }
    step = None if tokenizer is None else TokenCount(tokenizer)
    if step is not None:
        manifest["tokenizer"] = step.identity()
    with Store(out, manifest) as store:
        if (store.folder / REPORT).is_file():
            return read_report(store.folder)
        for pool in POOLS:
            (store.folder / pool).mkdir(exist_ok=True)
            remove_leftovers(store.folder / pool)
        if step is not None:
            tables.append(build_columns("counting tokens", corpus, step, store.folder / "tokens", engine, num_workers))
        weights = _score_weights(settings, tables)
        ranking = Ranking(corpus, tables, weights, settings, exact=step is not None)
        records = _fill_pools(store.folder, [corpus, *tables], ranking, engine, num_workers)
        report = ranking.report()
        write_reports(store.folder, report, records, ranking, settings)
        store.write_report(report)
        return report


def _fill_pools(
    folder: Path, tables: Sequence[Table], ranking: Ranking, engine: EngineName, num_workers: int | None
) -> list[JsonRecord]:
    """Write the remaining parts of the pools; returns the records of all parts."""
    jobs = [
        _PoolJob(
            index,
            tuple(table.files[index] for table in tables),
            folder,
            ranking.pools[first:end],
            ranking.scores[first:end],
            ranking.ranges,
            tuple(int(number) - first for number in ranking.samples if first <= number < end),
        )
        for index, (first, end) in enumerate(ranking.borders)
    ]
    todo = [job for job in jobs if not part_file(folder / POOLS[0], job.index).is_file()]
    with Progress("writing pools", len(jobs), unit="parts") as progress:
        progress.advance(len(jobs) - len(todo), fresh=False)
        for _ in run_jobs(_write_pools, todo, engine, num_workers):
            progress.advance(1)
    return [read_record(part_file(folder / POOLS[0], job.index)) for job in jobs]


def _score_weights(settings: SelectionSettings, tables: Sequence[Table]) -> dict[str, float]:
    if settings.score is not None:
        if not settings.score:
            raise ValueError("score is invalid: no column; name at least one, such as quality")
        return dict(settings.score)
    names = {name for table in tables for name in table.schema.names}
    weights = {name: weight for name, weight in ((QUALITY, 1.0), ("recall", 2.0)) if name in names}
    if not weights:
        raise ValueError("columns is invalid: no quality and no recall in them; give the folder of tags, or set score")
    return weights
