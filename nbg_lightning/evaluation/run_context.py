"""The context that a benchmark is run with, and the common part of all item records."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from nbg_lightning.engines.protocol import Engine, Sampling
from nbg_lightning.error_line import first_line
from nbg_lightning.evaluation.benchmark import Benchmark, Item, Loaded
from nbg_lightning.evaluation.log_likelihood import LogLikelihood, Request, Scorer
from nbg_lightning.evaluation.prompts import Prompts, RenderedPrompt, digest
from nbg_lightning.evaluation.results import Record

NumberedItems = Sequence[tuple[int, Item]]
"""Items of one call on a rank, each with its index in the benchmark."""


@dataclass
class RunContext:
    """The context shared by all items of a benchmark.

    Attributes:
        benchmark: the benchmark.
        loaded: its items and few-shot examples.
        engine: generates answers.
        scorer: rates given answers; None if no benchmark needs it.
        prompts: builds prompts and parses answers.
        sampling: sampling settings.
        deadline: seconds per call of the engine.
        engine_seconds: time spent in the engine and the scorer.
    """

    benchmark: Benchmark
    loaded: Loaded
    engine: Engine
    scorer: Scorer | None
    prompts: Prompts
    sampling: Sampling
    deadline: float | None
    engine_seconds: float = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time inside the block to `engine_seconds`."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.engine_seconds += time.monotonic() - begin

    def shots(self, item: Item) -> list[Item]:
        """Few-shot examples before an item."""
        return self.benchmark.shots_for(item, self.loaded.shots)

    def rate(self, requests: Sequence[Request]) -> list[LogLikelihood]:
        """A result per request; if the scorer fails, the reason for each.

        Raises:
            ValueError: an invalid setting, on all ranks alike.
        """
        assert self.scorer is not None
        with self.timed():
            try:
                return self.scorer(requests)
            except Exception as error:
                if is_setting(error):
                    raise
                wrong = f"the scorer failed: {first_line(error)}"
                return [LogLikelihood(math.nan, False, len(request.continuation), wrong) for request in requests]

    def record(self, index: int, item: Item, prompt: RenderedPrompt | str) -> Record:
        """The common fields of an item's record; an error instead of a prompt if there is none."""
        record: Record = {"id": item.id, "index": index, "category": item.category, "status": "ok", "error": None}
        if item.cluster is not None:
            record["cluster"] = item.cluster
        if isinstance(prompt, str):
            return {**record, "status": "error", "error": prompt, "prompt": item.question, "answer": item.answer}
        return {
            **record,
            "prompt": prompt.text,
            "answer": item.answer,
            "prompt_tokens": len(prompt.ids),
            "prompt_hash": digest(prompt.identity),
            "token_hash": digest(prompt.ids),
        }


def is_setting(error: Exception) -> bool:
    """Whether an engine's error is about a setting, on all ranks alike, and not about a text (half a surrogate pair,
    invalid JSON).
    """
    return isinstance(error, ValueError) and not isinstance(error, (UnicodeError, json.JSONDecodeError))
