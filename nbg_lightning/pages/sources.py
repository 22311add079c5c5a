"""Detection and reading of viewable files: rollouts, benchmark results, pairs, conversations, pass rates, or plain rows."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbg_lightning.data.arrow_rows import without_nulls
from nbg_lightning.digests import require_regular
from nbg_lightning.error_line import first_line
from nbg_lightning.evaluation.results import RESULTS
from nbg_lightning.json_lines import read_json_lines
from nbg_lightning.pages import benchmarks, rollouts
from nbg_lightning.pages.ledger import ledger_collection
from nbg_lightning.pages.records import EveryNth, ShownRecord, ShownRecords, plain
from nbg_lightning.pages.rollouts import ROLLOUTS
from nbg_lightning.pages.samples import TrainedTokens, conversation_record, pair_record
from nbg_lightning.pages.values import as_text, key_of
from nbg_lightning.rl.pass_rate.ledger import FORMAT

LONGEST_LINE_BYTES = 1 << 26
LINES = (".jsonl", ".jsonl.gz", ".ndjson")
NAMED = 6  # places in a message
KEPT_REASONS = 3  # of lines that could not be read
LONG_VALUE = 120  # characters from which a value of a plain row has lines of its own

Read = Callable[[dict[str, Any], str], ShownRecord]


@dataclass(frozen=True)
class Looked:
    """Options for reading.

    Attributes:
        limit: maximum number of records kept.
        marks: marks the trained tokens of conversations and pairs.
    """

    limit: int
    marks: TrainedTokens | None = None


def open_path(path: Path, look: Looked) -> list[ShownRecords]:
    """Everything viewable in a file or a run's folder.

    Raises:
        FileNotFoundError, ValueError: nothing, or nothing that can be read.
    """
    if path.is_dir():
        return _folder(path, look)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give a run's folder, a result's folder, or a file of rows")
    require_regular(path)
    if path.name == RESULTS:
        return benchmarks.suite_collections(path.parent, look.limit)
    if path.suffix == ".parquet":
        return [_parquet(path, look)]
    if path.name.endswith(LINES):
        return [_rows(str(path), _lines(path), look)]
    raise ValueError(
        f"{path} is nothing that can be shown; give a folder, {RESULTS}, a .jsonl or .parquet file, or the YAML of a run"
    )


def _folder(folder: Path, look: Looked) -> list[ShownRecords]:
    if (folder / RESULTS).is_file():
        return benchmarks.suite_collections(folder, look.limit)
    files = [file for file in (folder / ROLLOUTS, folder / "pairs.jsonl") if file.is_file()]
    ledgers = sorted(file for file in folder.glob("*.parquet") if is_ledger(file))
    results = newest_results(folder)
    parts = len(files) + len(ledgers) + len(results)
    if not parts:
        raise ValueError(f"{folder} has nothing that can be shown{_below(folder)}; give another")
    part = Looked(max(1, look.limit // parts), look.marks)
    found = [_rows(str(file), _lines(file), part) for file in files]
    found += [ledger_collection(file, part.limit) for file in ledgers]
    for result in results:
        found += benchmarks.suite_collections(result, part.limit)
    return found


def newest_results(folder: Path) -> list[Path]:
    """The newest result of each suite below ``benchmarks``, which has one folder per suite and step."""
    newest: dict[str, Path] = {}
    for file in sorted(folder.glob(f"benchmarks/**/{RESULTS}"), key=lambda file: file.stat().st_mtime):
        newest[_suite_of(file)] = file.parent
    return [newest[suite] for suite in sorted(newest)]


def _suite_of(file: Path) -> str:
    """Name of the suite of a result; for one that cannot be read, its place, so that whoever opens it says so."""
    try:
        return str(json.loads(file.read_bytes())["suite"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return str(file.parent)


def _below(folder: Path) -> str:
    """Viewable files further below, for a message."""
    found = [
        file.parent if file.name == RESULTS else file
        for name in (ROLLOUTS, RESULTS, "pairs.jsonl")
        for file in folder.rglob(name)
    ]
    found += [file for file in folder.glob("*") if file.name.endswith(LINES)]
    named = [str(file) for file in sorted(set(found))]
    if not named:
        return f": it has no {ROLLOUTS}, no {RESULTS} and no ledger; give a .jsonl or .parquet file itself"
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f"; below it there are {', '.join(named[:NAMED])}{more}: give one of these"


# -- rows ----------------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Position and value of every line; a line that is not JSON is returned as its error."""
    torn: list[ValueError] = []
    try:
        for number, value in read_json_lines(
            path, lambda n, reason: torn.append(ValueError(f"line {n} is {reason}")), LONGEST_LINE_BYTES
        ):
            yield from (("", error) for error in torn)
            torn.clear()
            yield f"line {number:,}", value
    except (EOFError, OSError, zlib.error) as error:  # gzip that ends early
        torn.append(ValueError(f"it ends early ({first_line(error)})"))
    yield from (("", error) for error in torn)


def _parquet(path: Path, look: Looked) -> ShownRecords:
    import pyarrow
    import pyarrow.parquet

    if is_ledger(path):
        return ledger_collection(path, look.limit)

    def rows() -> Iterator[tuple[str, Any]]:
        number = 0
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    yield f"row {number:,}", without_nulls(row)[0]
                    number += 1

    try:
        return _rows(str(path), rows(), look)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} cannot be read as Parquet ({first_line(error)}); give another file") from error


def is_ledger(path: Path) -> bool:
    """Whether a Parquet file says that it is a pass-rate ledger; False if it is damaged."""
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(path).metadata or {}
        about = json.loads(metadata.get(b"nbg_lightning", b"{}"))
    except (pyarrow.ArrowException, OSError, ValueError):
        return False
    return isinstance(about, dict) and str(about.get("format", "")).startswith(FORMAT.rstrip("0123456789"))


def _rows(title: str, rows: Iterator[tuple[str, Any]], look: Looked) -> ShownRecords:
    """The rows of a file, evenly spread over it; the first that is an object tells what they are."""
    kept: EveryNth[tuple[str, Any]] = EveryNth(look.limit)
    wrong: list[str] = []
    num_wrong = 0
    reader: Reader | None = None
    rewards = rollouts.RewardBySteps()
    for place, row in rows:
        if isinstance(row, ValueError) or not isinstance(row, dict):
            num_wrong += 1
            reason = str(row) if isinstance(row, ValueError) else f"{place} is no object"
            wrong += [reason] if len(wrong) < KEPT_REASONS else []
            continue
        reader = reader or reader_of(row, look.marks)
        if reader.noun == ROLLOUT_GROUPS:
            rewards.add(row)
        kept.add((place, row))
    if reader is None:
        raise ValueError(
            f"{title} has no row that can be shown ({wrong[0] if wrong else 'it is empty'}); give another file"
        )
    records = []
    for place, row in kept.items:
        try:
            records.append(reader.read(row, place))
        except (ValueError, KeyError, TypeError) as error:  # of a row of another kind than the first
            num_wrong += 1
            wrong += [f"{place}: {first_line(error)}"] if len(wrong) < KEPT_REASONS else []
    if not records:
        raise ValueError(f"{title} has no row that can be shown ({wrong[0]}); give another file")
    notes = (
        [f"{num_wrong:,} {'row' if num_wrong == 1 else 'rows'} could not be read; {'; '.join(wrong)}"]
        if num_wrong
        else []
    )
    return ShownRecords(title, reader.noun, records, kept.total, notes, bars=rewards.bars())


# -- kinds ---------------------------------------------------------------------------------------------------------------

ROLLOUT_GROUPS = "groups of answers"


@dataclass(frozen=True)
class Reader:
    """How the rows of a file are read.

    Attributes:
        noun: what they are, in the plural.
        read: converts a row and its location to a record.
    """

    noun: str
    read: Read


def reader_of(row: dict[str, Any], marks: TrainedTokens | None) -> Reader:
    """The reader of rows like this one."""
    if row.keys() >= rollouts.KEYS:
        return Reader(ROLLOUT_GROUPS, lambda row, _: rollouts.rollout_record(row))
    if row.keys() >= benchmarks.KEYS and ("prompt" in row or "samples" in row):
        return Reader("items", lambda row, _: benchmarks.item_record(row, "item"))
    for noun, read in (("pairs", pair_record), ("conversations", conversation_record)):
        try:
            read(row, None, "")
        except (ValueError, TypeError, KeyError):
            continue
        return Reader(noun, lambda row, place, read=read: read(row, marks, place))  # type: ignore[misc]  # a default of a lambda has no type
    if {"chosen", "rejected"} <= row.keys():
        return Reader("pairs", lambda row, place: pair_record(row, marks, place))
    if any(isinstance(row.get(name), list) for name in ("messages", "conversations", "conversation")):
        return Reader("conversations", lambda row, place: conversation_record(row, marks, place))
    return Reader("rows", plain_record)


def plain_record(row: dict[str, Any], place: str) -> ShownRecord:
    """A row of unknown kind: short values in one line, long ones below each other."""
    texts = {name: as_text(value) for name, value in row.items()}
    short = {name: value for name, value in texts.items() if len(value) <= LONG_VALUE and "\n" not in value}
    turns = tuple(plain(name, value) for name, value in texts.items() if name not in short)
    key = key_of(row["id"]) if "id" in row else key_of(row)
    return ShownRecord(key, place, "", turns, facts=tuple(short.items()))
