"""Equality of two expressions by numerical evaluation, for cases that symbolic comparison leaves undecided."""

from __future__ import annotations

import cmath
import functools
import json
from collections.abc import Sequence
from pathlib import Path

from nbg_lightning.scoring import symbolic_child
from nbg_lightning.scoring.pool import Outcome
from nbg_lightning.scoring.sandbox.sandbox import Sandbox, SandboxResult

Values = list[list[tuple[float, float]]]
"""For each part of an expression, its complex values at the points."""

RELATIVE_ERROR = 1e-10  # values are computed to 20 digits and sent as doubles; a rounded answer is a different number


class SymbolicCheck:
    """Evaluates expressions with sympy, each in a sandbox of its own, and compares their values outside.

    Parsing an expression evaluates it as Python, so it may be any program. All it can do is print values, without knowing
    the expected ones.

    Args:
        deadline: seconds per expression, most of them for importing sympy.
        workers: concurrent expressions; by default the number of processors.

    Example:
        >>> SymbolicCheck().compare([("1024", "2**10")])  # doctest: +SKIP
        [Outcome(value=True, status='ok', detail='')]
    """

    def __init__(self, deadline: float = 10.0, workers: int | None = None):
        self.sandbox = Sandbox(timeout=deadline, workers=workers, packages=("sympy", "mpmath"))
        self._gold: dict[str, SandboxResult] = {}

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[Outcome]:
        """Whether each found expression has the values of its gold one.

        Args:
            pairs: gold and found expression.

        Returns:
            One outcome per pair; an error if the gold has no value, a timeout if the found one takes too long.
        """
        unknown = list(dict.fromkeys(gold for gold, _ in pairs if gold not in self._gold))
        evaluated = self._evaluate([*unknown, *(found for _, found in pairs)])
        self._gold.update(zip(unknown, evaluated, strict=False))
        return [
            self._outcome(self._gold[gold], found)
            for (gold, _), found in zip(pairs, evaluated[len(unknown) :], strict=True)
        ]

    def _evaluate(self, texts: Sequence[str]) -> list[SandboxResult]:
        program = _child_source()
        return self.sandbox.run_many([{"program": program, "stdin": text} for text in texts])

    @staticmethod
    def _outcome(gold: SandboxResult, found: SandboxResult) -> Outcome:
        wanted = read_values(gold)
        if wanted is None:
            return Outcome(None, "error", f"the gold answer has no value ({_reason(gold)})")
        if found.status == "error":
            return Outcome(None, "error", found.detail)
        if found.status == "timeout":
            return Outcome(None, "timeout", found.detail)
        given = read_values(found)
        return Outcome(given is not None and same_values(wanted, given))


def read_values(result: SandboxResult) -> Values | None:
    """The values in the sandbox's last line; None if it contains none."""
    if not result:
        return None
    try:
        parts = json.loads(result.stdout.strip().rsplit("\n", maxsplit=1)[-1])
        return [[(float(real), float(imaginary)) for real, imaginary in at] for at in parts]
    except (ValueError, TypeError, RecursionError):
        return None


def same_values(one: Values, two: Values) -> bool:
    """Whether the expressions have values at the same points, at most points, and these are equal up to rounding."""

    def close(a: tuple[float, float], b: tuple[float, float]) -> bool:
        size = max(abs(complex(*a)), abs(complex(*b)))
        return abs(complex(*a) - complex(*b)) <= RELATIVE_ERROR * max(size, 1e-10)

    def same(at: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> bool:
        finite = [tuple(map(cmath.isfinite, (complex(*a), complex(*b)))) for a, b in zip(at, theirs, strict=True)]
        if any(mine != other for mine, other in finite) or 2 * sum(mine for mine, _ in finite) <= len(finite):
            return False
        return all(close(a, b) for a, b, (mine, _) in zip(at, theirs, finite, strict=True) if mine)

    return len(one) == len(two) > 0 and all(
        len(at) == len(theirs) > 0 and same(at, theirs) for at, theirs in zip(one, two, strict=True)
    )


def _reason(result: SandboxResult) -> str:
    lines = result.stderr.strip().splitlines()
    return (lines[-1] if lines else result.detail)[:160]


@functools.cache
def _child_source() -> str:
    return Path(symbolic_child.__file__).read_text("utf-8")
