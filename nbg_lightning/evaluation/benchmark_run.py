"""One benchmark of a suite's run: its items are distributed over ranks, evaluated call by call, and recorded in a file."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nbg_lightning import log
from nbg_lightning.digests import sealed_line
from nbg_lightning.distributed import broadcast_object, gather_objects, get_rank, get_world_size
from nbg_lightning.evaluation.benchmark import Item, Kind
from nbg_lightning.evaluation.episodes import episode_records
from nbg_lightning.evaluation.rated import choice_records, text_records
from nbg_lightning.evaluation.results import BenchmarkResult, Record, combined_hash, read_records, summarize
from nbg_lightning.evaluation.run_context import NumberedItems, RunContext
from nbg_lightning.evaluation.tasks.harness import HarnessTasks
from nbg_lightning.evaluation.written import written_records

_SECONDS_BETWEEN_LINES = 15.0

STRATEGIES: Mapping[Kind, Callable[[RunContext, NumberedItems], list[Record]]] = {
    "generate": written_records,
    "episodes": episode_records,
    "choices": choice_records,
    "perplexity": text_records,
}
"""Functions that evaluate items of each kind. A benchmark of the kind ``harness`` has no items: it runs itself."""


class BenchmarkRun:
    """Evaluates the items that are not in the file yet. Collective.

    Args:
        context: everything that the benchmark is run with.
        items_per_call: items that a rank passes to the engine at once; the file is updated after each call.
        confidence: confidence level of intervals.
        file: file for the records of items; None records none.
    """

    def __init__(self, context: RunContext, items_per_call: int, confidence: float, file: Path | None):
        self.context, self.benchmark = context, context.benchmark
        self.items_per_call, self.confidence, self.file = items_per_call, confidence, file
        self.rank, self.world_size = get_rank(), get_world_size()

    def run(self) -> tuple[BenchmarkResult, list[Record]]:
        """The result and its records (on the first rank; empty elsewhere)."""
        begin = time.monotonic()
        if isinstance(self.benchmark, HarnessTasks):
            return self._harness(self.benchmark, begin), []
        records = {record["id"]: record for record in self._there()}
        items = self.context.loaded.items
        known = broadcast_object(set(records))
        if known and len(known) == len(items):
            log.info(f"{self.benchmark.name}: all {len(known)} items are in {self.file}")
        elif known:
            log.info(f"{self.benchmark.name}: resuming after {len(known)} of {len(items)} items")
        todo = [(index, item) for index, item in enumerate(items) if item.id not in known]
        with ExitStack() as stack:
            stack.enter_context(self.benchmark.opened())
            records.update({record["id"]: record for record in self._ask(todo)})
        if self.rank != 0:
            return BenchmarkResult(self.benchmark.name, self.benchmark.primary), []
        ordered = sorted(records.values(), key=lambda record: record["index"])
        return self._result(ordered, time.monotonic() - begin), ordered

    def _there(self) -> list[Record]:
        """Records of an earlier run; items with errors are evaluated again."""
        there = read_records(self.file) if self.file is not None and self.rank == 0 else []
        return [record for record in there if record["status"] != "error"]

    def _ask(self, todo: list[tuple[int, Item]]) -> list[Record]:
        """Records of all ranks' items, on the first rank."""
        mine = todo[self.rank :: self.world_size]
        step = self.items_per_call
        calls = -(-len(todo) // (step * self.world_size))  # every rank makes as many: engines may work together
        strategy = STRATEGIES[self.benchmark.kind]
        records: list[Record] = []
        told = time.monotonic()
        for call in range(calls):
            new = strategy(self.context, mine[call * step : (call + 1) * step])
            every = [record for records_of_rank in gather_objects(new) for record in records_of_rank]
            if self.rank == 0:
                records += every
                self._write(every)
                if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                    told = time.monotonic()
                    log.info(f"{self.benchmark.name}: {len(records)} of {len(todo)} items")
        return records

    def _write(self, records: list[Record]) -> None:
        if self.file is not None and records:
            whole = not self.file.is_file() or self.file.read_bytes()[-1:] in (b"", b"\n")
            with self.file.open("ab") as lines:
                lines.write(b"" if whole else b"\n")
                lines.writelines(map(sealed_line, records))

    # -- the result ----------------------------------------------------------------------------------------------------

    def _result(self, records: list[Record], seconds: float) -> BenchmarkResult:
        benchmark = self.benchmark
        result = summarize(
            benchmark.name, benchmark.kind, benchmark.primary, records, self.context.sampling.n, self.confidence
        )
        scored = [record for record in records if record["status"] != "error"]
        for name, (value, interval) in benchmark.over_all(scored, self.confidence).items() if scored else ():
            result.metrics[name] = value
            if interval is not None:
                result.intervals[name] = interval
        if result.errors:
            log.warn(
                f"{benchmark.name}: {result.errors} of {result.items} items are errors, not counted as wrong; the first: "
                f"{result.first_error}"
            )
        result.about = {
            **self._about(),
            "prompt_hash": combined_hash(records, "prompt_hash"),
            "token_hash": combined_hash(records, "token_hash"),
            "prompt_tokens": sum(record.get("prompt_tokens", 0) for record in records),
            "new_tokens": sum(sample["tokens"] for record in records for sample in record.get("samples", ())),
            "seconds": seconds,
            "engine_seconds": self.context.engine_seconds,
        }
        return result

    def _about(self) -> dict[str, Any]:
        context, prompts = self.context, self.context.prompts
        about = {
            "origin": context.loaded.origin,
            "licence": self.benchmark.licence,
            "kind": self.benchmark.kind,
            "format": prompts.format,
            "num_shots": self.benchmark.num_shots,
            "template_hash": prompts.template_hash,
            "ranks": self.world_size,
            "engine": type(context.engine).__name__,
        }
        if self.benchmark.kind in ("generate", "episodes"):
            about["sampling"] = dataclasses.asdict(context.sampling)
        return about

    def _harness(self, benchmark: HarnessTasks, begin: float) -> BenchmarkResult:
        metrics = benchmark.run(self.context.engine, self.context.prompts, self.context.scorer)
        about = {**self._about(), "seconds": time.monotonic() - begin}
        primary = next(iter(metrics), benchmark.primary)
        return BenchmarkResult(benchmark.name, primary, metrics, about=about)
