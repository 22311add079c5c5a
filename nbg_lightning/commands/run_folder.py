"""Finding and reading the folders of runs, with any content."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nbg_lightning.callbacks.run_status import RECORD, RunStatus
from nbg_lightning.core.checkpoint_folder import checkpoints_below
from nbg_lightning.data.folder_lock import LOCK
from nbg_lightning.error_line import first_line

FolderState = Literal["running", "finished", "stopped", "failed", "killed", "unknown"]
"""``killed``: it ended without a word. ``unknown``: it has left no record."""
DEPTH = 4  # folders below the given one
MOST_FOLDERS = 10_000
MOST_FILES = 200_000  # whose sizes are added
LARGEST_RESULT = 1 << 26  # bytes of a suite's results.json
_SIGNS = (RECORD, "config.yaml", "checkpoints", "benchmarks", "tensorboard", "step.json")
_BENCHMARKS = "benchmarks"
_RESULTS = "results.json"


@dataclass
class RunFolder:
    """A run, as its folder shows it.

    Attributes:
        path: of the folder.
        state: see `FolderState`.
        module: class of the training module, or None.
        step: optimizer steps done; None where nothing says it.
        steps: of the whole run, or None.
        stage: of the curriculum, or None.
        results: last losses, rewards and accuracies.
        benchmarks: the primary metric of each benchmark of the newest result.
        checkpoint: the newest complete one, or None.
        size: bytes of all its files; of the first `MOST_FILES` at least.
        changed: when a file of the folder was last written, in seconds since the epoch.
        problem: what could not be read, or why the run failed; None if all is well.
    """

    path: Path
    state: FolderState = "unknown"
    module: str | None = None
    step: int | None = None
    steps: int | None = None
    stage: str | None = None
    results: dict[str, float] = field(default_factory=dict)
    benchmarks: dict[str, float] = field(default_factory=dict)
    checkpoint: Path | None = None
    size: int = 0
    changed: float = 0.0
    problem: str | None = None


def find_runs(root: Path) -> Iterator[Path]:
    """The folders of runs at and below a folder, by name; links are not followed, and what cannot be listed is left out."""
    waiting, seen = [(root, 0)], 0
    while waiting and seen < MOST_FOLDERS:
        folder, depth = waiting.pop()
        seen += 1
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError:
            continue
        if any(entry.name in _SIGNS for entry in inside):
            yield folder
        if depth < DEPTH:
            below = [entry for entry in inside if entry.name not in _SIGNS and not entry.name.startswith(".")]
            waiting += [(Path(entry.path), depth + 1) for entry in below if entry.is_dir(follow_symlinks=False)]


def read_run(path: Path) -> RunFolder:
    """What a run's folder says; what cannot be read becomes its `problem`."""
    run = RunFolder(path)
    readers = (_read_record, _read_stages, _read_checkpoints, _read_benchmarks, _measure)
    for reader in readers:
        try:
            reader(run)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            run.problem = run.problem or first_line(error)
    return run


def _read_record(run: RunFolder) -> None:
    held = is_locked(run.path)
    run.state = "running" if held else "unknown"
    record = RunStatus.read(run.path)
    if record is None:
        return
    run.module, run.step, run.steps, run.stage = record.module, record.step, record.steps, record.stage
    run.results, run.problem = record.results, record.error
    if not held:
        run.state = "killed" if record.state == "running" else record.state


def _read_stages(run: RunFolder) -> None:
    """Of a run without a record, the last validation."""
    file = run.path / "stages.json"
    if run.step is not None or not file.is_file() or file.stat().st_size > LARGEST_RESULT:
        return
    stages = json.loads(file.read_bytes())
    run.stage, last = list(stages.items())[-1]
    if isinstance(loss := last.get("val/loss"), int | float) and math.isfinite(loss):
        run.results = {"validation loss": float(loss)}


def is_locked(folder: Path) -> bool:
    """Whether a process trains in a folder; a file system without locks says no."""
    try:
        with (folder / LOCK).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def _read_checkpoints(run: RunFolder) -> None:
    names = checkpoints_below(run.path)
    if names:
        run.checkpoint = run.path / names[-1]
        if run.step is None and (match := re.fullmatch(r"step-(\d{1,12})", run.checkpoint.name)):
            run.step = int(match[1])


def _read_benchmarks(run: RunFolder) -> None:
    files = [each for each in (run.path / _BENCHMARKS).glob(f"*/{_RESULTS}") if each.is_file()]
    if not files:
        return
    newest = max(files, key=lambda each: each.stat().st_mtime)
    if newest.stat().st_size > LARGEST_RESULT:
        raise ValueError(f"{newest} is larger than {LARGEST_RESULT:,} bytes; move it away")
    for entry in json.loads(newest.read_bytes())["benchmarks"]:
        value = entry["metrics"].get(entry["primary"])
        if isinstance(value, int | float) and math.isfinite(value):
            run.benchmarks[str(entry["name"])] = float(value)


def _measure(run: RunFolder) -> None:
    run.changed = run.path.stat().st_mtime
    count = 0
    for folder, _, names in os.walk(run.path):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:  # it is gone by now
                continue
            run.size += status.st_size
            run.changed = max(run.changed, status.st_mtime)
            count += 1
        if count > MOST_FILES:
            return
