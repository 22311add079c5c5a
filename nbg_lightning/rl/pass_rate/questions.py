"""Identity of a pass rate: the question and the measurement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from nbg_lightning import log
from nbg_lightning.data.question import Question
from nbg_lightning.data.question_sources import digest
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.rl.pass_rate.ledger import PassRate


def identity(about: Mapping[str, Any], sampling: Sampling, pass_score: float) -> dict[str, Any]:
    """Settings that identify a measurement: neither the location of the weights nor the engine is part of it."""
    whole = {name: value for name, value in about.items() if name not in ("weights", "engine", "versions", "written")}
    return json.loads(json.dumps({**whole, "sampling": asdict(sampling), "pass_score": pass_score}, default=str))


def unique(questions: Iterable[Question]) -> list[Question]:
    """Each question once: the first of those with the same key.

    Raises:
        ValueError: there are no questions.
    """
    found: dict[str, Question] = {}
    others = 0
    for question in questions:
        first = found.setdefault(question.key, question)
        others += first.answer != question.answer
    if not found:
        raise ValueError("there is no question to draw answers to; check the sources")
    if others:
        log.warn(f"{others:,} questions come again with another answer: the pass rate is that of the first answer")
    return list(found.values())


def content(question: Question) -> str:
    """Digest of everything that a pass rate depends on, hence without the source's name."""
    return digest([replace(question, source="")])


def is_known(question: Question, known: Mapping[str, PassRate]) -> bool:
    """Whether this exact question was measured."""
    row = known.get(question.key)
    return row is not None and row.content == content(question)


def unasked(question: Question, reason: str) -> PassRate:
    """The row of a question for which no answers were sampled."""
    return PassRate(question.key, question.source, 0, 0, 0, None, 0.0, 0, content(question), reason)
