"""Collects the outputs of a recipe's steps for its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning.json_lines import read_json_lines
from nbg_lightning.loggers.record import RECORD, read_metrics
from nbg_lightning.pages.records import ShownRecord
from nbg_lightning.pages.rollouts import KEYS, ROLLOUTS, rollout_record
from nbg_lightning.recipe.plan import Recipe, Step
from nbg_lightning.recipe.run import State, StepRecord, command_of, shown, state_of

if TYPE_CHECKING:
    from nbg_lightning.evaluation.results import SuiteResult


@dataclass
class Curve:
    """One scalar of a run's log."""

    steps: list[int]
    values: list[float]


@dataclass
class StepReport:
    """A step and its outputs.

    Attributes:
        step: step of the recipe.
        state: what running it now would do.
        command: its shell command.
        seconds: working time; None if it was not run.
        parts: number of times it was started.
        curves: scalars of its run, by name.
        suite: the result of its benchmark suite, or None.
        pass_rates: label and count of each bin of the pass rates that it measured.
        rollouts: groups of its policy's answers, one from the first and one from the last recorded step.
    """

    step: Step
    state: State
    command: str
    seconds: float | None = None
    parts: int = 0
    curves: dict[str, Curve] = field(default_factory=dict)
    suite: SuiteResult | None = None
    pass_rates: list[tuple[str, int]] = field(default_factory=list)
    rollouts: list[ShownRecord] = field(default_factory=list)


def gather(recipe: Recipe) -> list[StepReport]:
    """The reports of all steps of a recipe, done or not."""
    reports = []
    for name, step in recipe.steps.items():
        folder = recipe.step_folder(name)
        record = StepRecord.read(folder)
        report = StepReport(step, state_of(recipe, name), shown(command_of(recipe, name)))
        if record is not None:
            report.seconds, report.parts = record.seconds, record.parts
            report.curves = read_curves(folder)
            report.suite = read_suite(folder)
            report.rollouts = read_rollouts(folder)
            report.pass_rates = read_pass_rates(folder) if step.command == "pass-rate" else []
        reports.append(report)
    return reports


def stages_first(reports: Sequence[StepReport]) -> list[StepReport]:
    """In the recipe's order, but references (teachers, baselines) after all stages."""
    return sorted(reports, key=lambda report: report.step.reference)


def read_curves(folder: Path) -> dict[str, Curve]:
    """All scalars below a folder, by name; if a step was logged twice (a resume), the later value.

    They come from the runs' own records, or from TensorBoard logs for runs of earlier versions without a record.
    """
    found: dict[str, dict[int, float]] = {}
    records = sorted(folder.rglob(RECORD), key=lambda file: file.stat().st_mtime)
    for file in records:
        for tag, points in read_metrics(file).items():
            found.setdefault(tag, {}).update(points)
    if not records:
        found = _tensorboard_scalars(folder)
    return {
        tag: Curve(sorted(points), [points[step] for step in sorted(points)]) for tag, points in sorted(found.items())
    }


def _tensorboard_scalars(folder: Path) -> dict[str, dict[int, float]]:
    files = sorted(folder.rglob("events.out.tfevents.*"))
    if not files:
        return {}
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    found: dict[str, dict[int, float]] = {}
    for file in files:
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.HasField("tensor") and value.metadata.plugin_data.plugin_name in ("scalars", ""):
                    number = make_ndarray(value.tensor)
                    if number.size == 1 and number.dtype.kind == "f":
                        found.setdefault(value.tag, {})[event.step] = float(number.reshape(-1)[0])
    return found


def read_suite(folder: Path) -> SuiteResult | None:
    """The newest suite result below a folder."""
    from nbg_lightning.evaluation.results import RESULTS, load_result

    files = sorted(folder.glob(f"**/{RESULTS}"), key=lambda path: path.stat().st_mtime)
    return load_result(files[-1]) if files else None


def read_rollouts(folder: Path) -> list[ShownRecord]:
    """The first group of the first and of the last step in the newest file of rollouts below a folder (`SampleTable`).

    Invalid lines are skipped; empty without a file.
    """
    files = sorted(folder.rglob(ROLLOUTS), key=lambda path: path.stat().st_mtime)
    first: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    for _, row in read_json_lines(files[-1], lambda number, reason: None) if files else ():
        if (
            isinstance(row, dict)
            and row.keys() >= KEYS
            and all(isinstance(row[k], list) for k in ("question", "answers"))
        ):
            first = first or row
            last = row if last is None or row["step"] != last["step"] else last
    return [rollout_record(row) for row in ([first] if first is last else [first, last]) if row is not None]


def read_pass_rates(folder: Path) -> list[tuple[str, int]]:
    """Bins of the pass-rate ledger in a folder; none without one."""
    from nbg_lightning.rl.pass_rate.ledger import PassRateLedger

    files = sorted(folder.glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    return PassRateLedger.load(files[-1]).histogram().bins() if files else []
