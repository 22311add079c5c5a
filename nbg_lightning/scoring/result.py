"""What judging one answer found: the one result, and the one vocabulary, of rewards, benchmarks, filters and builders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Status = Literal["ok", "timeout", "error", "unscored"]
"""``ok``: the score stands, also if the answer could not be parsed (that is the answer's fault: score 0, `detail` says
so). ``timeout`` and ``error``: a failure of the verifier; there is no score, the answer is masked and counted.
``unscored``: nobody was asked for a score."""
_STATUSES = get_args(Status)
PASS_SCORE = 1.0  # verifiers give 0 to 1: an answer passes with all of it


@dataclass(frozen=True)
class Verdict:
    """What one answer is worth.

    Attributes:
        score: 0 to 1 for verifiers and benchmarks; any finite number for other rewards; None unless the status is ``ok``.
        status: see `Status`.
        detail: why, in one line: of a failure, what went wrong; of an answer that is not parsed, why; for logs and tables.
        parsed: whether an answer was found in the text at all. One that was not has a score, mostly 0.
        answer: what was found in the text, in a form that is equal for equal answers; None if nobody asks for it.
        extra: further measures as (sum, count), added up over the items of a benchmark.
        passed: whether the answer is right, where a score below 1 may be; None: it is right with a score of 1.

    Raises:
        ValueError: an unknown status, a score without the status ``ok``, or that status without a score.
    """

    score: float | None
    status: Status = "ok"
    detail: str = ""
    parsed: bool = True
    answer: str | None = None
    extra: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    passed: bool | None = None

    def __post_init__(self) -> None:
        if (self.score is None) == (self.status == "ok") or self.status not in _STATUSES:
            raise ValueError(
                f"Verdict is invalid: score {self.score!r:.40} with status {self.status!r:.40}; give a score with 'ok' "
                "(parsed=False where no answer was found), and None with 'timeout', 'error' or 'unscored'"
            )

    @property
    def is_right(self) -> bool:
        """It has a score, and passes."""
        return self.score is not None and (self.score >= PASS_SCORE if self.passed is None else self.passed)


def unreadable(reason: str) -> Verdict:
    """A verdict of an answer that is not there, cannot be read or is beyond the limits: it is wrong."""
    return Verdict(0.0, detail=reason, parsed=False)


def failure(reason: str) -> Verdict:
    """A verdict that says nothing of the answer: what failed is the verifier, the judge or the engine."""
    return Verdict(None, "error", reason)


NOT_FOUND = unreadable("no answer was found")
