r"""Exact arithmetic of numbers, radicals and polynomials, with limits.

A value is a quotient of two sums; a sum maps monomials to rational coefficients; a monomial is a product of atoms to rational
powers. Atoms are

* primes, to powers between 0 and 1: :math:`\sqrt{12} = 2 \cdot 3^{1/2}`. Such products are linearly independent over the
  rationals (Besicovitch 1940), so a sum of them is 0 only if every coefficient is;
* ``i``, with :math:`i^2 = -1`, and ``pi``;
* names of variables;
* opaque forms (tuples): roots of sums, powers with a variable exponent, functions. Two of them may be equal yet look different.

Two values without opaque forms are therefore equal if and only if their difference is the empty sum.
"""

from __future__ import annotations

from collections.abc import Hashable
from fractions import Fraction
from math import floor, isqrt
from typing import NamedTuple

from nbg_lightning.scoring.mathematics.limits import (
    MAX_BITS,
    MAX_OPERATIONS,
    MAX_POWER,
    MAX_TERMS,
    LimitError,
    UnreadableError,
)

Monomial = frozenset[tuple[Hashable, Fraction]]
Sum = dict[Monomial, Fraction]

ONE: Monomial = frozenset()
_UNIT_SUM: Sum = {ONE: Fraction(1)}
_SMALL_PRIMES = [n for n in range(2, 1000) if all(n % d for d in range(2, isqrt(n) + 1))]
_MAX_ROOT = 12  # largest index of a root that is computed


class Quotient(NamedTuple):
    """A value: a sum divided by a sum. Treat it as immutable."""

    top: Sum
    bottom: Sum = _UNIT_SUM

    @property
    def rational(self) -> Fraction | None:
        """The exact value, if it is a rational number."""
        if self.bottom is not _UNIT_SUM or len(self.top) > 1:
            return None
        return self.top.get(ONE, None if self.top else Fraction(0))

    @property
    def key(self) -> Hashable:
        """A form that is equal for equal quotients without a common factor."""
        return (frozenset(self.top.items()), frozenset(self.bottom.items()))

    @property
    def symbols(self) -> frozenset[str]:
        """Names of its variables, including those inside opaque forms (as ``?``)."""
        atoms = {atom for side in self for monomial in side for atom, _ in monomial}
        names = {atom for atom in atoms if isinstance(atom, str) and atom not in ("i", "pi")}
        return frozenset(names | {"?" for atom in atoms if isinstance(atom, tuple)})

    @property
    def opaque(self) -> bool:
        """Whether it contains forms that may be equal yet look different."""
        return any(isinstance(atom, tuple) for side in self for monomial in side for atom, _ in monomial)


def constant(value: Fraction | int) -> Quotient:
    if not value:
        return Quotient({})
    return Quotient({ONE: value if type(value) is Fraction else Fraction(value)})


def atom(name: Hashable, power: Fraction | int = 1) -> Quotient:
    return Quotient({frozenset([(name, Fraction(power))]): Fraction(1)})


class QuotientArithmetic:
    """Arithmetic of quotients, with a count of the cost.

    Raises:
        LimitError: from any method, if a result or the cost exceeds the limits.
        UnreadableError: from any method, if there is no value, as in a division by zero.
    """

    def __init__(self) -> None:
        self.left = MAX_OPERATIONS

    def add(self, one: Quotient, two: Quotient) -> Quotient:
        if one.bottom == two.bottom:
            return _simple(self._plus(one.top, two.top), one.bottom)
        top = self._plus(self._times(one.top, two.bottom), self._times(two.top, one.bottom))
        return _simple(top, self._times(one.bottom, two.bottom))

    def negate(self, one: Quotient) -> Quotient:
        return Quotient({monomial: -factor for monomial, factor in one.top.items()}, one.bottom)

    def multiply(self, one: Quotient, two: Quotient) -> Quotient:
        return self._over(self._times(one.top, two.top), self._times(one.bottom, two.bottom))

    def divide(self, one: Quotient, two: Quotient) -> Quotient:
        if not two.top:
            raise UnreadableError("a division by zero")
        return self._over(self._times(one.top, two.bottom), self._times(one.bottom, two.top))

    def power(self, base: Quotient, exponent: Quotient) -> Quotient:
        """A power with any exponent; an opaque form if it cannot be computed."""
        number = exponent.rational
        if number is None:
            return atom(("power", base.key, exponent.key))
        if number.denominator > 1:
            return self.power(self.root(base, number.denominator), constant(number.numerator))
        times = number.numerator
        if times < 0:
            return self.power(self.divide(constant(1), base), constant(-times))
        value = base.rational
        if value is not None:
            if times * max(abs(value.numerator).bit_length() - 1, value.denominator.bit_length() - 1) > MAX_BITS:
                raise LimitError(f"a power of more than {MAX_BITS} bits")
            return constant(value**times)
        if times > (MAX_BITS if max(map(len, base)) == 1 else MAX_POWER):
            raise LimitError(f"a power of {str(times)[:20]}")
        return self._repeated(base, times)

    def root(self, base: Quotient, index: int) -> Quotient:
        """The principal root of a real number of radicals; of a negative one with an odd index, the real root."""
        if index < 1 or index > _MAX_ROOT or base.bottom is not _UNIT_SUM or len(base.top) > 1:
            return atom(("root", index, base.key))
        if not base.top:
            return base
        ((monomial, factor),) = base.top.items()
        if any(not (isinstance(name, int) or name == "pi") for name, _ in monomial):
            return atom(("root", index, base.key))
        sign = constant(1)
        if factor < 0:
            if index % 2 == 0 and index != 2:
                return atom(("root", index, base.key))
            sign = atom("i") if index == 2 else constant(-1)
        result = Quotient(_term({name: power / index for name, power in monomial}, Fraction(1)))
        root = self.divide(_root_of(abs(factor.numerator), index), _root_of(factor.denominator, index))
        return self.multiply(sign, self.multiply(root, result))

    def same(self, one: Quotient, two: Quotient) -> bool | None:
        """Whether they are equal; None if opaque forms leave it undecided."""
        if one == two or not self.add(one, self.negate(two)).top:
            return True
        return None if one.opaque or two.opaque else False

    # -- sums ----------------------------------------------------------------------------------------------------------

    def _spend(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise LimitError(f"more than {MAX_OPERATIONS} operations")

    def _plus(self, one: Sum, two: Sum) -> Sum:
        self._spend(1 + len(two) // 4)
        total = dict(one)
        for monomial, factor in two.items():
            _put(total, monomial, factor)
        return _checked(total)

    def _times(self, one: Sum, two: Sum) -> Sum:
        if two is _UNIT_SUM or two == _UNIT_SUM:
            return one
        if one == _UNIT_SUM:
            return two
        self._spend(len(one) * len(two))
        product: Sum = {}
        for left, factor in one.items():
            for right, other in two.items():
                for monomial, value in _product(left, right, factor * other).items():
                    _put(product, monomial, value)
        return _checked(product)

    def _over(self, top: Sum, bottom: Sum) -> Quotient:
        """A quotient, divided out if the divisor is a single term."""
        if bottom is _UNIT_SUM or bottom == _UNIT_SUM:
            return Quotient(top)
        if len(bottom) == 1:
            ((monomial, factor),) = bottom.items()
            return Quotient(self._times(top, _term({name: -power for name, power in monomial}, 1 / factor)))
        return _simple(top, bottom)

    def _repeated(self, base: Quotient, times: int) -> Quotient:
        if len(base.top) == 1 and base.bottom is _UNIT_SUM:
            ((monomial, factor),) = base.top.items()
            scale = self.power(constant(factor), constant(times)).rational
            assert scale is not None
            return Quotient(_checked(_term({name: power * times for name, power in monomial}, scale)))
        result = constant(1)
        for _ in range(times):
            result = self.multiply(result, base)
        return result


def _simple(top: Sum, bottom: Sum) -> Quotient:
    return Quotient(top, _UNIT_SUM if not top or top == bottom == _UNIT_SUM or bottom == _UNIT_SUM else bottom)


def _put(total: Sum, monomial: Monomial, factor: Fraction) -> None:
    value = total.get(monomial, 0) + factor
    if value:
        total[monomial] = value
    else:
        total.pop(monomial, None)


def _checked(total: Sum) -> Sum:
    if len(total) > MAX_TERMS:
        raise LimitError(f"a sum of more than {MAX_TERMS} terms")
    for factor in total.values():
        if factor.numerator.bit_length() > MAX_BITS or factor.denominator.bit_length() > MAX_BITS:
            raise LimitError(f"a number of more than {MAX_BITS} bits")
    return total


def _product(left: Monomial, right: Monomial, factor: Fraction) -> Sum:
    if not left or not right:
        return {left or right: factor}
    powers = dict(left)
    for name, power in right:
        powers[name] = powers.get(name, Fraction(0)) + power
    return _term(powers, factor)


def _term(powers: dict[Hashable, Fraction], factor: Fraction) -> Sum:
    """A term in normal form: primes to powers between 0 and 1, ``i`` to at most the first."""
    kept = []
    for name, power in powers.items():
        if name == "i":
            factor = -factor if power % 4 >= 2 else factor
            power %= 2
        elif isinstance(name, int) and not 0 <= power < 1:
            whole = floor(power)
            if abs(whole) * name.bit_length() > MAX_BITS:
                raise LimitError(f"a power of more than {MAX_BITS} bits")
            factor *= Fraction(name) ** whole
            power -= whole
        if power:
            kept.append((name, power))
    return {frozenset(kept): factor}


def _root_of(number: int, index: int) -> Quotient:
    """The root of a positive integer, as a product of an integer and primes to powers below 1."""
    powers: dict[Hashable, Fraction] = {}
    for prime in _SMALL_PRIMES:
        count = 0
        while number % prime == 0:
            number //= prime
            count += 1
        if count:
            powers[prime] = Fraction(count, index)
        if number == 1:
            break
    rest = constant(1)
    if number > 1:
        if number < _SMALL_PRIMES[-1] ** 2:
            powers[number] = Fraction(1, index)
        elif (whole := _whole_root(number, index)) is not None:
            rest = constant(whole)
        else:
            rest = atom(("root", index, number))  # not factored: it may contain powers
    (term,) = _term(powers, Fraction(1)).items()
    (other,) = rest.top.items()
    return Quotient(_product(term[0], other[0], term[1] * other[1]))


def _whole_root(number: int, index: int) -> int | None:
    low, high = 1, 1 << (number.bit_length() // index + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**index <= number else (low, middle - 1)
    return low if low**index == number else None
