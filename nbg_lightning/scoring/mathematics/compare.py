r"""Equality of two values: decided exactly, or left to a mathematics parser as pairs.

========================  ================================================================================================
gold                      an answer is right if
========================  ================================================================================================
number, expression        it has exactly the same value (rational, radical, polynomial). A rounded number is another one:
                          ``0.333`` is not 1/3, ``3.14`` is not π
percentage                ``28%`` is 28 (the sign is left out), 28% or 0.28; 28% also answers a gold of 28 or 0.28. ``0.5%`` does
                          not answer 0.5, which is a share
with a unit               it is the same quantity in any unit of `unit_table` (``500 cm`` is 5 m, 5 J is 5 N m, 1 kWh is 3.6 MJ,
                          25 °C is 298.15 K; 5 cm is not 5 m), or its unit is left out on one side. Words that are no measure
                          ("apples") are not compared; of a price by something the price is. Letters are symbols of units where
                          the other side is a number with a unit: ``50 s^{-1}`` is 50 Hz
numeral with a base       it has the same digits, and the same base or none
list, set                 it has the same elements in any order; a list may stand in brackets
tuple, interval, matrix   it has the same elements in the same order, in the same brackets (``(1, 2]`` is not ``[1, 2]``); a
                          tuple may be written without brackets, and its elements may be named: ``y = 2, x = 1`` is (1, 2).
                          ``1 < x \le 2`` is the interval (1, 2]
equation ``x = 5``        it is 5, or an equation with the value 5
other equations           it is the same equation up to a factor; ``2 = 3`` and ``x = 4 = 3`` have no value
words                     it is the same words, ignoring case and punctuation
========================  ================================================================================================

An answer of another shape (a list for a number) is wrong. What the grammar cannot read is compared as text, else undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from nbg_lightning.scoring.mathematics.algebra import Quotient, QuotientArithmetic, atom, constant
from nbg_lightning.scoring.mathematics.cursor import plain_words
from nbg_lightning.scoring.mathematics.limits import LimitError
from nbg_lightning.scoring.mathematics.units import Unit, unit_of_symbols
from nbg_lightning.scoring.mathematics.values import Collection, Equation, Number, Text, Unread, Value

Pairs = tuple[tuple[str, str], ...]
"""Gold and answer as LaTeX pairs, all of which a mathematics parser must find equal."""

Equality = bool | Pairs


def compare(gold: Value, found: Value) -> Equality:
    r"""Whether an answer equals the gold value: decided, or the pairs to be checked.

    Example:
        >>> from nbg_lightning.scoring.mathematics.reader import read
        >>> compare(read("3,5,7"), read(r"\{7, 5, 3\}")), compare(read("3"), read("2=3")), compare(read("1"), read(r"\sin x"))
        (True, False, (('1', '\\sin x'),))
    """
    try:
        return _Comparison().values(gold, found)
    except LimitError:  # the difference of two values exceeds the limits
        return False


def value_of(value: Value) -> Number | None:
    """The number that an answer stands for: itself, or from an equation or a set of one element."""
    if isinstance(value, Equation):
        return _Comparison().side(value)
    if isinstance(value, Collection) and value.opening == "{" and len(value.elements) == 1:
        return value_of(value.elements[0])
    return value if isinstance(value, Number) else None


class _Comparison:
    """Compares two values and their parts with a common budget of operations."""

    def __init__(self) -> None:
        self.compute = QuotientArithmetic()

    def values(self, gold: Value, found: Value) -> Equality:
        if gold.plain == found.plain:
            return bool(gold.plain)
        if isinstance(found, Unread) and found.beyond:
            return False
        if isinstance(gold, Text) or isinstance(found, Text) or (gold.plain.isalpha() and found.plain.isalpha()):
            return plain_words(gold.plain) == plain_words(found.plain)
        if isinstance(gold, Unread) or isinstance(found, Unread):
            unfit = isinstance(found, Unread) and (found.malformed or (found.no_number and isinstance(gold, Number)))
            return False if unfit else _ask(gold, found)
        if isinstance(gold, Collection) and isinstance(found, Collection):
            return self.collections(gold, found)
        if isinstance(gold, Collection):
            return len(gold.elements) == 1 and gold.opening in ("", "{") and self.values(gold.elements[0], found)
        if isinstance(found, Collection):
            if len(found.elements) == 1 and found.opening == "{":
                return self.values(gold, found.elements[0])
            return isinstance(gold, Number) and _is_written_list(gold, found)
        if isinstance(gold, Equation) and isinstance(found, Equation):
            return self.equations(gold, found)
        if isinstance(gold, Equation) and not _is_assignment(gold):
            return False
        return self.numbers(self.side(gold), self.side(found))

    # -- numbers -------------------------------------------------------------------------------------------------------

    def numbers(self, gold: Number | None, found: Number | None) -> Equality:
        if gold is None or found is None or (gold.base and found.base and gold.base != found.base):
            return False
        if (gold.base and found.percent) or (gold.percent and found.base):
            return False
        gold, found = _measured(gold, found), _measured(found, gold)
        if found.percent and gold.unit is not None:
            return False
        if gold.unit is not None and found.unit is not None:
            verdicts = [
                self.same(gold.exact, self.converted(found.exact, theirs, own))
                for own in gold.unit.readings
                for theirs in found.unit.readings
                if own.powers == theirs.powers
            ]
            return True if True in verdicts else _ask(gold, found) if None in verdicts else False
        share = found.percent and not gold.percent and gold.rational is not None and 0 < abs(gold.rational) < 1
        verdict = False if share else self.same(gold.exact, found.exact)
        if gold.percent != found.percent and not verdict:
            verdict = (
                self.same(gold.exact, found.exact, Fraction(1, 100) if found.percent else Fraction(100)) or verdict
            )
        return _ask(gold, found) if verdict is None else verdict

    def converted(self, value: Quotient, unit: Unit, wanted: Unit) -> Quotient:
        """Convert a value to another unit of the same quantity."""
        scale, shift = unit.factor / wanted.factor, (unit.zero - wanted.zero) / wanted.factor
        if scale != 1:
            value = self.compute.multiply(value, constant(scale))
        if shift:
            value = self.compute.add(value, constant(shift))
        turns = unit.turns - wanted.turns
        return self.compute.multiply(value, self.compute.power(atom("pi"), constant(turns))) if turns else value

    def same(self, gold: Quotient, found: Quotient, scale: Fraction | int = 1) -> bool | None:
        one, two = gold.rational, found.rational
        if one is not None and two is not None:
            return one == two * scale
        return self.compute.same(gold, found if scale == 1 else self.compute.multiply(found, constant(scale)))

    # -- equations -----------------------------------------------------------------------------------------------------

    def side(self, value: Value) -> Number | None:
        """The number of a value. For an equation: its constant sides, which must be equal, otherwise its last one."""
        if not isinstance(value, Equation):
            return value if isinstance(value, Number) else None
        constants = [side for side in value.sides if not side.exact.symbols]
        if not constants:
            return value.sides[-1] if not _is_lone(value.sides[-1]) else value.sides[0]
        alike = [side for side in constants if side.base == constants[-1].base]  # 3254_6 = 754 changes the base
        if any(self.numbers(alike[0], other) is not True for other in alike[1:]):
            return None
        return constants[-1]

    def equations(self, gold: Equation, found: Equation) -> Equality:
        if _is_assignment(gold) and _is_assignment(found):
            verdict = self.numbers(self.side(gold), self.side(found))
            if verdict is True or gold.sides[0].plain == found.sides[0].plain:
                return verdict
        if len(gold.sides) != 2 or len(found.sides) != 2:
            return _ask(gold, found)
        one, two = self.difference(gold), self.difference(found)
        if not one.top or not two.top:  # it holds for all values: 0 = 0
            return not one.top and not two.top
        if set(one.top) == set(two.top):
            first = next(iter(one.top))
            factor = one.top[first] / two.top[first]
            if all(value == factor * two.top[monomial] for monomial, value in one.top.items()):
                return True
        alike = one.symbols == two.symbols and (one.opaque or two.opaque or _degree(one) != _degree(two))
        return _ask(gold, found) if alike else False  # same degree, but not a multiple

    def difference(self, equation: Equation) -> Quotient:
        left, right = equation.sides
        return self.compute.add(left.exact, self.compute.negate(right.exact))

    # -- collections ---------------------------------------------------------------------------------------------------

    def collections(self, gold: Collection, found: Collection) -> Equality:
        brackets, theirs = (gold.opening, gold.closing), (found.opening, found.closing)
        if "union" in brackets + theirs:
            if theirs == ("", "") and all(isinstance(each, Collection) for each in found.elements):  # x < 1 or x > 2
                return self.unordered(gold.elements, found.elements)
            if brackets == theirs and self.unordered(gold.elements, found.elements) is True:
                return True
            return "matrix" not in brackets + theirs and _ask(gold, found)
        if gold.ordered:
            bare = brackets == ("(", ")") and theirs == ("", "")
            elements = _by_name(found.elements) if bare and not any(map(_name_of, gold.elements)) else found.elements
            return (brackets == theirs or bare) and self.ordered(gold.elements, elements)
        if theirs not in (("", ""), ("{", "}"), ("(", ")"), ("[", "]")):
            return False
        if "{" in brackets + theirs:
            return self.unordered(_distinct(gold.elements), _distinct(found.elements))
        return self.unordered(gold.elements, found.elements)

    def elements(self, gold: Value, found: Value) -> Equality:
        """Compare elements, where ``x = 1`` differs from ``y = 1``."""
        if isinstance(gold, Equation) and isinstance(found, Equation):
            names = [side.plain for side in (gold.sides[0], found.sides[0]) if _is_lone(side)]
            if len(set(names)) == 2:
                return False
        return self.values(gold, found)

    def ordered(self, golds: Sequence[Value], founds: Sequence[Value]) -> Equality:
        if len(golds) != len(founds):
            return False
        asked: Pairs = ()
        for gold, found in zip(golds, founds, strict=True):
            verdict = self.elements(gold, found)
            if verdict is False:
                return False
            asked += verdict if isinstance(verdict, tuple) else ()
        return asked or True

    def unordered(self, golds: Sequence[Value], founds: Sequence[Value]) -> Equality:
        if len(golds) != len(founds):
            return False
        left, wanted = list(founds), []
        for gold in golds:
            verdicts = [self.elements(gold, found) for found in left]
            if True in verdicts:
                left.pop(verdicts.index(True))
            elif not any(verdicts):
                return False
            else:
                wanted.append(gold)
        if not wanted:
            return True
        if len(wanted) == 1:
            return self.elements(wanted[0], left[0])
        return (_as_sets(wanted, left),)


def _ask(gold: Value, found: Value) -> Pairs:
    return ((gold.plain, found.plain),)


def _as_sets(golds: Sequence[Value], founds: Sequence[Value]) -> tuple[str, str]:
    one, two = (",".join(value.plain for value in values) for values in (golds, founds))
    return f"\\{{{one}\\}}", f"\\{{{two}\\}}"


def _measured(number: Number, other: Number) -> Number:
    """Interpret the letters of ``50 s^{-1}`` as a unit if the other is a number with a unit; otherwise return the number."""
    if other.unit is None or other.exact.rational is None or len(number.exact.top) != 1 or number.percent:
        return number
    ((monomial, factor),) = number.exact.top.items()
    powers = {name: int(power) for name, power in monomial if isinstance(name, str) and power.denominator == 1}
    if not powers or len(powers) < len(monomial) or number.exact.bottom != constant(1).bottom:
        return number
    unit = unit_of_symbols(powers, number.unit, other.unit)
    return number if unit is None else replace(number, exact=constant(factor), unit=unit)


def _degree(polynomial: Quotient) -> Fraction:
    """The total degree in the variables."""
    variables = ([power for name, power in monomial if isinstance(name, str)] for monomial in polynomial.top)
    return max((sum(powers, Fraction(0)) for powers in variables), default=Fraction(0))


def _is_lone(side: Number) -> bool:
    """Whether a side is a variable, or a function such as f(x)."""
    if side.exact.rational is not None or len(side.exact.top) != 1:
        return False
    ((monomial, factor),) = side.exact.top.items()
    return factor == 1 and len(monomial) == 1 and all(power == 1 for _, power in monomial) and bool(side.exact.symbols)


def _is_assignment(equation: Equation) -> bool:
    return _is_lone(equation.sides[0]) or _is_lone(equation.sides[-1])


def _name_of(value: Value) -> str:
    """The name of the variable in an assignment; empty for other values."""
    return value.sides[0].plain if isinstance(value, Equation) and _is_lone(value.sides[0]) else ""


def _by_name(values: Sequence[Value]) -> Sequence[Value]:
    """Sort coordinates by their names, if all have one: ``y = 2, x = 1``."""
    names = [_name_of(value) for value in values]
    return sorted(values, key=_name_of) if all(names) and len(set(names)) == len(names) else values


def _is_written_list(gold: Number, found: Collection) -> bool:
    """Whether ``70,110``, which may be a number or a list, is the list given in an answer."""
    parts = [element.rational for element in found.elements if isinstance(element, Number)]
    numbers = [part for part in parts if part is not None]
    whole = len(numbers) == len(found.elements) > 1 and found.opening in ("", "{")
    return whole and sorted(numbers) == sorted(map(Fraction, gold.groups))


def _distinct(values: Sequence[Value]) -> list[Value]:
    """Drop repeated elements of a set."""
    kept: dict[object, Value] = {}
    for value in values:
        kept.setdefault((value.exact.key, value.unit) if isinstance(value, Number) else value.plain, value)
    return list(kept.values())
