"""Finished questions as lines of a file, one file per measuring process, which survive a kill."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbg_lightning import log
from nbg_lightning.data.question import Question
from nbg_lightning.digests import is_sealed, seal, unseal
from nbg_lightning.rl.pass_rate.ledger import PassRate, PassRateLedger
from nbg_lightning.rl.pass_rate.questions import is_known, unique


def part_file(ledger: Path, part: int) -> Path:
    """The file for the finished questions of one part of the work."""
    return ledger.with_name(f"{ledger.stem}.part-{part:04d}.jsonl")


def part_files(ledger: Path) -> list[Path]:
    """The existing files of all parts."""
    return sorted(ledger.parent.glob(f"{ledger.stem}.part-[0-9][0-9][0-9][0-9].jsonl"))


def finished(ledger: Path, wanted: Mapping[str, Any]) -> dict[str, PassRate]:
    """All questions measured before with this identity: those in the ledger, and those in unfinished parts."""
    known: dict[str, PassRate] = {}
    if ledger.is_file():
        before = PassRateLedger.load(ledger)
        if {name: before.about.get(name) for name in wanted} == wanted:
            known.update(before.rows)
    for path in part_files(ledger):
        known.update({row.key: row for row in read_part(path, wanted) or ()})
    return known


def measured(ledger: Path, questions: Iterable[Question], wanted: Mapping[str, Any]) -> PassRateLedger | None:
    """The ledger, if it is complete: exactly these questions, with this identity."""
    if not ledger.is_file():
        return None
    found = PassRateLedger.load(ledger)
    asked = unique(questions)
    whole = len(asked) == len(found) and all(is_known(question, found.rows) for question in asked)
    return found if whole and {name: found.about.get(name) for name in wanted} == wanted else None


def read_part(path: Path, wanted: Mapping[str, Any]) -> list[PassRate] | None:
    """Questions of a part; None if it belongs to another measurement. Truncated and damaged lines are skipped, and sampled
    again.

    Raises:
        ValueError: its first line, which has its identity, is damaged.
    """
    first, *lines = path.read_bytes().split(b"\n")
    try:
        about, digested = _line(first, digested=any(is_sealed(line + b"\n") for line in lines))
    except ValueError:
        if not any(lines):
            return None  # killed while the first line was written
        raise ValueError(f"{path}, line 1 is damaged; remove the file, and its questions are drawn again") from None
    rows = []
    for number, line in enumerate(lines, start=2):
        try:
            rows += [PassRate(**_line(line, digested)[0])] if line else []
        except (ValueError, TypeError):
            log.warn(f"{path}, line {number} is torn or damaged: its question is drawn again")
    return rows if about == wanted else None


def _line(line: bytes, digested: bool) -> tuple[dict[str, Any], bool]:
    """Parse a line of a part, and return whether it has a digest, as all lines have if the first one does."""
    if is_sealed(line + b"\n"):
        return unseal(line + b"\n"), True
    value = json.loads(line)
    if digested or not isinstance(value, dict) or "seal" in value:
        raise ValueError("it does not end with its seal")
    return value, False


@contextmanager
def appended(path: Path, wanted: Mapping[str, Any]) -> Iterator[Any]:
    """Open the part's file for appending; it is overwritten if it belongs to another measurement."""
    kept = path.is_file() and read_part(path, wanted) is not None
    if path.is_file() and not kept:
        log.info(f"{path} belongs to other weights, sampling or reward, and is started anew")
    with open(path, "a" if kept else "w", encoding="utf-8") as stream:
        # A line truncated by a kill must not merge with the next one.
        stream.write("\n" if kept else seal(dict(wanted), indent=None))
        stream.flush()
        yield stream
