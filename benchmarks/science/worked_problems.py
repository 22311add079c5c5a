"""Worked problems with adjustable quality: clean ones, and damaged ones with wrong steps and other layouts.

A clean document is a problem followed by the value of a counter from 0 to 9, which saturates at both ends, after each step::

    3+4-2+4-1=7,5,9,8

In the damaged pool a share of steps is wrong, later steps continue from the wrong result, and two of three documents have another
layout. The metric uses neither pool: clean solutions of problems that occur in no document.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbg_lightning.data import train_bpe

VOCAB_SIZE = 268  # bytes and special tokens: a character is a token
STEPS, LARGEST, MOVES = 4, 9, range(1, 5)
WRONG = (0.1, 0.35)  # share of wrong steps, of each half of the documents


def document_tokens(steps: int = STEPS) -> int:
    """Tokens of a document: a character each, begin and end. The same for all, so that windows cut none."""
    return 4 * steps + 3


DOCUMENT = document_tokens()


@dataclass(frozen=True)
class Problem:
    """Where the counter stands, then a sign and a move for each step.

    Attributes:
        first: from 0 to 9.
        then: (sign, move) of each step.
    """

    first: int
    then: tuple[tuple[str, int], ...]

    @property
    def question(self) -> str:
        """Such as ``3+4-2+4-1=``."""
        return f"{self.first}{''.join(f'{sign}{digit}' for sign, digit in self.then)}="

    @property
    def solution(self) -> str:
        """Lines and result, as clean documents have them."""
        return worked(self, [False] * len(self.then))


def after(total: int, sign: str, digit: int) -> int:
    """Where the counter stands after a step."""
    return min(max(total + digit if sign == "+" else total - digit, 0), LARGEST)


def worked(problem: Problem, wrong: list[bool], layout: int = 0, draw: random.Random | None = None) -> str:
    """A solution; ``wrong`` says of each step whether its result is another one, drawn from the rest.

    Args:
        problem: to work out.
        wrong: by step.
        layout: 0 of clean documents, 1 with other marks, 2 from the end to the begin.
        draw: of wrong results.
    """
    totals = [problem.first]
    for is_wrong, (sign, digit) in zip(wrong, problem.then, strict=True):
        found = after(totals[-1], sign, digit)
        if is_wrong:
            assert draw is not None
            found = draw.choice([other for other in range(LARGEST + 1) if other != found])
        totals.append(found)
    results = [str(total) for total in totals[1:]]
    return ";".join(results) if layout == 1 else ",".join(reversed(results) if layout == 2 else results)


def tokenizer(folder: Path) -> Path:
    """Of characters, made once."""
    return folder if folder.is_dir() else train_bpe(["0123456789+-=,;"], VOCAB_SIZE, folder)


@dataclass(frozen=True)
class Pools:
    """Texts of both pools, and problems that neither has.

    Attributes:
        clean: documents.
        damaged: documents.
        test: problems.
    """

    clean: list[str]
    damaged: list[str]
    test: list[Problem]


def draw_pools(clean_tokens: int, damaged_tokens: int, tests: int, seed: int, steps: int = STEPS) -> Pools:
    """Pools of at least so many tokens, all problems different.

    Raises:
        ValueError: there are not twice as many problems of so many steps.
    """
    draw, document = random.Random(f"problems {seed}"), document_tokens(steps)
    counts = (tests, -(-clean_tokens // document), -(-damaged_tokens // document))
    there = (LARGEST + 1) * (2 * len(MOVES)) ** steps
    if 2 * sum(counts) > there:
        raise ValueError(f"there are {there:,} problems of {steps} steps for {sum(counts):,}; take more steps")
    drawn: dict[Problem, None] = {}
    while len(drawn) < sum(counts):
        drawn[draw_problem(draw, steps)] = None
    problems = list(drawn)
    test, clean, damaged = problems[: counts[0]], problems[counts[0] : sum(counts[:2])], problems[sum(counts[:2]) :]
    return Pools(
        [f"{each.question}{each.solution}" for each in clean],
        list(damaged_documents(damaged, random.Random(f"damage {seed}"))),
        test,
    )


def draw_problem(draw: random.Random, steps: int = STEPS) -> Problem:
    """Any."""
    return Problem(draw.randrange(LARGEST + 1), tuple((draw.choice("+-"), draw.choice(MOVES)) for _ in range(steps)))


def damaged_documents(problems: list[Problem], draw: random.Random) -> Iterator[str]:
    """Half with one share of wrong steps, half with the other, in any of the three layouts."""
    for number, each in enumerate(problems):
        wrong = [draw.random() < WRONG[number % 2] for _ in each.then]
        yield f"{each.question}{worked(each, wrong, draw.randrange(3), draw)}"


def measure(model: Any, name: Path, problems: list[Problem]) -> dict[str, list[float]]:
    """Bits of each clean solution given its problem, and 1 where greedy decoding would write it to its end."""
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.evaluation.log_likelihood import LogLikelihoodScorer, Request

    own = Tokenizer(name)
    ends = () if own.eos_id is None else (own.eos_id,)
    requests = [
        Request(
            (*own.begin, *own.encode(each.question)),
            (*own.encode(each.solution), *ends),
        )
        for each in problems
    ]
    found = LogLikelihoodScorer(model)(requests)
    return {
        "bits": [-each.total / math.log(2) for each in found],
        "accuracy": [float(each.is_greedy) for each in found],
    }
