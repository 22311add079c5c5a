"""Units of measure: their quantity, and their value in its base unit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import islice, permutations

from nbg_lightning.scoring.mathematics.limits import UnreadableError
from nbg_lightning.scoring.mathematics.unit_table import (
    ALIASES,
    ALSO,
    AMOUNTS,
    PREFIX_WORDS,
    PREFIXES,
    ROWS,
    TURNS,
    ZEROS,
)

_MOST_POWER = 9
_MOST_FACTORS = 6
_LONGEST = 80  # characters of a unit


@dataclass(frozen=True)
class Unit:
    """A unit of measure: a product of powers of base units, times a factor.

    Attributes:
        powers: powers of the base quantities by name, without zero powers.
        factor: value in base units, apart from the power of pi.
        turns: power of pi in the factor; 1 for degrees, which are pi / 180 radians.
        zero: base units at its zero: 273.15 (K) for degrees Celsius.
        also: other meanings of its sign: degrees are an angle or a temperature.
    """

    powers: tuple[tuple[str, int], ...]
    factor: Fraction
    turns: int = 0
    zero: Fraction = Fraction(0)
    also: tuple[Unit, ...] = ()

    @property
    def readings(self) -> tuple[Unit, ...]:
        """All possible meanings."""
        return (self, *self.also)

    @property
    def dimension(self) -> str:
        """The quantity: ``length/time^2``.

        Example:
            >>> read_unit("km/h").dimension, read_unit("J").dimension
            ('length/time', 'length^2*mass/time^2')
        """
        over = "*".join(f"{name}^{power}".removesuffix("^1") for name, power in self.powers if power > 0)
        return over + "".join(f"/{name}^{-power}".removesuffix("^1") for name, power in self.powers if power < 0)

    def times(self, other: Unit, power: int = 1) -> Unit:
        """This unit times a power of another one. Zeros of temperatures are ignored: in J/K a degree is a difference."""
        powers = dict(self.powers)
        for name, each in other.powers:
            powers[name] = powers.get(name, 0) + each * power
        kept = tuple(sorted((name, each) for name, each in powers.items() if each))
        return Unit(kept, self.factor * other.factor**power, self.turns + other.turns * power)


_ONE = Unit((), Fraction(1))


def _number(text: str) -> Fraction:
    top, _, bottom = text.partition("/")
    return Fraction(top) / Fraction(bottom or 1)


def _defined(definition: str, known: Mapping[str, Unit]) -> Unit:
    """The unit defined by a row of the table: a quantity, or a multiple of other units."""
    first, *rest = definition.split()
    if not rest:
        return Unit(((first, 1),), Fraction(1))
    unit = Unit((), _number(first))
    for each in rest:
        name, _, power = each.partition("^")
        unit = unit.times(known[name], int(power or 1))
    return unit


def _plurals(word: str) -> tuple[str, ...]:
    """The forms of a word: ``feet`` and ``inches`` are in the table, ``degree_celsius`` has its plural in the middle."""
    first, *rest = word.split("_")
    own = f"{first[:-1]}ies" if first.endswith("ry") else f"{first}s"
    return tuple(dict.fromkeys((word, f"{word}s", "_".join([own, *rest]))))


def _tables() -> tuple[dict[str, Unit], dict[str, Unit], dict[str, Unit]]:
    """Units by symbol, by word in lower case, and by symbol in lower case."""
    known: dict[str, Unit] = {}
    symbols: dict[str, Unit] = {}
    words: dict[str, Unit] = {}
    for row in ROWS:
        name, definition, prefixes, own, spoken = (part.strip() for part in row.split("|"))
        unit = _defined(definition, known)
        unit = replace(unit, turns=unit.turns + (name in TURNS), zero=_number(ZEROS.get(name, "0")))
        known[name] = unit
        for prefix in ("", *prefixes.split()):
            scaled = replace(unit, factor=unit.factor * _number(PREFIXES[prefix])) if prefix else unit
            for symbol in own.split():
                symbols.setdefault(f"{prefix}{symbol}", scaled)
            for word in spoken.split():
                if prefix and not own:  # kbit
                    symbols.setdefault(f"{prefix}{word}", scaled)
                for form in _plurals(word):
                    words.setdefault(f"{PREFIX_WORDS[prefix]}{form.lower()}", scaled)
    folded: dict[str, Unit] = {}
    for symbol, unit in symbols.items():
        if len(symbol) > 1:
            folded.setdefault(symbol.lower(), symbols.get(symbol.lower(), unit))
            folded.setdefault(f"{symbol.lower()}s", unit)  # hrs, lbs
    for sign, others in ALSO.items():
        table = symbols if sign in symbols else words
        table[sign] = replace(table[sign], also=tuple(known[other] for other in others.split()))
    return symbols, words, folded


_SYMBOLS, _WORDS, _FOLDED = _tables()
CAPITALS = frozenset("NJWKVA")
SYMBOLS = frozenset("mgshL") | CAPITALS
"""Letters that are a unit after a number and a blank."""
_LETTERS = SYMBOLS | frozenset("lCFTHStdkMGncp") | {"Omega", "mu"}  # if the other side has a unit
GREEK_SYMBOLS = {"mu": "u", "Omega": "Ω"}
"""LaTeX commands for the prefix micro and the symbol of ohm."""
_GLUED = re.compile(r"[cmk]m|[mk]?g|gm|lbs?|oz|ft|yd|hr|m[lL]|pm|[kKMG]B|.{3,}")  # directly after a number
_NOT_BARE = {"in", "am", "min", "rad", "sec", "deg", "mi", "rev", "won", "MN", "MV", "MA", "nm", "ns", "bar", "gal"}
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
"""Words after a number that change its value, or leave it without one."""

POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_BEHIND = {"squared": 2, "cubed": 3}
_HYPHEN = re.compile(r"(?<=[A-Za-z])-(?=[A-Za-z])")  # kilowatt-hours
_HOURLY = re.compile(r"(?i)\ban?(?= (?:hour|day|week|month|year|minute|second)s?\b)")
_PIECE = re.compile(r"\s*+(?:([^\W\d_]+|°[CF]?)(?:\^?\{?([1-4])\}?|\^\{?(-[1-4])\}?)?|([/()]))\s*+")
_FRACTION = re.compile(r"\\[dt]?frac ?\{([^{}]{1,40})\}\{([^{}]{1,40})\}")
_BETWEEN = re.compile(r"\\[,;:! ]|\\(?:cdot|times)(?![A-Za-z])|[~*\u00b7\u22c5]")  # between factors of a unit
_DEGREE = re.compile(r"\^?\{?\\(?:circ|degree)(?![A-Za-z])\}? ?")
_SAME = {0x00B5: "u", 0x03BC: "u", 0x2126: "\u03a9", 0x212B: "\u00c5", 0x00B7: " ", 0x22C5: " ", ord("*"): " "}
_UPRIGHT = ((re.compile(r"\\mu(?![A-Za-z]) ?"), "u"), (re.compile(r"\\Omega(?![A-Za-z]) ?"), "Ω"), (_DEGREE, "°"))


def is_unit(name: str, spaced: bool) -> bool:
    """Whether bare letters after a number are a unit rather than a product of variables.

    Args:
        name: the letters.
        spaced: whether there is a blank in between.

    Example:
        >>> is_unit("cm", False), is_unit("kW", True), is_unit("mV", False), is_unit("xy", True)
        (True, True, False, False)
    """
    if len(name) < 2 or name in _NOT_BARE or name.lower() in _NOT_BARE:
        return False
    if _GLUED.fullmatch(name) or _GLUED.fullmatch(name.lower()):
        return _named(name) is not None
    return spaced and name in _SYMBOLS


def scale_of(text: str) -> tuple[int, Unit | None]:
    """The factor given by the words before a unit, and the unit of the remaining words.

    Raises:
        UnreadableError: they modify the number, so that it is not the answer by itself.

    Example:
        >>> scale_of("million apples"), scale_of("hundred cm")[1] == read_unit("cm")
        ((1000000, None), True)
    """
    words = text.split()
    scale = 1
    while words and _folded(words[0]) in _SCALES and scale < _SCALES["trillion"]:
        scale *= _SCALES[_folded(words.pop(0))]
    unit = read_unit(" ".join(words))
    said = next((word for word in words if _folded(word) in _NOT_COUNTED), None)
    if unit is None and said is not None:
        raise UnreadableError(f"a number and the word {said!r}")
    return scale, unit


def _folded(word: str) -> str:
    """A word in lower case; single letters are unchanged: ``k`` is a thousand, ``K`` is kelvin."""
    return word if len(word) == 1 else word.lower()


def read_unit(text: str) -> Unit | None:
    """The unit of measure named by some words; None for other counted things.

    Example:
        >>> read_unit("square cm") == read_unit("cm^2"), read_unit("mL") == read_unit("cubic centimetres"), read_unit("apples")
        (True, True, None)
        >>> read_unit("km per hour")
        Unit(powers=(('length', 1), ('time', -1)), factor=Fraction(5, 18), turns=0, zero=Fraction(0, 1), also=())
    """
    return _read_unit(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _read_unit(text: str) -> Unit | None:
    """Parse a short text; cached, since answers use the same few units."""
    text = _HYPHEN.sub(" ", text.replace(".", "").translate(_SAME).strip())
    if not text:
        return None
    bare = text.replace("{", "").replace("}", "")
    text = ALIASES.get(bare) or ALIASES.get(bare.lower()) or text
    if (single := _named(text)) is not None:
        return single
    over, under = _ONE, _ONE
    factors = list(islice(_factors(text), _MOST_FACTORS + 1))
    if len(factors) == 1 and factors[0][1:] == (1, False):
        return factors[0][0]
    for unit, power, is_under in factors:
        if unit is None or len(factors) > _MOST_FACTORS:
            return None
        if is_under != (power < 0):
            under = under.times(unit, abs(power))
        else:
            over = over.times(unit, abs(power))
    return _quotient(over, under)


def _quotient(over: Unit, under: Unit) -> Unit | None:
    """One unit divided by another; for a price, a wage, or hours per week, the amount, which is the answer."""
    clocks = ({"time"}, {"month"})
    parts = [{name for name, _ in unit.powers} for unit in (over, under)]
    if parts[0] & AMOUNTS or (parts[0] in clocks and parts[1] in clocks):
        return over
    unit = over.times(under, -1)
    return unit if parts[0] | parts[1] and all(abs(power) <= _MOST_POWER for _, power in unit.powers) else None


def _factors(text: str) -> Iterator[tuple[Unit | None, int, bool]]:
    """The factors of a unit with their powers, and whether they are in the denominator; None for an unknown unit."""
    text = _HOURLY.sub("per", text[text.startswith("1/") :])
    place, is_under, raised = 0, False, 1
    found: list[tuple[Unit | None, int, bool]] = []
    while place < len(text):
        match = _PIECE.match(text, place)
        if match is None:
            yield None, 1, False
            return
        place = match.end()
        word, power = match.group(1), int(match.group(2) or match.group(3) or 1)
        if match.group(4) == "/" or (word or "").lower() == "per":
            is_under = True
        elif word is not None and word.lower() in POWERS:
            raised = POWERS[word.lower()]
        elif word is not None and word.lower() in _BEHIND and found:
            unit, before, below = found.pop()
            found.append((unit, before * _BEHIND[word.lower()], below))
        elif word is not None:
            pair = _PIECE.match(text, place)
            both = None if pair is None or pair.group(1) is None else _WORDS.get(f"{word}_{pair.group(1)}".lower())
            if both is not None and pair is not None:
                place, power = pair.end(), int(pair.group(2) or pair.group(3) or 1)
            found.append((both or _named(word), power * raised, is_under))
            raised = 1
    yield from found


def _named(word: str) -> Unit | None:
    """The unit named by one word: a symbol, a word in any letter case, or a symbol in other letter case (``KM``)."""
    return _SYMBOLS.get(word) or _WORDS.get(word.lower()) or _FOLDED.get(word.lower())


def read_upright(content: str) -> str | None:
    """The unit of LaTeX in upright text, in words: ``km\\,h^{-1}``; None if it is not a unit, or a single letter.

    Example:
        >>> read_upright(r"km\\,h^{-1}"), read_upright("x = 5"), read_upright("A"), read_upright(r"^\\circ C")
        ('km h^{-1}', None, None, '°C')
    """
    for pattern, sign in _UPRIGHT:
        content = pattern.sub(sign, content)
    words = " ".join(_BETWEEN.sub(" ", _FRACTION.sub(r"\1/(\2)", content)).split())
    return words if (len(words) > 1 or words in ("Ω", "°")) and read_unit(words) is not None else None


def unit_of_symbols(powers: Mapping[str, int], unit: Unit | None, wanted: Unit) -> Unit | None:
    """The unit formed by a product of letters followed by a unit: N followed by ``m``; None if a letter is not a symbol.

    Args:
        powers: powers of the letters.
        unit: unit after them.
        wanted: of two readings (``mW``), the one with this quantity is chosen.

    Example:
        >>> unit_of_symbols({"s": -1}, None, read_unit("Hz")) == read_unit("Hz")
        True
        >>> unit_of_symbols({"m": 1, "W": 1}, None, read_unit("W")) == read_unit("mW")
        True
    """
    if not powers.keys() <= _LETTERS or len(powers) > _MOST_FACTORS:
        return None
    if len(powers) == 1 and unit is None and set(powers.values()) == {1}:
        return _SYMBOLS.get(GREEK_SYMBOLS.get(*powers, *powers))
    found: Unit | None = None
    for reading in _readings({GREEK_SYMBOLS.get(name, name): power for name, power in powers.items()}):
        whole = unit or _ONE
        for name, power in reading.items():
            whole = whole.times(_SYMBOLS[name], power)
        if whole.powers == wanted.powers:
            return whole
        found = found or whole
    return found


def _readings(powers: dict[str, int]) -> Iterator[dict[str, int]]:
    """Letters as separate units, and with one of them as the prefix of another."""
    if all(name in _SYMBOLS for name in powers):
        yield powers
    for prefix, name in permutations(powers, 2):
        rest = {other: power for other, power in powers.items() if other not in (prefix, name)}
        if prefix + name in _SYMBOLS and powers[prefix] in (1, powers[name]) and all(each in _SYMBOLS for each in rest):
            yield {prefix + name: powers[name], **rest}
