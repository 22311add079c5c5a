"""Additional columns of a corpus, computed by a step: a folder of parts parallel to the corpus, without the texts."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from nbg_lightning.construction.filtering.table import (
    PartWriter,
    Table,
    part_file,
    read_groups,
    read_record,
    table_report,
)
from nbg_lightning.construction.step import DocumentStep
from nbg_lightning.construction.store import REPORT, Store
from nbg_lightning.data.durable import remove_leftovers
from nbg_lightning.data.progress import Progress
from nbg_lightning.jobs import EngineName, run_jobs


@dataclass(frozen=True)
class ColumnsJob:
    """One part to process."""

    index: int
    corpus_file: Path
    folder: Path
    step: DocumentStep


def make_columns(job: ColumnsJob) -> tuple[int, float]:
    """Write the columns of one part; returns bytes of text and seconds of processor time."""
    import pyarrow

    schema = pyarrow.schema({"id": pyarrow.string(), **job.step.columns})
    writer = PartWriter(job.folder, job.index, schema)
    num_bytes, begin = 0, time.process_time()
    try:
        for rows in read_groups(job.corpus_file, ["id", "text"]):
            texts = [row["text"] for row in rows]
            for row, values in zip(rows, job.step.values(texts), strict=True):
                writer.write({"id": row["id"], **values})
            num_bytes += sum(len(text.encode()) for text in texts)
        writer.commit({"bytes": num_bytes})
        return num_bytes, time.process_time() - begin
    except BaseException:
        writer.discard()
        raise


def build_columns(
    name: str,
    corpus: Table,
    step: DocumentStep,
    out: str | Path,
    engine: EngineName = "local",
    num_workers: int | None = None,
) -> Table:
    """Apply a step to every document of a corpus; finished parts of an interrupted build are reused.

    Args:
        name: name of the build, for progress.
        corpus: a corpus of `nbg build-corpus`.
        step: the step.
        out: folder of the columns.
        engine: see `run_jobs`.
        num_workers: number of concurrent jobs.

    Raises:
        ValueError: the folder holds other columns.
    """
    manifest = {"build": name, "corpus": corpus.fingerprint, **step.identity()}
    with Store(out, manifest) as store:
        if (store.folder / REPORT).is_file():
            return Table(store.folder)
        remove_leftovers(store.folder)
        files = [part_file(store.folder, index) for index in range(len(corpus.files))]
        todo = [index for index, file in enumerate(files) if not file.is_file()]
        if 0 < len(todo) < len(files):
            print(f"{name}: going on; {len(files) - len(todo)} of {len(files)} parts are done", file=sys.stderr)
        jobs = [ColumnsJob(index, corpus.files[index], store.folder, step) for index in todo]
        num_bytes, seconds = 0, 0.0
        with Progress(name, len(files), unit="parts") as progress:
            progress.advance(len(files) - len(jobs), fresh=False)
            for _, (size, spent) in run_jobs(make_columns, jobs, engine, num_workers):
                num_bytes, seconds = num_bytes + size, seconds + spent
                progress.advance(1)
        records = [read_record(file) for file in files]
        report = table_report(records) | {"bytes": sum(record["bytes"] for record in records)}
        report["this_run"] = {
            "bytes": num_bytes,
            "processor_seconds": seconds,
            "megabytes_per_second_of_a_core": num_bytes / 1e6 / max(seconds, 1e-9),
        }
        if report["fingerprint"] != corpus.fingerprint:
            raise ValueError(
                f"{corpus.folder} is invalid: changed while it was read; build the columns in another folder"
            )
        store.write_report(report)
        return Table(store.folder)
