"""The result of judging one answer, and its vocabulary, shared by rewards, benchmarks, filters and builders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Status = Literal["ok", "timeout", "error", "unscored"]
"""``ok``: there is a score, even if the answer could not be parsed (which is the answer's fault: score 0, and `detail`
says so). ``timeout`` and ``error``: the verifier failed; there is no score, and the answer is masked and counted.
``unscored``: no score was requested."""
_STATUSES = get_args(Status)
PASS_SCORE = 1.0  # verifiers give 0 to 1: an answer passes with the full score


@dataclass(frozen=True)
class Verdict:
    """The verdict on one answer.

    Attributes:
        score: 0 to 1 for verifiers and benchmarks, any finite number for other rewards; None unless the status is ``ok``.
        status: see `Status`.
        detail: the reason in one line, for logs and tables: what failed, or why an answer could not be parsed.
        parsed: whether an answer was found in the text. If not, it still has a score, usually 0.
        answer: the answer found in the text, normalized so that equal answers are equal; None if not needed.
        extra: further measures as (sum, count), accumulated over the items of a benchmark.
        passed: whether the answer is right, if that may be so with a score below 1; None: it is right with a score of 1.

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
        """Whether it has a score and passes."""
        return self.score is not None and (self.score >= PASS_SCORE if self.passed is None else self.passed)


def unreadable(reason: str) -> Verdict:
    """The verdict on an answer that is missing, unreadable or beyond the limits: it is wrong."""
    return Verdict(0.0, detail=reason, parsed=False)


def failure(reason: str) -> Verdict:
    """A verdict without information about the answer: the verifier, judge or engine failed."""
    return Verdict(None, "error", reason)


NOT_FOUND = unreadable("no answer was found")
