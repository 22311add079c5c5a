"""What all builders that ask models have in common: batches of items, a restart, outputs in order, and an honest report."""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

from nbg_lightning.construction.store import Counts, KeyedLines, Record, Store
from nbg_lightning.construction.writers import Interview, Script, WriterConfig, describe
from nbg_lightning.data.progress import Progress

Item = tuple[str, Callable[[], Script] | Record]
"""Key of an item, and its work; or its record, where there is nothing to ask."""

ITEMS_PER_BATCH = 16
_FIELD = re.compile(r"\{([a-z_]+)\}")


@dataclass(kw_only=True)
class Builder(ABC):
    """Base of builders; subclasses are flat dataclasses, whose arguments are the keys of a YAML file.

    The folder holds ``answers.jsonl`` (all that models answered), ``records.jsonl`` (one line an item: what became of it),
    the outputs, and ``report.json``. A build that was killed goes on where it was when it is started again: nothing that
    was answered is asked again. Items that failed by an engine's error are tried again.

    Args:
        out: folder of the build.
        writers: models by name; the other settings say which of them does what.
        seed: of everything that is drawn: the same settings, inputs and seed give the same output.
        items_per_batch: items that are worked on at a time.
        limit: items of the input that are used; all by default.
        max_characters: longer inputs are dropped as ``too_long``.
        progress: show it on stderr.

    Raises:
        ValueError: settings that mean nothing, or a role for a writer that is not there.
    """

    name: ClassVar[str]  # of the command, and in messages
    roles: ClassVar[tuple[str, ...]] = ()  # settings that name writers

    out: str
    writers: dict[str, WriterConfig] = field(default_factory=dict)
    seed: int = 0
    items_per_batch: int = ITEMS_PER_BATCH
    limit: int | None = None
    max_characters: int = 20_000
    progress: bool = True

    def __post_init__(self) -> None:
        if self.items_per_batch < 1 or self.max_characters < 1 or (self.limit is not None and self.limit < 0):
            raise ValueError(
                f"items_per_batch={self.items_per_batch} and max_characters={self.max_characters} must be at least 1, "
                f"limit={self.limit} at least 0"
            )
        for role in self.roles:
            given = getattr(self, role)
            for name in [given] if isinstance(given, str) else given or []:
                if name not in self.writers:
                    there = ", ".join(self.writers) or "none"
                    raise ValueError(f"{role} names the writer {name!r}, and the writers are: {there}")

    # -- what a builder says -------------------------------------------------------------------------------------------

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """The input, always in the same order.

        Raises:
            FileNotFoundError, ValueError: it cannot be read.
        """

    @abstractmethod
    def outputs(self, records: Callable[[], Iterator[Record]]) -> dict[str, Iterable[Record]]:
        """Rows by name of their file, from the records of all items, in the input's order."""

    def summary(self, records: Iterable[Record]) -> Record:
        """More for the report."""
        return {}

    def input_counts(self) -> Mapping[str, Any]:
        """Of each source, how many rows were read and are no item, and the first of these: ``seen``, ``invalid``, ``first``."""
        return {}

    def about(self) -> Record:
        """All that decides the output."""
        free = {"out", "items_per_batch", "limit", "progress"}
        settings = {f.name: describe(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name not in free}
        return {"format": f"nbg_lightning {self.name} 1", "settings": settings}

    # -- running -------------------------------------------------------------------------------------------------------

    def run(self) -> Record:
        """Build; what is there already is not done again.

        Returns:
            The report, which is in ``report.json`` too.

        Raises:
            FileNotFoundError, ValueError: input or settings, before anything is asked.
            RuntimeError: another process builds in the folder, or an engine fails again and again.
        """
        about = self.about()  # before engines are entered, which may complete their settings
        with Store(self.out, about) as store:
            records = store.lines("records")
            counts = Counts()
            with Interview(self._used_writers(), store.lines("answers"), self.seed) as interview:
                keys = self._work(records, interview, counts)
                spent = {"asked": interview.asked, "from_journal": interview.replayed}
            report = self._report(records, keys, counts, spent)
            for name, rows in self.outputs(lambda: (records[key] for key in keys)).items():
                store.write_lines(name, rows)
                report["rows"][name] = sum(1 for _ in (store.folder / f"{name}.jsonl").open("rb"))
            store.write_report(report)
        return report

    def _used_writers(self) -> dict[str, WriterConfig]:
        used: set[str] = set()
        for role in self.roles:
            given = getattr(self, role)
            used.update([given] if isinstance(given, str) else given or [])
        return {name: config for name, config in self.writers.items() if name in used}

    def _work(self, records: KeyedLines, interview: Interview, counts: Counts) -> list[str]:
        """Every item of the input gets its record; returns their keys in order."""
        keys: dict[str, None] = {}
        inputs = islice(self.items(), self.limit)
        with Progress(self.name, self.limit, self.progress) as meter:
            while batch := list(islice(inputs, self.items_per_batch)):
                work: dict[str, Callable[[], Script] | Record] = {}
                for key, item in batch:
                    if key in keys:
                        counts.add("duplicate", key)
                        continue
                    keys[key] = None
                    work[key] = item
                todo = {key: item for key, item in work.items() if not self._is_done(records, key)}
                meter.advance(len(batch) - len(todo), fresh=False)

                def ended(key: str, record: Record) -> None:
                    records.add([{**record, "key": key}], replace=True)
                    meter.advance(1, f"{interview.asked:,} answers")

                for key, item in todo.items():
                    if isinstance(item, dict):
                        ended(key, item)
                interview.run({key: item() for key, item in todo.items() if not isinstance(item, dict)}, ended)
        return list(keys)

    @staticmethod
    def _is_done(records: KeyedLines, key: str) -> bool:
        return key in records and records[key]["status"] != "error"

    def _report(self, records: KeyedLines, keys: Sequence[str], counts: Counts, spent: Record) -> Record:
        answers: dict[str, Counts] = {}
        for found in self.input_counts().values():
            counts.add("invalid", found.first, found.invalid)
        for key in keys:
            record = records[key]
            counts.add("kept" if record["status"] == "kept" else record["reason"], record.get("detail", ""))
            for entry in record.get("trace", ()):
                kind = answers.setdefault(entry["step"].split("/")[0].split("#")[0], Counts())
                kind.add(entry["outcome"], "" if entry["outcome"] == "ok" else entry.get("detail") or entry["text"])
        return {
            "build": self.name,
            "items": len(keys),
            "input": {name: dataclasses.asdict(found) for name, found in self.input_counts().items()},
            "became": counts.to_dict(),
            "answers": {kind: answers[kind].to_dict() for kind in sorted(answers)},
            **self.summary(records[key] for key in keys),
            "rows": {},
            "this_run": spent,
        }


def dropped(reason: str, detail: str = "", **more: Any) -> Record:
    """The record of an item that gives nothing.

    Args:
        reason: one word of the counts; ``engine_error`` is an error, which the next run tries again.
        detail: what exactly, in a line.
        **more: kept with it.
    """
    return {"status": "error" if reason == "engine_error" else "dropped", "reason": reason, "detail": detail, **more}


def reason_of(trace: Sequence[Record], kind: str) -> tuple[str, str]:
    """Why no answer to steps of a kind was usable: what happened last, an engine's errors first."""
    own = [entry for entry in trace if entry["step"].split("/")[0].split("#")[0] == kind and entry["outcome"] != "ok"]
    chosen = next((entry for entry in own if entry["outcome"] == "engine_error"), own[-1])
    if chosen["outcome"] == "engine_error":
        return "engine_error", chosen["detail"]
    return f"{kind}_{chosen['outcome']}", chosen.get("detail") or chosen["text"][:120]


def filled(template: str, **values: Any) -> str:
    """A template with its ``{names}`` replaced, once: braces in the values stay.

    Example:
        >>> filled("Q: {question} (at most {n} words)", question="what is {x}?", n=3)
        'Q: what is {x}? (at most 3 words)'
    """
    return _FIELD.sub(lambda match: str(values[match[1]]), template)


def check_template(template: str, name: str, fields: Sequence[str]) -> None:
    """Whether a template has each of these fields, and no other.

    Raises:
        ValueError: it has not.
    """
    found = set(_FIELD.findall(template))
    if found != set(fields):
        wanted = ", ".join("{" + each + "}" for each in fields)
        raise ValueError(
            f"the prompt {name} must have the fields {wanted}, and has {', '.join(sorted(found)) or 'none'}"
        )


def conversation_text(messages: Sequence[dict[str, Any]]) -> str:
    """A conversation as the text of an instruction: that of its only turn, or all turns with who said them."""
    if len(messages) == 1:
        return str(messages[0]["content"]).strip()
    return "\n\n".join(f"{message['role'].capitalize()}: {str(message['content']).strip()}" for message in messages)
