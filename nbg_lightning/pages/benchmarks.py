"""Benchmark items as records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nbg_lightning.evaluation.results import BenchmarkResult, SuiteResult, load_result
from nbg_lightning.pages.episodes import episode_turns
from nbg_lightning.pages.records import (
    Bar,
    EveryNth,
    Facts,
    ShownAnswer,
    ShownRecord,
    ShownRecords,
    all_facts,
    fact,
    plain,
)
from nbg_lightning.pages.values import as_number, as_objects, as_text, key_of

KEYS = {"id", "index", "status"}


def suite_collections(folder: Path, limit: int) -> list[ShownRecords]:
    """A result with the items of each benchmark, at most ``limit`` in total.

    Raises:
        FileNotFoundError, ValueError: there is none, or something else.
    """
    suite = load_result(folder)
    share = max(1, limit // max(1, len(suite.benchmarks)))
    return [_collection(suite, result, share) for result in suite.benchmarks]


def _collection(suite: SuiteResult, result: BenchmarkResult, limit: int) -> ShownRecords:
    records = suite.records.get(result.name, [])
    kept: EveryNth[ShownRecord] = EveryNth(limit)
    for row in records:
        kept.add(item_record(row, result.name))
    interval = result.intervals.get(result.primary)
    value = "no number" if math.isnan(result.value) else f"{result.value:.3f}"
    spread = "" if interval is None else f" ({interval.low:.3f} to {interval.high:.3f})"
    facts = all_facts([fact(result.primary, value + spread), fact("errors", result.errors or None)])
    categories = result.categories.items()
    bars = [Bar(name, value, f"{value:.3f} of {count:,}") for name, (value, count) in categories]
    chart = (f"{result.primary} by category", bars) if len(bars) > 1 and result.primary != "bits_per_byte" else None
    title = f"{result.name} of the suite {suite.name}"
    return ShownRecords(title, "items", kept.items, len(records), facts=facts, bars=chart)


def item_record(row: dict[str, Any], benchmark: str) -> ShownRecord:
    """The record of an item: the prompt, and the model's answer or choice."""
    answers = (
        _choices(row)
        if "choices" in row
        else tuple(_sample(n, s) for n, s in enumerate(as_objects(row.get("samples"))))
    )
    gold = row.get("answer")
    choices = row.get("choices")
    if isinstance(choices, list) and isinstance(gold, int) and 0 <= gold < len(choices):
        gold = choices[gold]
    nll = as_number(row.get("nll"))
    return ShownRecord(
        key=key_of(benchmark, row.get("id")),
        title=f"{benchmark} {as_text(row.get('id'))}",
        group=benchmark,
        prompt=(plain("", as_text(row.get("prompt"))),),
        answers=answers,
        gold=None if gold is None else as_text(gold),
        facts=all_facts(
            [
                fact("category", row.get("category")),
                fact("error", row.get("error")),
                fact("prompt tokens", row.get("prompt_tokens")),
                () if nll is None else fact("nats", round(nll, 4)),
            ]
        ),
    )


def _sample(number: int, sample: dict[str, Any]) -> ShownAnswer:
    status = sample.get("status")
    facts: list[Facts] = [
        fact("read as", None if sample.get("answer") is None else as_text(sample["answer"])),
        fact("tokens", sample.get("tokens")),
        fact("ended by", sample.get("end") or sample.get("finish_reason")),
        fact("status", status) if status not in (None, "ok") else (),
        fact("verdict", sample.get("error")),
    ]
    turns = episode_turns(sample.get("turns"), None) or (plain("", as_text(sample.get("text"))),)
    return ShownAnswer(f"answer {number}", turns, as_number(sample.get("score")), all_facts(facts))


def _choices(row: dict[str, Any]) -> tuple[ShownAnswer, ...]:
    """Each choice with its log-likelihood; the score is shown at the likeliest one."""
    choices = row["choices"] if isinstance(row["choices"], list) else []
    rated = row.get("log_likelihoods")
    rated = rated if isinstance(rated, list) and len(rated) == len(choices) else [None] * len(choices)
    found = []
    for number, (choice, value) in enumerate(zip(choices, rated, strict=True)):
        chosen = number == row.get("chosen")
        log_likelihood = as_number(value)
        facts = () if log_likelihood is None else (("log-likelihood", f"{log_likelihood:.3f}"),)
        score = as_number(row.get("score")) if chosen else None
        found.append(
            ShownAnswer("likeliest" if chosen else f"choice {number}", (plain("", as_text(choice)),), score, facts)
        )
    return tuple(found)
