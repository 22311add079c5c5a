"""Values: what a final answer is, after its layout is taken away."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from nbg_lightning.scoring.algebra import Quotient
from nbg_lightning.scoring.units import Unit


@dataclass(frozen=True, kw_only=True)
class Value:
    """What an answer is.

    Attributes:
        plain: the answer without layout: LaTeX that a parser of mathematics understands.
    """

    plain: str


@dataclass(frozen=True, kw_only=True)
class Number(Value):
    """A number, or an expression with variables.

    Attributes:
        exact: its value; for a percentage the number before the sign.
        percent: whether a percent sign stands behind it.
        unit: of measure; None for none, and for other words ("apples").
        base: of a numeral with an index, such as ``2516_8``, whose digits `exact` then is, read as decimal ones.
    """

    exact: Quotient
    percent: bool = False
    unit: Unit | None = None
    base: int | None = None
    groups: tuple[str, ...] = ()

    @property
    def rational(self) -> Fraction | None:
        """The value of a number without variables and radicals, percent as hundredths."""
        value = self.exact.rational
        return value / 100 if value is not None and self.percent else value


@dataclass(frozen=True, kw_only=True)
class Collection(Value):
    """Several values.

    Attributes:
        elements: in the order in which they are written.
        opening, closing: ``(``, ``[``, ``{`` or ``]`` and their counterparts; empty for a bare list; ``union`` for a union of
            sets; ``matrix`` and ``row``.
    """

    elements: tuple[Value, ...]
    opening: str = ""
    closing: str = ""

    @property
    def ordered(self) -> bool:
        """Whether the order of elements matters: in tuples, intervals and matrices."""
        return self.opening not in ("", "{", "union")


@dataclass(frozen=True, kw_only=True)
class Equation(Value):
    """A chain of equal sides: ``x = 5``, ``m + n = 204``, ``y = 2x + 3``."""

    sides: tuple[Number, ...]


@dataclass(frozen=True, kw_only=True)
class Text(Value):
    """Words, compared without case, spaces and punctuation."""

    words: str


@dataclass(frozen=True, kw_only=True)
class Unread(Value):
    """A text that the grammar does not read.

    Attributes:
        reason: in one line.
        beyond: it is beyond a limit; nothing else may read it either.
        malformed: it is no answer by the grammar, so a larger parser shall not guess what it is.
        no_number: it is an inequality, or has words in it.
    """

    reason: str
    beyond: bool = False
    malformed: bool = False
    no_number: bool = False
