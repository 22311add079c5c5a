"""Units of measure: their dimension, and how many of its base unit they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from nbg_lightning.scoring.limits import UnreadableError

_ROWS = """
length   1          m metre metres meter meters
length   1/100      cm centimetre centimetres centimeter centimeters
length   1/1000     mm millimetre millimetres millimeter millimeters
length   1000       km kilometre kilometres kilometer kilometers
length   127/5000   in inch inches
length   381/1250   ft foot feet
length   1143/1250  yd yard yards
length   201168/125 mi mile miles
mass     1          g gm gram grams
mass     1000       kg kilogram kilograms
mass     1/1000     mg milligram milligrams
mass     45359237/100000 lb lbs pound pounds
mass     45359237/1600000 oz ounce ounces
time     1          s sec secs second seconds
time     60         min mins minute minutes
time     3600       h hr hrs hour hours
time     86400      day days
time     604800     week weeks
month    1          month months
month    12         yr yrs year years
volume   1          l litre litres liter liters
volume   1/1000     ml millilitre millilitres milliliter milliliters
money    1          dollar dollars usd
money    1/100      cent cents
euro     1          euro euros eur
angle    1          degree degrees deg
radian   1          rad radian radians
force    1          newton newtons
energy   1          joule joules
power    1          watt watts
kelvin   1          kelvin kelvins
voltage  1          volt volts
current  1          ampere amperes amp amps
/time    1          hertz hz
morning  1          am
evening  1          pm
""".strip().splitlines()

_UNITS: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(factor)) for dimension, factor, *names in map(str.split, _ROWS) for name in names
}
_SYMBOLS = {"N": "newton", "J": "joule", "W": "watt", "K": "kelvin", "V": "volt", "A": "ampere"}  # capitals only
CAPITALS = frozenset(_SYMBOLS)
SYMBOLS = frozenset("mgshL") | CAPITALS
"""Letters that are a unit behind a number and a blank."""
_NOT_BARE = {"m", "s", "h", "l", "g", "in", "am", "min", "rad", "sec", "deg", "mi"}  # symbols, words, functions
_SCALES = {"k": 10**3, "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NOT_COUNTED = {
    *(
        "not",
        "no",
        "never",
        "wrong",
        "incorrect",
        "if",
        "unless",
        "than",
        "is",
        "are",
        "was",
        "were",
        "x",
        "y",
        "z",
        "n",
    ),
    *("plus", "minus", "divided", "mod", "modulo", "squared", "cubed", "factorial", "log", "halves", "thirds"),
}
"""Words behind a number with which it is another number, or none."""

POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


_ALIASES = {"mph": "mi/h", "kmh": "km/h", "kmph": "km/h", "kph": "km/h", "kmh^-1": "km/h"}
_ALIASES |= {"ms^-1": "m/s", "ms^-2": "m/s^2"}  # of textbooks, and not of milliseconds
_PER = re.compile(r"(?i: per | an (?=hour\b)|/)")
_FACTOR = re.compile(r"(?:((?i:square|sq|cubic|cu)) ?)?([A-Za-z]+)(?:(?:\^?\{?(?=[1-3])|\^\{?(?=-))(-?[1-3])\}?)?")
_UNDER = re.compile(r"/ ?\(([^()]{1,40})\)")  # the bar of a fraction with several factors below it
_FRACTION = re.compile(r"\\[dt]?frac ?\{([^{}]{1,40})\}\{([^{}]{1,40})\}")
_BETWEEN = re.compile(r"\\[,;:! ]|\\(?:cdot|times)(?![A-Za-z])|[~*\u00b7\u22c5]")  # of the factors of a unit
_MOST_DIVISORS = 3
_NOT_COMPOSED = {"money", "euro", "month", "morning", "evening", "angle"}  # prices, wages: the amount is the answer


@dataclass(frozen=True)
class Unit:
    """A unit of measure to a power.

    Attributes:
        dimension: such as ``length``, or ``length/time`` of a composed unit, whose power is 1.
        factor: base units of the dimension in it.
        power: 2 for an area in a unit of length.
    """

    dimension: str
    factor: Fraction
    power: int = 1


def is_unit(name: str) -> bool:
    """Whether bare letters behind a number are a unit and no product of variables."""
    return name.lower() in _UNITS and name.lower() not in _NOT_BARE


def scale_of(text: str) -> tuple[int, str]:
    """How many times a number is what stands before some words, and the rest of the words.

    Raises:
        UnreadableError: they say something of the number, so that it is not the answer by itself.

    Example:
        >>> scale_of("million dollars"), scale_of("apples")
        ((1000000, 'dollars'), (1, 'apples'))
    """
    words = text.split()
    said = next((word for word in words if _folded(word) in _NOT_COUNTED), None)
    if said is not None:
        raise UnreadableError(f"a number and the word {said!r}")
    scale = 1
    while words and _folded(words[0]) in _SCALES and scale < _SCALES["trillion"]:
        scale *= _SCALES[_folded(words.pop(0))]
    return scale, " ".join(words)


def _folded(word: str) -> str:
    """A word in small letters; a single letter as it is: ``k`` is a thousand, ``K`` is kelvin."""
    return word if len(word) == 1 else word.lower()


def read_unit(text: str) -> Unit | None:
    """The unit of measure that some words are; None for other things that are counted.

    Example:
        >>> read_unit("square cm").power, read_unit("cm^2").factor, read_unit("apples")
        (2, Fraction(1, 100), None)
        >>> read_unit("km per hour")
        Unit(dimension='length/time', factor=Fraction(5, 18), power=1)
    """
    text = text.replace(".", "").strip()
    text = _ALIASES.get(text.lower().replace("{", "").replace("}", ""), text)
    match = _FACTOR.fullmatch(text)
    if match is None or (match.group(3) or "").startswith("-"):
        return _composed(text)
    name = _name(match.group(2))
    power = int(match.group(3) or POWERS.get((match.group(1) or "").lower(), 1))
    return None if name is None else Unit(*_UNITS[name], power)


def read_upright(content: str) -> str | None:
    """The unit that LaTeX in an upright text is, in words: ``km\\,h^{-1}``; None where it is no unit, or a single letter.

    Example:
        >>> read_upright(r"km\,h^{-1}"), read_upright("x = 5"), read_upright("A")
        ('km h^{-1}', None, None)
    """
    words = " ".join(_BETWEEN.sub(" ", _FRACTION.sub(r"\1/(\2)", content)).split())
    return words if len(words) > 1 and read_unit(words) is not None else None


def unit_of_symbols(powers: Mapping[str, int], unit: Unit | None = None) -> Unit | None:
    """The unit that a product of letters is, with a unit behind it: N with ``m`` behind it; None if a letter is no symbol.

    Example:
        >>> unit_of_symbols({"s": -1}) == read_unit("Hz"), unit_of_symbols({"N": 1}, read_unit("m")) == read_unit("N m")
        (True, True)
    """
    if not powers.keys() <= SYMBOLS:
        return None
    words = [f"{letter}^{power}" for letter, power in sorted(powers.items())]
    if unit is not None:
        base = next((name for name, size in _UNITS.items() if size == (unit.dimension, unit.factor)), None)
        if base is None:
            return None
        words.append(f"{base}^{unit.power}")
    return read_unit(" ".join(words))


def _name(word: str) -> str | None:
    """The unit that a word names: a symbol in capitals, or a name in any letters."""
    name = _SYMBOLS.get(word, word.lower())
    return name if name in _UNITS else None


def _composed(text: str) -> Unit | None:
    """A quotient or product of units: ``km/h``, ``metres per second per second``, ``km h^{-1}``; None for others."""
    powers: dict[str, int] = {}
    factor = Fraction(1)
    text = _UNDER.sub(lambda found: "/" + "/".join(found.group(1).split()), text)
    parts = _PER.split(text)
    if len(parts) > _MOST_DIVISORS + 1:
        return None
    for place, part in enumerate(parts):
        for each in part.split():
            match = _FACTOR.fullmatch(each)
            name = None if match is None else _name(match.group(2))
            if match is None or name is None:
                return None
            dimension, size = _UNITS[name]
            power = int(match.group(3) or 1) * (-1 if place else 1)
            if dimension in _NOT_COMPOSED or powers.get(dimension, power) * power < 0:
                return None  # hours per week
            powers[dimension] = powers.get(dimension, 0) + power
            factor *= size**power
    over = "*".join(f"{name}^{power}".removesuffix("^1") for name, power in sorted(powers.items()) if power > 0)
    under = "".join(f"/{name}^{-power}".removesuffix("^1") for name, power in sorted(powers.items()) if power < 0)
    return Unit(f"{over}{under}", factor) if powers else None
