"""Base class of builders that call models: batches of items, resuming, ordered outputs, and a report."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from nbg_lightning.construction.builder import Builder, ReportTable
from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.checks import check_least
from nbg_lightning.construction.outcomes import OutcomeCounts, step_kind
from nbg_lightning.construction.provenance import describe
from nbg_lightning.construction.scheduler import RequestScheduler
from nbg_lightning.construction.store import REPORT, JsonRecord, KeyedLines, Store
from nbg_lightning.construction.workflow import Workflow
from nbg_lightning.data.progress import Progress
from nbg_lightning.data.question_sources import QuestionCounts

WorkflowItem = tuple[str, Callable[[], Workflow] | JsonRecord]
"""Key of an item with a function that starts its workflow, or with its record if no model is needed."""

ITEMS_PER_BATCH = 16
_DECIDE_NOTHING = {"out", "items_per_batch", "limit", "progress"}  # settings that do not affect the output
_SHOWN_ELSEWHERE = {"build", "items", "outcomes", "answers", "input", "rows", "this_run"}


@dataclass(kw_only=True)
class WorkflowBuilder(Builder):
    """Base class of builders that call models.

    A subclass declares its items (`items`: a `Workflow` each), the models it uses (`roles`), and the files written from the
    items' records (`outputs`). The folder contains ``answers.jsonl`` (all model responses), ``records.jsonl`` (the outcome of
    each item), the outputs, and ``report.json``. Answered requests are never repeated; items that failed because of an engine
    error are retried.

    Args:
        out: folder of the build.
        models: chat models by name; other settings assign them to roles.
        seed: seed of all sampling: the same settings, inputs and seed give the same output.
        items_per_batch: number of items processed at a time.
        limit: maximum number of input items; all by default.
        max_characters: longer inputs are dropped as ``too_long``.
        progress: show progress on stderr.

    Raises:
        ValueError: a setting is out of range, or a role names an unknown model.
    """

    models: dict[str, ChatModelConfig] = field(default_factory=dict)
    seed: int = 0
    items_per_batch: int = ITEMS_PER_BATCH
    limit: int | None = None
    max_characters: int = 20_000
    progress: bool = True

    def __post_init__(self) -> None:
        check_least(1, items_per_batch=self.items_per_batch, max_characters=self.max_characters)
        check_least(0, limit=self.limit or 0)
        for role, names in self.roles().items():
            for name in names:
                if name not in self.models:
                    there = ", ".join(self.models) or "none"
                    raise ValueError(
                        f"{role} is invalid: {name!r} is none of the models ({there}); name one under models"
                    )

    # -- declared by a builder -----------------------------------------------------------------------------------------

    @abstractmethod
    def roles(self) -> dict[str, Sequence[str]]:
        """Settings that name models, with the names in them."""

    @abstractmethod
    def items(self) -> Iterator[WorkflowItem]:
        """The input items, always in the same order.

        Raises:
            FileNotFoundError, ValueError: the input cannot be read.
        """

    @abstractmethod
    def outputs(self, records: Callable[[], Iterator[JsonRecord]]) -> dict[str, Iterable[JsonRecord]]:
        """Rows of each output file by name, from the records of all items in input order."""

    def summary(self, records: Iterable[JsonRecord]) -> JsonRecord:
        """Further entries of the report."""
        return {}

    def input_counts(self) -> Mapping[str, QuestionCounts]:
        """Counts of rows by source that are not valid items, with the first of these."""
        return {}

    def manifest(self) -> JsonRecord:
        """Everything that determines the output."""
        settings = {
            each.name: describe(value)
            for each, value in zip(dataclasses.fields(self), self._values(), strict=True)
            if each.name not in _DECIDE_NOTHING
        }
        return {"format": f"nbg_lightning {self.name} 1", "settings": settings}

    def _values(self) -> list[Any]:
        return [vars(self)[each.name] for each in dataclasses.fields(self)]

    # -- running -------------------------------------------------------------------------------------------------------

    def run(self) -> JsonRecord:
        manifest = self.manifest()  # before engines are entered, which may complete their settings
        with Store(self.out, manifest) as store:
            records = store.lines("records")
            counts = OutcomeCounts()
            with RequestScheduler(self._used_models(), store.lines("answers"), self.seed) as scheduler:
                keys = self._work(records, scheduler, counts)
                spent = {"asked": scheduler.made, "from_journal": scheduler.replayed}
            report = self._report(records, keys, counts, spent)
            for name, rows in self.outputs(lambda: (records[key] for key in keys)).items():
                with store.write_lines(name, rows).open("rb") as lines:
                    report["rows"][name] = sum(1 for _ in lines)
            store.write_report(report)
        return report

    def _used_models(self) -> dict[str, ChatModelConfig]:
        used = {name for names in self.roles().values() for name in names}
        return {name: config for name, config in self.models.items() if name in used}

    def _work(self, records: KeyedLines, scheduler: RequestScheduler, counts: OutcomeCounts) -> list[str]:
        """Process every input item; returns the keys in order."""
        keys: dict[str, None] = {}
        inputs = islice(self.items(), self.limit)
        with Progress(self.name, self.limit, self.progress) as meter:
            while batch := list(islice(inputs, self.items_per_batch)):
                work: dict[str, Callable[[], Workflow] | JsonRecord] = {}
                for key, item in batch:
                    if key in keys:
                        counts.add("duplicate", key)
                        continue
                    keys[key] = None
                    work[key] = item
                todo = {key: item for key, item in work.items() if not self._is_done(records, key)}
                meter.advance(len(batch) - len(todo), fresh=False)

                def ended(key: str, record: JsonRecord) -> None:
                    records.add([{**record, "key": key}], replace=True)
                    meter.advance(1, f"{scheduler.made:,} answers")

                for key, item in todo.items():
                    if isinstance(item, dict):
                        ended(key, item)
                scheduler.run({key: item() for key, item in todo.items() if not isinstance(item, dict)}, ended)
        return list(keys)

    @staticmethod
    def _is_done(records: KeyedLines, key: str) -> bool:
        return key in records and records[key]["status"] != "error"

    def _report(self, records: KeyedLines, keys: Sequence[str], counts: OutcomeCounts, spent: JsonRecord) -> JsonRecord:
        answers: dict[str, OutcomeCounts] = {}
        for found in self.input_counts().values():
            counts.add("invalid", found.first, found.invalid)
        for key in keys:
            record = records[key]
            counts.add("kept" if record["status"] == "kept" else record["reason"], record.get("detail", ""))
            for entry in record.get("trace", ()):
                kind = answers.setdefault(step_kind(entry["step"]), OutcomeCounts())
                kind.add(entry["outcome"], "" if entry["outcome"] == "ok" else entry.get("detail") or entry["text"])
        return {
            "build": self.name,
            "items": len(keys),
            "input": {name: dataclasses.asdict(found) for name, found in self.input_counts().items()},
            "outcomes": counts.to_dict(),
            "answers": {kind: answers[kind].to_dict() for kind in sorted(answers)},
            **self.summary(records[key] for key in keys),
            "rows": {},
            "this_run": spent,
        }

    def shown(self, report: JsonRecord) -> list[str | ReportTable]:
        rows = [
            (outcome, f"{found['count']:,}", " ".join(found.get("first", "").split())[:80])
            for outcome, found in report["outcomes"].items()
        ]
        title = f"{report['build']}: {report['items']:,} items"
        shown: list[str | ReportTable] = [ReportTable(title, ("outcome", "items", "the first"), rows)]
        if report["answers"]:
            answers = [_usable(kind, outcomes) for kind, outcomes in report["answers"].items()]
            shown.append(ReportTable("answers of the models", ("step", "usable", "of", "not usable"), answers))
        for name, value in report.items():
            if name not in _SHOWN_ELSEWHERE and value not in (None, {}):
                text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else _number(value)
                shown.append(f"{name.replace('_', ' ')}: {text}")
        shown += [f"{self.out}/{name}.jsonl: {number:,} rows" for name, number in report["rows"].items()]
        return [*shown, f"all of it: {self.out}/{REPORT}"]


def _usable(kind: str, outcomes: JsonRecord) -> tuple[str, ...]:
    usable = outcomes.get("ok", {}).get("count", 0)
    total = sum(each["count"] for each in outcomes.values())
    others = ", ".join(f"{each['count']:,} {name}" for name, each in outcomes.items() if name != "ok")
    return kind, f"{usable:,}", f"{total:,}", others


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def named(model: str | None) -> tuple[str, ...]:
    """The names in a setting that names one model or none."""
    return () if model is None else (model,)
