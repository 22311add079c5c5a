"""Units of measure: the whole table against independent values, and every pair of units against their quantities."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import constants

from nbg_lightning.scoring.mathematics.compare import compare
from nbg_lightning.scoring.mathematics.reader import read
from nbg_lightning.scoring.mathematics.unit_table import PREFIX_WORDS, PREFIXES, ROWS
from nbg_lightning.scoring.mathematics.units import Unit, read_unit

# SI units by their powers of m, kg, s, A, K, mol, cd and rad (SI brochure, tables 2 to 5), others by their value in them.
M, KG, S, A, K, MOL, CD, RAD = (tuple(int(i == j) for j in range(8)) for i in range(8))
NEWTON, JOULE, WATT, PASCAL, HERTZ = (1, 1, -2), (2, 1, -2), (2, 1, -3), (-1, 1, -2), (0, 0, -1)
QUANTITIES = {
    **{
        "m": (M, 1),
        "kg": (KG, 1),
        "g": (KG, 1e-3),
        "s": (S, 1),
        "A": (A, 1),
        "K": (K, 1),
        "mol": (MOL, 1),
        "cd": (CD, 1),
    },
    **{"N": (NEWTON, 1), "J": (JOULE, 1), "W": (WATT, 1), "Pa": (PASCAL, 1), "Hz": (HERTZ, 1), "C": ((0, 0, 1, 1), 1)},
    **{"V": ((2, 1, -3, -1), 1), "F": ((-2, -1, 4, 2), 1), "ohm": ((2, 1, -3, -2), 1), "S": ((-2, -1, 3, 2), 1)},
    **{
        "Wb": ((2, 1, -2, -1), 1),
        "T": ((0, 1, -2, -1), 1),
        "H": ((2, 1, -2, -2), 1),
        "lx": ((-2, 0, 0, 0, 0, 0, 1), 1),
    },
    **{
        "Gy": ((2, 0, -2), 1),
        "Sv": ((2, 0, -2), 1),
        "kat": ((0, 0, -1, 0, 0, 1), 1),
        "rad": (RAD, 1),
        "Bq": (HERTZ, 1),
    },
    **{"min": (S, 60), "h": (S, 3600), "day": (S, 86400), "week": (S, 604800), "L": ((3,), 1e-3), "ha": ((2,), 1e4)},
    **{"Wh": (JOULE, 3600), "Ah": ((0, 0, 1, 1), 3600), "eV": (JOULE, constants.eV), "cal": (JOULE, constants.calorie)},
    **{
        "BTU": (JOULE, constants.Btu),
        "hp": (WATT, constants.hp),
        "erg": (JOULE, constants.erg),
        "dyn": (NEWTON, constants.dyn),
    },
    **{"bar": (PASCAL, constants.bar), "atm": (PASCAL, constants.atm), "torr": (PASCAL, constants.torr)},
    **{"mmHg": (PASCAL, constants.mmHg), "psi": (PASCAL, constants.psi), "lbf": (NEWTON, constants.lbf)},
    **{"Å": (M, constants.angstrom), "astronomical unit": (M, constants.au), "light year": (M, 9460730472580800)},
    **{"nautical mile": (M, constants.nautical_mile), "knot": ((1, 0, -1), constants.knot), "in": (M, constants.inch)},
    **{"ft": (M, constants.foot), "yd": (M, constants.yard), "mi": (M, constants.mile), "acre": ((2,), constants.acre)},
    **{
        "lb": (KG, constants.lb),
        "oz": (KG, constants.oz),
        "stone": (KG, constants.stone),
        "ton": (KG, constants.short_ton),
    },
    **{"tonne": (KG, 1000), "gal": ((3,), constants.gallon), "fluid ounce": ((3,), constants.fluid_ounce)},
    **{"degree": (RAD, constants.degree), "turn": (RAD, math.tau), "rpm": ((0, 0, -1, 0, 0, 0, 0, 1), math.tau / 60)},
    **{"mph": ((1, 0, -1), constants.mph), "foot pound": (JOULE, constants.foot * constants.lbf)},
}
NAMES = ("length", "mass", "time", "current", "temperature", "amount", "luminosity", "angle")


def value(unit: Unit) -> float:
    """In kg rather than g."""
    return float(unit.factor) * math.pi**unit.turns / 1000 ** dict(unit.powers).get("mass", 0)


@pytest.mark.parametrize("name", QUANTITIES)
def test_units_are_what_other_tables_say(name):
    powers, expected = QUANTITIES[name]
    unit = read_unit(name)
    assert dict(unit.powers) == {kind: power for kind, power in zip(NAMES, powers, strict=False) if power}
    assert value(unit) == pytest.approx(expected, rel=1e-9)


def test_every_row_is_read_by_all_of_its_names():
    for row in ROWS:
        _, _, prefixes, symbols, words = (part.strip() for part in row.split("|"))
        spoken = [word.replace("_", " ") for word in words.split()]
        [unit] = {
            (each.powers, each.factor, each.turns, each.zero) for each in map(read_unit, symbols.split() + spoken)
        }
        for prefix in prefixes.split():
            scaled = [f"{prefix}{symbol}" for symbol in symbols.split()]
            scaled += [f"{PREFIX_WORDS[prefix]}{word}" for word in spoken]
            assert {(each.powers, each.factor) for each in map(read_unit, scaled)} == {
                (unit[0], unit[1] * Fraction(PREFIXES[prefix]))
            }, row


def test_every_pair_of_units_is_equal_exactly_where_its_quantities_are():
    for (one, (powers, factor)), (two, (others, other)) in itertools.product(QUANTITIES.items(), repeat=2):
        same = _padded(powers) == _padded(others) and math.isclose(factor, other, rel_tol=1e-9)
        signs = {one, two} in ({"C", "degree"}, {"F", "degree"})  # of temperatures too
        verdict = compare(read(f"5\\text{{ {one}}}"), read(f"5\\text{{ {two}}}"))
        assert verdict is (same or signs), (one, two)
        assert compare(read("5"), read(f"5\\text{{ {one}}}")) is True
        assert compare(read(f"5\\text{{ {one}}}"), read("6")) is False


def _padded(powers: tuple[int, ...]) -> tuple[int, ...]:
    return powers + (0,) * (8 - len(powers))


UNITS = ["m", "cm", "kg", "s", "h", "N", "J", "kW", "Pa", "mol", "K", "A", "V", "lb", "ft", "L"]


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(UNITS), st.integers(1, 3)), min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(UNITS), st.integers(1, 3)), max_size=2),
)
def test_ways_to_write_a_quotient_of_units(over, under):
    def power(number: int, form: str) -> str:
        return "" if number == 1 else form.format(number)

    top = " ".join(unit + power(number, "^{}") for unit, number in over)
    texts = [
        f"{top} {' '.join(f'{unit}^{{-{number}}}' for unit, number in under)}",
        top + "".join(f"/{unit}{power(number, '^{}')}" for unit, number in under),
        top + "".join(f" per {unit}{power(number, '^{}')}" for unit, number in under),
    ]
    if under:
        texts.append(f"{top}/({' '.join(unit + power(number, '^{}') for unit, number in under)})")
    found = [read_unit(text.strip()) for text in texts]
    assert all(each == found[0] for each in found)
    latex = "\\,".join(
        [f"{unit}^{{{number}}}" for unit, number in over] + [f"{unit}^{{-{number}}}" for unit, number in under]
    )
    same = compare(read(f"3\\text{{ {texts[1]}}}"), read(f"3\\,\\mathrm{{{latex}}}"))
    assert found[0] is None or same is True


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(alphabet="mkgsNJ/^{}()-123 .*°ΩµCper", max_size=90))
def test_any_text_is_a_unit_or_none(text):
    found = read_unit(text)
    assert found is None or (found.factor > 0 and all(abs(power) <= 99 for _, power in found.powers))
