"""Checklists for single instructions, and evaluators' scores by them."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass

from nbg_lightning.construction.workflow import UnusableError

DIMENSIONS = ("correctness", "completeness", "consistency", "executability", "safety")
"""Dimensions for judging solutions (Nanbeige4-3B report, deliberative generation refinement)."""
LOWEST, HIGHEST = 0, 9  # scale of all scores by models here: graded scores work better than binary ones
MAX_CRITERION = 300  # characters

_ITEM = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,2}[.):])\s+(\S.*)$")
_DIMENSION = re.compile(rf"^\W*({'|'.join(DIMENSIONS)})\W*\s*", re.IGNORECASE)
_SCORE = (  # "2: 7 - because", "2. 7/9", "**2**: **7**", "Criterion 2: Score: 7"
    r"[\s*#(\[]*+(?:criterion\s+)?{number}(?!\d)[\s*\])]*(?::|\.(?=\s)|-|–|=|\))[\s*]*+(?:score\s*+[:=]?[\s*]*+)?"
    r"(-?\d{{1,9}}(?:\.\d{{1,9}})?)(?:\s*(?:/|out of)\s*(\d{{1,9}}))?(?!\w|\.\d|%|\s*/\s*\d)(.*)$"
)


@dataclass(frozen=True)
class Criterion:
    """One item of a checklist.

    Attributes:
        dimension: one of `DIMENSIONS`.
        text: what a good answer does.
    """

    dimension: str
    text: str


GENERAL = (
    Criterion("correctness", "Every statement and result is right."),
    Criterion("completeness", "Every part of the instruction is answered."),
    Criterion("consistency", "Nothing contradicts another part of the answer or the instruction."),
    Criterion("executability", "Whatever is to be run or followed works as it is written."),
    Criterion("safety", "Nothing helps to do harm."),
)
"""One general criterion per dimension, for instructions without a checklist of their own."""


def read_checklist(
    text: str, minimum: int, maximum: int, example: Container[str] = frozenset()
) -> tuple[Criterion, ...]:
    """The criteria in a model's text: list items that begin with their dimension.

    Args:
        text: such as ``- [correctness] The sum is 12.``
        minimum: fewer criteria are unusable.
        maximum: further criteria are dropped.
        example: criteria to ignore, in lower case (`example_criteria` of the prompt).

    Raises:
        UnusableError: ``unparsable``; ``copied`` if there are too few apart from the example's.

    Example:
        >>> read_checklist("Sure!\\n- [Correctness] The sum is 12.\\n2. **safety**: No harm.", 1, 5)[1]
        Criterion(dimension='safety', text='No harm.')
    """
    every = _criteria(text)
    found = [each for each in every if each.text.lower() not in example]
    if len(found) < minimum:
        reason = "copied" if len(found) < len(every) else "unparsable"
        raise UnusableError(reason, f"{len(found)} criteria, at least {minimum} wanted: {_shown(text)}")
    return tuple(found[:maximum])


def _criteria(text: str) -> list[Criterion]:
    found: dict[str, Criterion] = {}
    for line in text.splitlines():
        item = _ITEM.match(line)
        named = _DIMENSION.match(item[1]) if item else None
        if item is None or named is None:
            continue
        said = item[1][named.end() :].strip(" *")
        if said and len(said) <= MAX_CRITERION:
            found.setdefault(said.lower(), Criterion(named[1].lower(), said))
    return list(found.values())


def example_criteria(prompt: str) -> frozenset[str]:
    """The criteria of the example in a prompt, in lower case: weak models repeat them for every instruction."""
    return frozenset(each.text.lower() for each in _criteria(prompt))


def example_remarks(prompt: str) -> frozenset[str]:
    """The remarks of the example in an evaluation prompt, in lower case."""
    lines = [re.match(_SCORE.format(number=r"\d+"), line, re.IGNORECASE) for line in prompt.splitlines()]
    return frozenset(_remark(match) for match in lines if match and _remark(match))


def _remark(match: re.Match[str]) -> str:
    return match[3].strip(" -–:*.").lower()


def checklist_text(criteria: Sequence[Criterion]) -> str:
    """The criteria as a numbered list."""
    return "\n".join(f"{number}. [{each.dimension}] {each.text}" for number, each in enumerate(criteria, 1))


@dataclass(frozen=True)
class Evaluation:
    """One evaluator's judgement of an answer.

    Attributes:
        scores: score of each criterion, 0 to 9.
        remarks: remark on each criterion; may be empty.
        critique: what should be changed.
    """

    scores: tuple[float, ...]
    remarks: tuple[str, ...]
    critique: str

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return sum(self.scores) / len(self.scores)


def read_evaluation(text: str, num_criteria: int, example: Container[str] = frozenset()) -> Evaluation:
    """The scores and critique in an evaluator's text; for a criterion scored twice, the first score counts.

    Args:
        text: lines such as ``2: 7 - the unit is missing``, and one that begins with ``Critique:``.
        num_criteria: number of criteria, each of which must have a score.
        example: remarks that make it unusable, in lower case (`example_remarks` of the prompt).

    Raises:
        UnusableError: ``unparsable`` if a score is missing, ``out_of_range`` if one is not 0 to 9 (or on another
            scale), ``copied`` if a remark is the example's. Nothing defaults to zero.

    Example:
        >>> read_evaluation("1: 9 - fine\\n2. 4/9 no unit\\nCritique: name the unit", 2).scores
        (9.0, 4.0)
    """
    before, _, critique = _split_critique(text)
    lines = before.splitlines()
    scores, remarks, missing = [], [], []
    for number in range(1, num_criteria + 1):
        pattern = re.compile(_SCORE.format(number=number), re.IGNORECASE)
        match = next((found for line in lines if (found := pattern.match(line))), None)
        if match is None:
            missing.append(number)
            continue
        score, scale = float(match[1]), match[2]
        if not LOWEST <= score <= HIGHEST or (scale is not None and int(scale) != HIGHEST):
            raise UnusableError("out_of_range", f"criterion {number}: {match[0].strip()[:80]}")
        if _remark(match) in example:
            raise UnusableError("copied", f"criterion {number}: {match[0].strip()[:80]}")
        scores.append(score)
        remarks.append(match[3].strip(" -–:*."))
    if missing:
        raise UnusableError("unparsable", f"no score for {len(missing)} of {num_criteria} criteria: {_shown(text)}")
    return Evaluation(tuple(scores), tuple(remarks), critique.strip())


def _split_critique(text: str) -> tuple[str, str, str]:
    match = re.search(r"^[^\w\n]*+critique[^\w\n:]*+:\W*", text, re.IGNORECASE | re.MULTILINE)
    return (text, "", "") if match is None else (text[: match.start()], match[0], text[match.end() :])


def _shown(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 100 else flat[:100] + "..."
