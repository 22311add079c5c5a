"""Building a corpus from raw sources: unusable documents are counted and reported, duplicates and benchmark items removed.

The folder has the rows ``id, source, place, text, bytes`` and the signals of each document in Parquet parts (see
`table`), which ``nbg_lightning.data.Parquet`` can read. It is built in three passes, each of which can be resumed: parts
of the sources are read in parallel into ``read/``; duplicates are determined from digests and signatures; the documents
kept are written in parallel, and ``read/`` is removed.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nbg_lightning.construction.filtering.contamination import Contamination
from nbg_lightning.construction.filtering.deduplicate import (
    Duplicates,
    NearDuplicates,
    Signature,
    exact_duplicates,
    near_duplicates,
    similarity,
)
from nbg_lightning.construction.filtering.documents import FIXED, Limits, document_id, read_part, readable_place
from nbg_lightning.construction.filtering.signals import Signals
from nbg_lightning.construction.filtering.table import (
    PartWriter,
    Table,
    part_file,
    read_groups,
    read_record,
    read_rows,
    table_report,
)
from nbg_lightning.construction.former_names import FORMER_OUTCOMES
from nbg_lightning.construction.outcomes import OutcomeCounts
from nbg_lightning.construction.step import DocumentRow, DocumentStep, StepPipeline
from nbg_lightning.construction.store import REPORT, Store
from nbg_lightning.data.durable import remove_leftovers
from nbg_lightning.data.progress import Progress
from nbg_lightning.data.sources import Part, Source
from nbg_lightning.jobs import EngineName, run_jobs

_BATCH_BYTES = 1 << 20  # text passed to steps at a time
_KEEP = "keep.npy"
_EXACT, _NEAR, _CONTAMINATED = 1, 2, 3  # outcomes of documents in keep.npy; 0 is kept
_REASONS = {_EXACT: "exact_duplicate", _NEAR: "near_duplicate", _CONTAMINATED: "contaminated"}
_EXAMPLES = 5  # dropped documents that are named, for each reason and part


@dataclass(frozen=True)
class CorpusSettings:
    """Settings of a corpus.

    Attributes:
        limits: limits of documents.
        near: near duplicates; None keeps them.
        signals: whether to add columns of signals.
    """

    limits: Limits = field(default_factory=Limits)
    near: NearDuplicates | None = field(default_factory=NearDuplicates)
    signals: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON."""
        near = None if self.near is None else self.near.to_dict()
        return {"limits": self.limits.to_dict(), "near": near, "signals": self.signals}


@dataclass(frozen=True)
class _ReadJob:
    index: int
    source: str
    part: Part
    folder: Path
    step: StepPipeline
    limits: Limits


def _schema(step: DocumentStep) -> Any:
    import pyarrow

    string = pyarrow.string()
    own = {"id": string, "source": string, "place": string, "text": pyarrow.large_string(), "bytes": pyarrow.int64()}
    return pyarrow.schema({**own, **step.columns})


def _read(job: _ReadJob) -> dict[str, Any]:
    """Read one part of a source into a file; returns its counts."""
    writer = PartWriter(job.folder, job.index, _schema(job.step))
    counts: dict[str, int] = {"documents": 0, "bytes": 0}
    examples: dict[str, list[str]] = {}
    waiting: list[DocumentRow] = []

    def flush() -> None:
        for row, values in zip(waiting, job.step.values([row["text"] for row in waiting]), strict=True):
            writer.write({**row, **values})
        waiting.clear()

    try:
        size = 0
        for document in read_part(job.part, job.limits):
            counts["documents"] += 1
            if document.problem is not None:
                counts[document.problem] = counts.get(document.problem, 0) + 1
                if len(named := examples.setdefault(document.problem, [])) < _EXAMPLES:
                    named.append(readable_place(document.place))
                continue
            if document.fixed:
                counts[FIXED] = counts.get(FIXED, 0) + 1
            num_bytes = len(document.text.encode())
            counts["bytes"] += num_bytes
            waiting.append(
                {
                    "id": document_id(document.text),
                    "source": job.source,
                    "place": document.place,
                    "text": document.text,
                    "bytes": num_bytes,
                }
            )
            size += num_bytes
            if size > _BATCH_BYTES:
                flush()
                size = 0
        flush()
        return writer.commit({"source": job.source, "counts": counts, "examples": examples})
    except BaseException:
        writer.discard()
        raise


@dataclass(frozen=True)
class _KeepJob:
    index: int
    read_file: Path
    folder: Path
    kept: np.ndarray
    step: DocumentStep


def _keep(job: _KeepJob) -> dict[str, Any]:
    """Write the kept rows of a part to its file."""
    schema = _schema(job.step)
    writer = PartWriter(job.folder, job.index, schema)
    try:
        row_number, num_bytes = 0, 0
        for rows in read_groups(job.read_file, schema.names):
            for row in rows:
                if job.kept[row_number]:
                    writer.write(row)
                    num_bytes += row["bytes"]
                row_number += 1
        return writer.commit({"source": read_record(job.read_file)["source"], "bytes": num_bytes})
    except BaseException:
        writer.discard()
        raise


def build_corpus(
    sources: Mapping[str, Source],
    out: str | Path,
    settings: CorpusSettings | None = None,
    benchmarks: Mapping[str, Source] | None = None,
    ngram: int = 13,
    trust: Mapping[str, float] | None = None,
    engine: EngineName = "local",
    num_workers: int | None = None,
) -> Table:
    """Build a corpus, or resume an interrupted build.

    Args:
        sources: sources by name. Of duplicates, the one from the most trusted source is kept, then the first.
        out: folder of the corpus.
        settings: see `CorpusSettings`.
        benchmarks: texts of benchmark items; documents that share an n-gram with one are dropped.
        ngram: number of words in these n-grams.
        trust: 0 to 1 by source, 1 by default; also used by `nbg build-recall`.
        engine: where parts are processed.
        num_workers: number of concurrent jobs.

    Raises:
        ValueError: a source without a usable document, or nothing left.
        FileNotFoundError: a source's path does not exist.
    """
    settings = settings or CorpusSettings()
    trust = _checked_trust(sources, trust or {})
    steps: list[DocumentStep] = [Signals()] if settings.signals else []
    kept_step = StepPipeline(steps)
    if settings.near is not None:
        steps.append(Signature(settings.near))
    contamination = None if not benchmarks else _contamination(benchmarks, ngram)
    if contamination is not None:
        steps.append(contamination)
    step = StepPipeline(steps)
    manifest = {
        "build": "corpus",
        "sources": {name: source.identity() for name, source in sources.items()},
        "settings": settings.to_dict(),
        "trust": trust,
        **step.identity(),
    }
    with Store(out, manifest) as store:
        if (store.folder / REPORT).is_file():
            return Table(store.folder)
        read = store.folder / "read"
        read.mkdir(exist_ok=True)
        for folder in (store.folder, read):
            remove_leftovers(folder)
        parts = [(name, part) for name, source in sources.items() for part in source.parts()]
        records = _read_parts(parts, read, step, settings.limits, engine, num_workers)
        counts = _source_counts(sources, records)
        borders = np.cumsum([0, *(record["rows"] for record in records)])
        outcomes, examples = _outcomes(read, len(parts), borders, settings.near, [trust[name] for name, _ in parts])
        written = _write_parts(store.folder, outcomes, borders, kept_step, engine, num_workers)
        report = table_report(written)
        if not report["rows"]:
            raise ValueError(
                f"sources is invalid: no document is left ({_dropped_line(counts, outcomes)}); give others"
            )
        report |= _report(counts, records, written, outcomes, borders, examples)
        report["trust"] = trust
        if contamination is not None:
            report["benchmarks"] = contamination.counts
        store.write_report(report)
        shutil.rmtree(read)
        return Table(store.folder)


def _contamination(benchmarks: Mapping[str, Source], ngram: int) -> Contamination:
    items = {
        name: [text for part in source.parts() for text in part.documents()] for name, source in benchmarks.items()
    }
    return Contamination.from_items(items, ngram)


def _read_parts(
    parts: list[tuple[str, Part]],
    read: Path,
    step: StepPipeline,
    limits: Limits,
    engine: EngineName,
    workers: int | None,
) -> list[dict[str, Any]]:
    """Read the remaining parts of all sources; returns the records of all parts."""
    jobs = [
        _ReadJob(index, name, part, read, step, limits)
        for index, (name, part) in enumerate(parts)
        if not part_file(read, index).is_file()
    ]
    _run("reading", _read, jobs, len(parts), engine, workers)
    return [read_record(part_file(read, index)) for index in range(len(parts))]


def _write_parts(
    folder: Path,
    outcomes: np.ndarray,
    borders: np.ndarray,
    step: StepPipeline,
    engine: EngineName,
    workers: int | None,
) -> list[dict[str, Any]]:
    """Write the remaining parts of kept documents; returns the records of all parts."""
    number = len(borders) - 1
    jobs = [
        _KeepJob(
            index, part_file(folder / "read", index), folder, outcomes[borders[index] : borders[index + 1]] == 0, step
        )
        for index in range(number)
        if not part_file(folder, index).is_file()
    ]
    _run("writing", _keep, jobs, number, engine, workers)
    return [read_record(part_file(folder, index)) for index in range(number)]


def _checked_trust(sources: Mapping[str, Source], trust: Mapping[str, float]) -> dict[str, float]:
    if not sources:
        raise ValueError("sources is invalid: empty; name at least one")
    for name, value in trust.items():
        if name not in sources:
            raise ValueError(f"trust is invalid: {name!r} is no source; name one of {', '.join(sources)}")
        if not 0 <= value <= 1:
            raise ValueError(f"trust of {name!r} is invalid: {value}; give 0 to 1")
    return {name: float(trust.get(name, 1.0)) for name in sources}


def _run(name: str, function: Any, jobs: list[Any], total: int, engine: EngineName, num_workers: int | None) -> None:
    with Progress(name, total, unit="parts") as progress:
        progress.advance(total - len(jobs), fresh=False)
        if 0 < len(jobs) < total:
            print(f"{name}: going on; {total - len(jobs)} of {total} parts are done", file=sys.stderr)
        for _ in run_jobs(function, jobs, engine, num_workers):
            progress.advance(1)


def _source_counts(sources: Mapping[str, Source], records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Sum the counts of each source over its parts.

    Raises:
        ValueError: a source without a usable document.
    """
    counts: dict[str, dict[str, Any]] = {name: {"documents": 0, "bytes": 0} for name in sources}
    for record in records:
        own = counts[record["source"]]
        for kind, number in record["counts"].items():
            kind = FORMER_OUTCOMES.get(kind, kind)  # of a part read by an earlier version
            own[kind] = own.get(kind, 0) + number
    for name, own in counts.items():
        if not own["bytes"]:
            problems = {kind: number for kind, number in own.items() if kind not in ("documents", "bytes")}
            listed = ", ".join(f"{number} {kind}" for kind, number in problems.items()) or "it has no documents"
            first = next(
                (places[0] for r in records if r["source"] == name for places in r["examples"].values() if places), ""
            )
            raise ValueError(
                f"source {name!r} is invalid: none of {own['documents']} documents can be used ({listed}"
                + (f"; the first is {first}" if first else "")
                + "); check its path and text_field"
            )
    return counts


def _outcomes(
    read: Path, num_parts: int, borders: np.ndarray, near: NearDuplicates | None, trust: list[float]
) -> tuple[np.ndarray, dict[str, list[str]]]:
    """The outcome of each document, uint8[N], with named examples of duplicates."""
    file, number = read / _KEEP, int(borders[-1])
    ids = np.empty(number, "S32")
    outcomes = np.zeros(number, np.uint8)
    rank = np.empty(number, np.float32)
    signatures = None
    if near is not None:
        signatures = np.memmap(read / "signatures.u32", np.uint32, "w+", shape=(max(1, number), near.size))
    for index in range(num_parts):
        rank[borders[index] : borders[index + 1]] = -trust[index]
        columns = ["id", *(["signature"] if near else [])]
        position = int(borders[index])
        for rows in read_groups(part_file(read, index), [*columns, *_optional(read, index, "contaminated")]):
            for row in rows:
                ids[position] = row["id"]
                if signatures is not None:
                    signatures[position] = np.frombuffer(row["signature"], "<u4")
                if row.get("contaminated") is not None:
                    outcomes[position] = _CONTAMINATED
                position += 1
    exact = exact_duplicates(ids, rank)
    outcomes[~exact.kept & (outcomes == 0)] = _EXACT
    original = exact.original
    if signatures is not None:
        found: Duplicates = near_duplicates(signatures[:number], rank, near or NearDuplicates(), outcomes == 0)
        again = ~found.kept & (outcomes == 0)
        outcomes[again] = _NEAR
        original = np.where(again, found.original, original)
    examples = _named_examples(read, borders, outcomes, original)
    np.save(file, outcomes)
    return outcomes, examples


def _optional(read: Path, index: int, column: str) -> list[str]:
    from nbg_lightning.data.sources import open_parquet

    with open_parquet(str(part_file(read, index))) as parquet:
        return [column] if column in parquet.schema_arrow.names else []


def _named_examples(
    read: Path, borders: np.ndarray, outcomes: np.ndarray, original: np.ndarray
) -> dict[str, list[str]]:
    def row_of(number: int) -> DocumentRow:
        part = int(np.searchsorted(borders, number, side="right")) - 1
        rows = read_rows(part_file(read, part), None)
        return next(row for position, row in enumerate(rows, int(borders[part])) if position == number)

    examples: dict[str, list[str]] = {}
    for code, reason in _REASONS.items():
        for number in np.flatnonzero(outcomes == code)[:_EXAMPLES].tolist():
            row = row_of(number)
            line = readable_place(row["place"])
            if code in (_EXACT, _NEAR):
                other = row_of(int(original[number]))
                line += f" is that of {readable_place(other['place'])}" if code == _EXACT else ""
                if code == _NEAR:
                    share = similarity(row["signature"], other["signature"])
                    line += f" is like {readable_place(other['place'])} (similarity about {share:.2f})"
            else:
                line += f" holds an item of {row['contaminated']}"
            examples.setdefault(reason, []).append(line)
    return examples


def _dropped_line(counts: Mapping[str, Mapping[str, int]], outcomes: np.ndarray) -> str:
    dropped = OutcomeCounts()
    for own in counts.values():
        for kind, number in own.items():
            if kind not in ("documents", "bytes", FIXED):
                dropped.add(kind, number=number)
    for code, reason in _REASONS.items():
        dropped.add(reason, number=int((outcomes == code).sum()))
    return dropped.summary()


def _report(
    counts: dict[str, dict[str, Any]],
    records: list[dict[str, Any]],
    written: list[dict[str, Any]],
    outcomes: np.ndarray,
    borders: np.ndarray,
    examples: dict[str, list[str]],
) -> dict[str, Any]:
    dropped = _dropped_line(counts, outcomes)
    for index, record in enumerate(records):
        own = counts[record["source"]]
        part = outcomes[borders[index] : borders[index + 1]]
        for code, reason in _REASONS.items():
            own[reason] = own.get(reason, 0) + int((part == code).sum())
        own["kept"] = own.get("kept", 0) + written[index]["rows"]
        own["kept_bytes"] = own.get("kept_bytes", 0) + written[index]["bytes"]
        for problem, places in record["examples"].items():
            named = examples.setdefault(problem, [])
            named += places[: max(0, _EXAMPLES - len(named))]
    return {
        "bytes": sum(record["bytes"] for record in written),
        "sources": counts,
        "dropped": dropped,
        "examples": examples,
    }
