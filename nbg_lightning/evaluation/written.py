"""Items that the model answers by generation: prompts, completions, parsing and scoring."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

from nbg_lightning import log
from nbg_lightning.engines.protocol import Completion, Prompt, Sampling, failed
from nbg_lightning.error_line import first_line
from nbg_lightning.evaluation.benchmark import Item
from nbg_lightning.evaluation.prompts import RenderedPrompt
from nbg_lightning.evaluation.results import Record
from nbg_lightning.evaluation.run_context import NumberedItems, RunContext, is_setting
from nbg_lightning.evaluation.verdicts import checked_verdicts
from nbg_lightning.scoring.result import Verdict, failure

Sample = dict[str, Any]
"""One answer in a record."""


def written_records(context: RunContext, part: NumberedItems) -> list[Record]:
    """Records of items after the model has answered them. Failures are errors of their item or sample, and do not raise.

    Raises:
        ValueError: settings that the engine or the scoring does not support, on all ranks alike.
    """
    rendered = [_rendered(context, item) for _, item in part]
    ready = [(place, each) for place, each in enumerate(rendered) if isinstance(each, RenderedPrompt)]
    prompts = [item_prompt(context, part[place][1], each) for place, each in ready]
    completions = drawn(context, prompts, context.sampling, context.deadline)
    samples: list[list[Sample]] = [[] for _ in part]
    for (place, _), own in zip(ready, completions, strict=True):
        samples[place] = [_sample(context, completion) for completion in own]
    _score(context, part, samples)
    return [
        sampled_record(context, index, item, rendered[place], samples[place])
        for place, (index, item) in enumerate(part)
    ]


def _rendered(context: RunContext, item: Item) -> RenderedPrompt | str:
    """The prompt, or why there is none."""
    if item.error is not None:
        return item.error
    try:
        return context.prompts.generation(context.benchmark, item, context.shots(item))
    except Exception as error:
        return f"no prompt: {first_line(error)}"


def item_prompt(context: RunContext, item: Item, rendered: RenderedPrompt) -> Prompt:
    """The prompt with the item's own seed."""
    name = f"{context.benchmark.name}\n{item.id}"
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    return Prompt(rendered.ids, seed >> 1, rendered.text)


def drawn(
    context: RunContext, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None
) -> list[list[Completion]]:
    """Completions of the engine; failed ones if it fails.

    Raises:
        ValueError: an invalid setting, on all ranks alike.
    """
    with context.timed():
        try:
            return context.engine.generate(prompts, sampling, deadline)
        except Exception as error:
            if is_setting(error):
                raise
            name = context.benchmark.name
            log.warn(f"{name}: the engine failed ({first_line(error)}); these items are errors")
            wrong = f"the engine failed: {first_line(error)}"
            return [failed(index, sampling, 0, wrong) for index in range(len(prompts))]


def _sample(context: RunContext, completion: Completion) -> Sample:
    """A completion before it is scored; ``given`` is the text in which the answer is looked for."""
    sample: Sample = {
        "text": "",
        "answer": None,
        "score": None,
        "status": "error",
        "finish_reason": completion.finish_reason,
        "tokens": len(completion.ids),
        "error": None,
    }
    if completion.finish_reason in ("error", "deadline"):
        sample["error"] = completion.error or "not finished at the deadline"
        return sample
    try:
        sample["text"], sample["given"] = context.prompts.read(context.benchmark, completion)
        sample["status"] = "ok"
    except Exception as error:
        sample["error"] = f"its text cannot be read: {first_line(error)}"
    return sample


def _score(context: RunContext, part: NumberedItems, samples: list[list[Sample]]) -> None:
    """Add the scores to the samples."""
    readable = [[s for s in own if s["status"] == "ok" and s["given"] is not None] for own in samples]
    texts = [[sample["given"] for sample in own] for own in readable]
    for own, verdicts in zip(readable, _verdicts(context, [item for _, item in part], texts), strict=True):
        for sample, verdict in zip(own, verdicts, strict=True):
            add_verdict(sample, verdict)
    for sample in (sample for own in samples for sample in own):
        if sample.pop("given", "") is None:  # reasoning that never ended holds no answer
            sample.update(score=0.0, status="parse_failure")
        if sample["finish_reason"] == "length" and sample["status"] == "parse_failure":
            sample["status"] = "truncated"


def add_verdict(sample: Sample, verdict: Verdict) -> None:
    """Add the verdict to a sample."""
    sample.update(score=verdict.score, status=_status(verdict), answer=verdict.answer, error=verdict.detail or None)
    if verdict.extra:
        sample["extra"] = verdict.extra


def _status(verdict: Verdict) -> str:
    """A sample's status in a record: ``ok``, ``parse_failure`` or ``error``."""
    if verdict.score is None:
        return "error"
    return "ok" if verdict.parsed else "parse_failure"


def _verdicts(context: RunContext, items: list[Item], texts: list[list[str]]) -> list[list[Verdict]]:
    try:
        return checked_verdicts(context.benchmark.score_all(items, texts), texts)
    except Exception as error:  # a text may make a scorer raise anything; the run continues
        return [[failure(f"scoring failed: {first_line(error)}") for _ in own] for own in texts]


def sampled_record(
    context: RunContext, index: int, item: Item, rendered: RenderedPrompt | str, samples: list[Sample]
) -> Record:
    """The record of an item with its samples; an error if no sample has a score."""
    scores = [sample["score"] for sample in samples if sample["score"] is not None]
    record = context.record(index, item, rendered)
    if record["status"] == "ok" and not scores:
        first = next((sample["error"] for sample in samples if sample["error"]), "nothing was written")
        record.update(status="error", error=first)
    record["score"] = math.fsum(scores) / len(scores) if scores else None
    record["samples"] = samples
    return record
