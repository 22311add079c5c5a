"""Items whose given answers are rated by log-likelihood: each of some choices, or a whole text token by token."""

from __future__ import annotations

import math

from nbg_lightning.engines.capabilities import window_of
from nbg_lightning.error_line import first_line
from nbg_lightning.evaluation.benchmark import Item
from nbg_lightning.evaluation.log_likelihood import LogLikelihood, Request, rolling_prefix, rolling_requests
from nbg_lightning.evaluation.prompts import RenderedPrompt
from nbg_lightning.evaluation.results import Record
from nbg_lightning.evaluation.run_context import NumberedItems, RunContext

_WINDOW = 2048  # tokens, for a scorer that does not say how many it takes

# -- choices -----------------------------------------------------------------------------------------------------------


def choice_records(context: RunContext, part: NumberedItems) -> list[Record]:
    """Records of items after the model has rated each of their choices."""
    asked = [_choices(context, item) for _, item in part]
    rated = iter(context.rate([request for _, requests in asked for request in requests]))
    return [
        _choice_record(context, index, item, prompt, [next(rated) for _ in requests])
        for (index, item), (prompt, requests) in zip(part, asked, strict=True)
    ]


def _choices(context: RunContext, item: Item) -> tuple[RenderedPrompt | str, list[Request]]:
    """The prompt and a request for each choice, or why there is none."""
    if item.error is not None:
        return item.error, []
    try:
        return context.prompts.choices(context.benchmark, item, context.shots(item))
    except Exception as error:
        return first_line(error), []


def _choice_record(
    context: RunContext, index: int, item: Item, prompt: RenderedPrompt | str, rated: list[LogLikelihood]
) -> Record:
    record = context.record(index, item, prompt)
    wrong = next((each.error for each in rated if each.error), None)
    if record["status"] == "ok" and wrong is not None:
        record.update(status="error", error=wrong)
    totals = [each.total for each in rated]
    record.update(choices=list(item.choices), log_likelihoods=totals, score=None, score_norm=None)
    if record["status"] == "error":
        record["log_likelihoods"] = []
        return record
    per_character = [total / max(1, len(text)) for total, text in zip(totals, item.choices, strict=True)]
    record["chosen"] = totals.index(max(totals))
    record["score"] = float(record["chosen"] == item.answer)
    record["score_norm"] = float(per_character.index(max(per_character)) == item.answer)
    return record


# -- whole texts -------------------------------------------------------------------------------------------------------


def text_records(context: RunContext, part: NumberedItems) -> list[Record]:
    """Records of texts with their negative log-likelihood, in nats."""
    asked = [_windows(context, item) for _, item in part]
    rated = iter(context.rate([request for own in asked if not isinstance(own, str) for request in own]))
    return [
        _text_record(context, index, item, own, [] if isinstance(own, str) else [next(rated) for _ in own])
        for own, (index, item) in zip(asked, part, strict=True)
    ]


def _windows(context: RunContext, item: Item) -> list[Request] | str:
    """Requests that together predict each token of a text once, or why there are none."""
    tokenizer = context.prompts.tokenizer
    if item.error is not None:
        return item.error
    if tokenizer is None:
        return "a perplexity needs the tokenizer"
    try:
        prefix = rolling_prefix(tokenizer)
    except ValueError as error:
        return first_line(error)
    return rolling_requests(tokenizer.encode(item.answer), prefix, window_of(context.scorer) or _WINDOW)


def _text_record(
    context: RunContext, index: int, item: Item, asked: list[Request] | str, rated: list[LogLikelihood]
) -> Record:
    if isinstance(asked, str):
        return {**context.record(index, item, asked), "nll": None, "bytes": 0, "tokens": 0}
    ids = tuple(token for request in asked for token in request.continuation)
    record = context.record(index, item, RenderedPrompt(ids, item.answer[:200], item.answer))
    wrong = next((each.error for each in rated if each.error), None)
    record.update(status="ok" if wrong is None else "error", error=wrong, answer=None, tokens=len(ids))
    record["nll"] = None if wrong else -math.fsum(each.total for each in rated)
    record["score"] = record["nll"]
    record["bytes"] = len(item.answer.encode())
    return record
