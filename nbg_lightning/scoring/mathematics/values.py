"""Values: parsed final answers without their layout."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from nbg_lightning.scoring.mathematics.algebra import Quotient
from nbg_lightning.scoring.mathematics.units import Unit


@dataclass(frozen=True, kw_only=True)
class Value:
    """The value of an answer.

    Attributes:
        plain: the answer without layout, as LaTeX for a mathematics parser.
    """

    plain: str


@dataclass(frozen=True, kw_only=True)
class Number(Value):
    """A number, or an expression with variables.

    Attributes:
        exact: its value; for a percentage, the number before the sign.
        percent: whether a percent sign follows it.
        unit: unit of measure; None for none, and for other words ("apples").
        base: base of a numeral with an index, such as ``2516_8``; `exact` is then its digits read as decimal.
    """

    exact: Quotient
    percent: bool = False
    unit: Unit | None = None
    base: int | None = None
    groups: tuple[str, ...] = ()

    @property
    def rational(self) -> Fraction | None:
        """The value of a number without variables and radicals, with percent as hundredths."""
        value = self.exact.rational
        return value / 100 if value is not None and self.percent else value


@dataclass(frozen=True, kw_only=True)
class Collection(Value):
    """Several values.

    Attributes:
        elements: elements in the order they are written.
        opening, closing: ``(``, ``[``, ``{`` or ``]`` and their counterparts; empty for a bare list; ``union`` for a union
            of sets; ``matrix`` and ``row``.
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
    """A text that the grammar cannot read.

    Attributes:
        reason: reason in one line.
        beyond: whether it exceeds a limit; no other parser may read it.
        malformed: whether the grammar refuses it as an answer, so that a larger parser must not guess.
        no_number: whether it is an inequality, or contains words.
    """

    reason: str
    beyond: bool = False
    malformed: bool = False
    no_number: bool = False
