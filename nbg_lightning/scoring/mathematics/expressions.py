"""Expressions: sums, products, powers, fractions and roots, evaluated while parsing.

.. code-block:: text

        expression  = [ "+" | "-" ] term { ("+" | "-") term }
    term        = mixed | factor { [ "*" | "/" ] factor }            a missing sign is a product
    mixed       = integer integer "/" integer | integer \\frac{integer}{integer}
    factor      = atom { "^" factor | "!" }
    atom        = number | letter | "(" expression ")" | \\frac | \\sqrt | \\binom | \\pi | \\infty | currency atom
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import takewhile
from math import comb, factorial

from nbg_lightning.scoring.mathematics.algebra import Quotient, QuotientArithmetic, atom, constant
from nbg_lightning.scoring.mathematics.cursor import Cursor, is_word, unexpected
from nbg_lightning.scoring.mathematics.limits import MAX_DIGITS, MAX_EXPONENT, LimitError, OpenError, UnreadableError
from nbg_lightning.scoring.mathematics.tokens import CODES, Token
from nbg_lightning.scoring.mathematics.units import CAPITALS, GREEK_SYMBOLS, SYMBOLS, Unit, read_unit

_GREEK = {
    *(
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "theta",
        "lambda",
        "mu",
        "nu",
        "rho",
        "sigma",
        "tau",
        "phi",
        "varphi",
    ),
    *("omega", "Gamma", "Delta", "Omega"),
}
_MONEY = {"\\$": "dollar", "€": "euro", "£": "sterling", "¥": "¥", "₹": "rupee", "₩": "won", "元": "yuan", "円": "yen"}
CURRENCIES: dict[str, Unit | None] = {sign: read_unit(name) for sign, name in [*_MONEY.items(), ("¢", "cent")]}
_COMMANDS = {"pi", "infty", "frac", "binom", "sqrt"}
_MAX_FACTORIAL = 300
_BEHIND_SYMBOL = re.compile(
    r"(?:\^[23])?(?:\*?(?:s|h|m|g|L|K|km|kg|cm|mm|min)\^-[123])*"
    r"(?:/(?:s|h|m|min|L|[cm]m|km|kg|mL|ml|hr|sec|hour|second|minute|day|mol|[CKNJWVA])(?:\^[23])?)?"
)
_BEHIND_CAPITAL = re.compile(r'(?:[*/]?"[A-Za-z]+"(?:\^-?[123])?)+')  # texts between quotes


class PlusMinusError(OpenError):
    """The item stands for two values."""


def _binomial(above: Quotient, below: Quotient) -> Quotient:
    """How many sets of so many elements there are.

    Raises:
        OpenError: they are not small whole numbers.
    """
    n, k = above.rational, below.rational
    if n is None or k is None or n.denominator * k.denominator != 1 or not 0 <= k <= n <= _MAX_FACTORIAL:
        raise OpenError("a binomial coefficient that is not computed")
    return constant(comb(n.numerator, k.numerator))


class ExpressionReader(Cursor):
    """Parses and evaluates expressions; each method implements its rule of the grammar."""

    def __init__(self, tokens: Sequence[Token]):
        super().__init__(tokens)
        self.compute = QuotientArithmetic()
        self.currency: Unit | None = None

    def expression(self) -> Quotient:
        self.deeper()
        total = self.signed_term()
        while self.at("+", "-"):
            total = self.compute.add(total, self.signed_term())
        if self.at("pm", "mp", kind="command"):
            raise PlusMinusError("a plus-minus sign")
        if self.at("over", kind="command"):  # the numerator comes before, the denominator after it
            self.place += 1
            total = self.compute.divide(total, self.expression())
        elif self.at("choose", kind="command"):
            self.place += 1
            total = _binomial(total, self.expression())
        self.level -= 1
        return total

    def signed_term(self) -> Quotient:
        negative = False
        while self.at("+", "-"):
            negative ^= self.take().text == "-"
        if self.at("pm", "mp", kind="command"):
            raise PlusMinusError("a plus-minus sign")
        term = self.term()
        return self.compute.negate(term) if negative else term

    def term(self) -> Quotient:
        mixed = self.mixed()
        if mixed is not None:
            return mixed
        product = self.factor()
        divided = False
        while True:
            if self.at("*") or self.is_times():
                self.place += 1
                product = self.compute.multiply(product, self.signed_factor())
                divided = False
            elif self.at("/") and not self.per_word():
                self.place += 1
                product = self.compute.divide(product, self.signed_factor())
                divided = True
            elif self._is_factor():
                if divided:
                    raise OpenError("a product behind a slash may belong to the divisor")
                product = self.compute.multiply(product, self.factor())
            else:
                return product

    def _is_factor(self) -> bool:
        token = self.next
        if token is None or token.kind in ("text", "comma", "close", "number", "begin", "end"):
            return False  # two adjacent numbers are not a product
        if token.kind == "letter":
            return not self.symbol_of_unit()
        if token.kind == "word":
            return token.text in ("pi", "sqrt")
        if token.kind == "command":
            is_letter = token.text in _GREEK and not self.symbol_of_unit()
            return token.text in _COMMANDS - {"frac"} or is_letter or self._is_fraction()
        return (token.kind == "open" and token.text != "{") or token.text == "{"

    def _is_fraction(self) -> bool:
        """Whether a fraction of values follows, rather than one of units, or of 1 and a unit."""
        inside = self.tokens[self.place + 2 : self.place + 6]
        if [token.text for token in inside[:3]] == ["1", "}", "{"]:
            inside = inside[3:]
        return self.at("frac") and [token.kind for token in inside[:1]] != ["text"]

    def signed_factor(self) -> Quotient:
        if self.at("-"):
            self.place += 1
            return self.compute.negate(self.factor())
        return self.factor()

    def mixed(self) -> Quotient | None:
        """Parse ``3 1/2`` or ``3\\frac{1}{2}``; None (without consuming anything) if there is none."""
        window = self.tokens[self.place : self.place + 8]
        whole = _integer(window[0]) if window else None
        if whole is None or len(window) < 2:
            return None
        if window[1].kind == "number" and window[1].spaced:
            top, slash, bottom = (*window[1:4], *[None] * 3)[:3]
            used, parts = 4, (top, bottom) if slash is not None and slash.text == "/" else (None, None)
        elif window[1].text == "frac":
            used, parts = _fraction_of_digits(window)
        else:
            return None
        top_number, bottom_number = (None if part is None else _integer(part) for part in parts)
        if top_number is None or bottom_number is None or not 0 < top_number < bottom_number:
            return None
        self.place += used
        return constant(whole + Fraction(top_number, bottom_number))

    def factor(self) -> Quotient:
        value = self.atom()
        while True:
            if self.at("^") and not self.degree_at(self.place + 1):
                self.place += 1
                value = self.compute.power(value, self.group() if self.at("{") else self.signed_factor())
            elif self.at("!"):
                self.place += 1
                number = value.rational
                if number is None or number.denominator != 1 or not 0 <= number <= _MAX_FACTORIAL:
                    value = atom(("factorial", value.key))
                else:
                    value = constant(factorial(number.numerator))
            else:
                return value

    def group(self) -> Quotient:
        self.expect("{")
        value = self.expression()
        self.expect("}")
        return value

    def atom(self) -> Quotient:
        token = self.next
        if token is None:
            raise UnreadableError("it ends in the middle of an expression")
        if token.kind == "number":
            return self.number()
        if token.kind == "letter":
            return self.letter()
        if token.text in CURRENCIES or (token.kind == "word" and token.text in CODES):
            self.place += 1
            self.place += token.text == "US" and self.at("\\$")
            self.place += token.text == "Rs" and self.at(".")
            self.currency = CURRENCIES.get(token.text) or read_unit(CODES.get(token.text, ""))
            negative = self.at("-")
            self.place += negative
            if self.next is not None and self.next.text in CURRENCIES:  # only one currency sign
                raise unexpected(self.next)
            return self.compute.negate(self.atom()) if negative else self.atom()
        if token.kind == "open" and token.text != "{":
            return self.parenthesis()
        if token.text == "{" and token.kind == "sign":
            return self.group()
        name = {"infinity": "infty", "inf": "infty"}.get(token.text, token.text)
        if token.kind in ("command", "word") and name in _COMMANDS:
            self.place += 1
            return self.command(name)
        if token.kind == "command" and token.text in _GREEK:
            self.place += 1
            return self.indexed(token.text)
        raise unexpected(token)

    def number(self) -> Quotient:
        token = self.take()
        if token.kind != "number":
            raise unexpected(token)
        value = exact_number(token.text)
        bar = "." in token.text and self.at("overline", kind="command")
        if bar or (
            token.text.endswith(".") and self.at("(", kind="open") and self.next is not None and not self.next.spaced
        ):
            self.place += bar
            closing = {"{": "}", "(": ")"}.get(self.take().text, "")
            period = self.take().text
            self.expect(closing)
            if not period.isdecimal():
                raise UnreadableError("a period without digits")
            places = len(token.text.partition(".")[2])
            value += exact_number(period) / (10 ** len(period) - 1) / 10**places
        return constant(value)

    def letter(self) -> Quotient:
        name = self.take().text
        if name == "i" and not self.at("_"):
            return atom("i")
        if self.at("(", kind="open") and (name in "fgh" or name.isupper()):
            return atom(("function", name, self.parenthesis().key))
        return self.indexed(name)

    def indexed(self, name: str) -> Quotient:
        if not self.at("_"):
            return atom(name)
        self.place += 1
        begin = self.place
        if self.at("{"):
            self.group()
        else:
            self.take()
        return atom(f"{name}_{self.plain(begin).strip('{}')}")

    def parenthesis(self) -> Quotient:
        opening = self.take().text
        value = self.expression()
        if self.take().text != {"(": ")", "[": "]"}.get(opening):
            raise UnreadableError("brackets that do not match")
        return value

    def command(self, name: str) -> Quotient:
        if name == "pi":
            return atom("pi")
        if name == "infty":
            return atom("infinity")
        if name == "frac":
            top = self.argument()
            return self.compute.divide(top, self.argument())
        if name == "binom":
            n = self.argument()
            return _binomial(n, self.argument())
        index = 2
        if self.at("[", kind="open"):
            value = self.parenthesis().rational
            if value is None or value.denominator != 1 or value < 1:
                raise OpenError("the index of a root")
            index = value.numerator
        if self.at("("):
            return self.compute.root(self.parenthesis(), index)
        return self.compute.root(self.group() if self.at("{") else self.atom(), index)

    def argument(self) -> Quotient:
        """Parse an argument in braces, or one character: ``\\frac12``."""
        if self.at("{"):
            return self.group()
        token = self.next
        if token is not None and token.kind == "number" and token.text.isdecimal() and len(token.text) > 1:
            first, others = Token("number", token.text[0], token.spaced), Token("number", token.text[1:])
            self.tokens[self.place : self.place + 1] = [first, others]
            self.place += 1
            return constant(int(first.text))
        return self.atom()

    def symbol_of_unit(self) -> bool:
        """Whether the rest is a unit symbol after a blank (``5 m``, ``5 m^2``, ``5 m/s``, but not ``5m``), or a k."""
        token = self.tokens[self.place]
        tokens = list(takewhile(_is_within_item, self.tokens[self.place + 1 : self.place + 20]))
        tokens = [each for each in tokens if each.text not in "{}"]
        behind = "".join(each.text for each in tokens)
        if token.kind == "command" and token.text in GREEK_SYMBOLS:
            return read_unit(GREEK_SYMBOLS[token.text] + behind) is not None
        if token.kind != "letter":
            return False
        if token.text == "k" and self.currency is not None:  # $5k
            return not behind
        texts = [each.text for each in tokens if each.kind == "text"]
        if texts and token.text in CAPITALS and all(read_unit(text) is not None for text in texts):
            quoted = "".join(f'"{each.text}"' if each.kind == "text" else each.text for each in tokens)
            return _BEHIND_CAPITAL.fullmatch(quoted) is not None  # \text{N}\cdot\text{m}
        before = self.tokens[self.place - 1] if self.place else token
        if before.kind == "letter" and before.spaced and before.text in SYMBOLS:
            return False  # 5 N m as a whole is a product, or a unit where a unit is compared
        return token.spaced and token.text in SYMBOLS and _BEHIND_SYMBOL.fullmatch(behind) is not None

    def per_word(self) -> bool:
        """Whether a slash and a word follow: ``$15/hour``."""
        behind = self.tokens[self.place + 1 : self.place + 2]
        return self.at("/") and behind != [] and is_word(behind[0])

    def is_times(self) -> bool:
        """Whether an ``x`` between two numbers follows."""
        if not 0 < self.place < len(self.tokens) - 1:
            return False
        before, x, behind = self.tokens[self.place - 1 : self.place + 2]
        return x.kind == "letter" and x.text in "xX" and before.kind == behind.kind == "number"

    def degree_at(self, place: int) -> bool:
        """Whether a degree sign is at a position, or the letter used for it: ``30^o``."""
        first = self.tokens[place].text if place < len(self.tokens) else ""
        if first == "{":
            return [token.text for token in self.tokens[place + 1 : place + 3]] == ["degree", "}"]
        return first == "degree" or (first == "o" and place > 0 and self.tokens[place - 1].text == "^")


def _is_within_item(token: Token) -> bool:
    return token.kind != "comma" and not (token.kind == "word" and token.text in ("and", "or"))


def exact_number(text: str) -> Fraction:
    """Parse digits, optionally with a decimal point and a power of ten.

    Raises:
        LimitError: the number exceeds the limits.
    """
    if len(text) > MAX_DIGITS:
        raise LimitError(f"a number of {len(text)} digits; the limit is {MAX_DIGITS}")
    digits, _, exponent = text.lower().partition("e")
    if exponent and (len(exponent) > 6 or abs(int(exponent)) > MAX_EXPONENT):
        raise LimitError(f"a power of ten of {exponent[:20]}; the limit is {MAX_EXPONENT}")
    whole, _, decimals = digits.partition(".")
    value = Fraction(int(whole + decimals or "0"), 10 ** len(decimals)) if decimals else Fraction(int(whole or "0"))
    return value * Fraction(10) ** int(exponent) if exponent else value


def _integer(token: Token) -> int | None:
    return (
        int(token.text) if token.kind == "number" and token.text.isdecimal() and len(token.text) <= MAX_DIGITS else None
    )


def _fraction_of_digits(window: Sequence[Token]) -> tuple[int, tuple[Token | None, Token | None]]:
    """Numerator and denominator of ``\\frac`` at the window's second position, and the number of tokens up to its end."""
    texts = [token.text for token in window]
    if len(texts) > 2 and window[2].kind == "number" and len(texts[2]) == 2:
        return 3, (Token("number", texts[2][0]), Token("number", texts[2][1]))
    if texts[2:3] + texts[4:6] + texts[7:8] == ["{", "}", "{", "}"]:
        return 8, (window[3], window[6])
    if len(texts) > 5 and (texts[3], texts[5]) == ("{", "}") and len(texts[2]) == 1:
        return 6, (window[2], window[4])
    if len(texts) > 5 and (texts[2], texts[4]) == ("{", "}") and len(texts[5]) == 1:
        return 6, (window[3], window[5])
    return 0, (None, None)
