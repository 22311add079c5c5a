"""Validation of verdicts, since a benchmark's scorer may be user code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nbg_lightning.scoring.result import Verdict, failure


def checked_verdict(given: Any) -> Verdict:
    """A verdict as it is, or an error that says why it cannot be counted.

    Example:
        >>> checked_verdict(Verdict(1.5)).detail
        'the scorer is invalid: it gave the score 1.5; scores are 0 to 1'
    """
    wrong = _what_is_wrong(given) if isinstance(given, Verdict) else f"a {type(given).__name__}; it must be a Verdict"
    return given if wrong is None else failure(f"the scorer is invalid: it gave {wrong}")


def checked_verdicts(given: Any, texts: Sequence[Sequence[str]]) -> list[list[Verdict]]:
    """Verdicts of the samples of several items, one for each; those of an item with another number of them are errors.

    Args:
        given: what a benchmark's `score_all` gave.
        texts: the samples that it was given.

    Raises:
        TypeError: it is nothing that holds verdicts.
    """
    items = [list(own) for own in given]
    if len(items) != len(texts):
        return [_failures(f"verdicts of {len(items)} items; there are {len(texts)}", own) for own in texts]
    return [
        [checked_verdict(each) for each in verdicts]
        if len(verdicts) == len(own)
        else _failures(f"{len(verdicts)} verdicts; there are {len(own)} samples", own)
        for verdicts, own in zip(items, texts, strict=True)
    ]


def _failures(wrong: str, samples: Sequence[str]) -> list[Verdict]:
    return [failure(f"the scorer is invalid: it gave {wrong}") for _ in samples]


def _what_is_wrong(verdict: Verdict) -> str | None:
    score = verdict.score
    if score is not None and not (isinstance(score, (int, float)) and 0 <= score <= 1):
        return f"the score {score!r:.40}; scores are 0 to 1"
    for name, value in (("answer", verdict.answer), ("detail", verdict.detail)):
        if value is not None and not isinstance(value, str):
            return f"a {type(value).__name__} as {name}; it must be a text"
    return _wrong_measure(verdict.extra)


def _wrong_measure(extra: Any) -> str | None:
    for name, pair in dict(extra).items():
        if len(pair) != 2 or not all(isinstance(each, (int, float)) and math.isfinite(each) for each in pair):
            return f"{pair!r:.40} for {name}; it must be a finite sum and count"
    return None
