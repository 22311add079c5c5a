"""The grammar of final answers: a text in, a value out.

.. code-block:: text

    answer      = item { ("," | ";" | "and" | "or") item }           several items are a list
    item        = [ variable "∈" ] side { "=" side }
    side        = bracketed { "∪" bracketed } | matrix | quantity
    bracketed   = "(" items ")" | "[" items "]" | "\\{" items "\\}"   with a comma inside, or in braces; half-open ones too
    quantity    = expression [ "%" | "percent" | degrees | unit ]
    expression  = [ "+" | "-" ] term { ("+" | "-") term }
    term        = mixed | factor { [ "*" | "/" ] factor }            a missing sign is a product
    mixed       = integer integer "/" integer | integer \\frac{integer}{integer}
    factor      = atom { "^" factor | "!" }
    atom        = number | letter | "(" expression ")" | \\frac | \\sqrt | \\binom | \\pi | \\infty | currency atom
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial

from nbg_lightning.scoring.algebra import Arithmetic, Quotient, atom, constant
from nbg_lightning.scoring.characters import plain_characters
from nbg_lightning.scoring.limits import (
    MAX_ANSWER,
    MAX_DIGITS,
    MAX_ELEMENTS,
    MAX_EXPONENT,
    MAX_NESTING,
    LimitError,
    OpenError,
    UnreadableError,
)
from nbg_lightning.scoring.tokens import NAMES, Token, tokenize
from nbg_lightning.scoring.units import Unit, read_unit
from nbg_lightning.scoring.values import Collection, Equation, Number, Text, Unread, Value

_AROUND = " \t\r\n*`\"'$"  # markdown, quotes, formula signs
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
_RELATIONS = {"<", ">", "le", "ge", "ne", "equiv", "cong", "sim", "mid", "subset", "subseteq", "notin", "to"}
_CURRENCIES = {"\\$": read_unit("dollar"), "€": read_unit("euro"), "£": None, "¥": None}
_CURRENCIES |= {"₹": None, "₩": None, "¢": read_unit("cent")}
_MATRICES = {"pmatrix", "bmatrix", "vmatrix", "matrix", "array", "smallmatrix"}
_PAIRS = {"(": ")]", "[": ")]", "{": "}", "]": "["}
_MAX_FACTORIAL = 300
_GROUPS = re.compile(r"[1-9]\d{0,2}(?:,[1-9]\d\d)+")
_PUNCTUATION = re.compile(r"[^\w+/-]+")


class _PlusMinusError(OpenError):
    """The item stands for two values."""


class _RelationError(OpenError):
    """The item is an inequality, or another relation."""


@lru_cache(maxsize=4096)
def read(text: str) -> Value:
    r"""Read an answer; never raises.

    Example:
        >>> read(r"m+n = \frac{408}{2}\text{ cm}").sides[-1].rational, read("3, 1/2").elements[1].plain
        (Fraction(204, 1), '1/2')
    """
    if len(text) < 18 and text.isascii() and text.isdecimal():  # most answers
        return Number(plain=text, exact=constant(int(text)))
    if len(text) > MAX_ANSWER:
        reason = f"an answer of {len(text)} characters; the limit is {MAX_ANSWER}"
        return Unread(plain=text[:MAX_ANSWER], reason=reason, beyond=True)
    bare = plain_characters(text).strip(_AROUND).rstrip(".,;:?").strip(_AROUND)
    try:
        value = _Reader(tokenize(bare)).answer()
        if isinstance(value, Number) and _GROUPS.fullmatch(bare):
            return replace(value, groups=tuple(bare.split(",")))
        return value
    except LimitError as error:
        return Unread(plain=bare, reason=str(error), beyond=True)
    except UnreadableError as error:
        return Unread(plain=bare, reason=str(error), malformed=not isinstance(error, OpenError))


def written(tokens: Sequence[Token]) -> str:
    """Write tokens as LaTeX without layout."""
    parts: list[str] = []
    for token in tokens:
        if parts and parts[-1][0] == "\\" and parts[-1][1:].isalpha() and token.text[:1].isalpha():
            parts.append(" ")
        form = token.text
        if token.kind == "command":
            form = "\\circ" if form == "degree" else f"\\{form}"
        elif token.kind == "text":
            form = f"\\text{{{form}}}"
        elif token.kind in ("begin", "end"):
            form = f"\\{token.kind}{{{form}}}"
        elif token.kind in ("open", "close") and form in "{}":
            form = f"\\{form}"
        elif token.spaced and (
            token.kind == "word" or (token.kind == "number" and parts[-1:] and parts[-1][-1].isdecimal())
        ):
            form = f" {form}"
        elif form == "%":
            form = "\\%"
        parts.append(form)
    return "".join(parts)


def plain_words(text: str) -> str:
    """Write words without case, spaces and punctuation.

    Example:
        >>> plain_words("(P) No, thanks.")
        'p no thanks'
    """
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text.replace(".m.", "m"))
    return " ".join(_PUNCTUATION.sub(" ", text.lower()).split())


class _Reader:
    """Reads tokens by recursive descent; each method reads what its rule of the grammar describes."""

    def __init__(self, tokens: Sequence[Token]):
        self.tokens, self.place, self.level = list(tokens), 0, 0
        self.compute = Arithmetic()
        self.currency: Unit | None = None

    # -- tokens --------------------------------------------------------------------------------------------------------

    @property
    def next(self) -> Token | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def at(self, *texts: str, kind: str | None = None) -> bool:
        token = self.next
        return token is not None and token.text in texts and (kind is None or token.kind == kind)

    def take(self) -> Token:
        token = self.next
        if token is None:
            raise UnreadableError("it ends in the middle of an expression")
        self.place += 1
        return token

    def expect(self, text: str) -> None:
        if self.take().text != text:
            raise UnreadableError(f"{text!r} is missing")

    def plain(self, begin: int) -> str:
        return written(self.tokens[begin : self.place])

    def deeper(self) -> None:
        self.level += 1
        if self.level > MAX_NESTING:
            raise LimitError(f"more than {MAX_NESTING} levels of brackets")

    # -- items ---------------------------------------------------------------------------------------------------------

    def answer(self) -> Value:
        if not self.tokens:
            raise UnreadableError("it is empty")
        plain = written(self.tokens)
        if _is_prose(self.tokens):
            return Text(plain=plain, words=plain_words(plain))
        if self.at("]") and self.tokens[-1].text == "[":  # ]0, 1[ is open
            self.tokens[0], self.tokens[-1] = Token("open", "("), Token("close", ")")
        elements = self.items("")
        if self.next is not None:
            raise _unexpected(self.next)
        if len(elements) == 1:
            return elements[0]
        return Collection(plain=plain, elements=tuple(elements))

    def items(self, closing: str) -> list[Value]:
        """Read items up to the end, or to a bracket of these."""
        elements: list[Value] = []
        while self.next is not None and not (closing and self._closed(closing)):
            if self._separator():
                self.place += 1
                continue
            begin = self.place
            try:
                value = self.item()
                if not (self.next is None or self._separator() or (closing and self._closed(closing))):
                    raise _unexpected(self.next)
                elements.append(value)
            except LimitError:
                raise
            except UnreadableError as error:
                elements += self._unread(begin, closing, error)
            if len(elements) > MAX_ELEMENTS:
                raise LimitError(f"more than {MAX_ELEMENTS} elements")
        return elements

    def _closed(self, closing: str) -> bool:
        token = self.next
        return token is not None and token.kind == "close" and token.text in closing

    def _separator(self) -> bool:
        token = self.next
        return token is not None and (token.kind == "comma" or (token.kind == "word" and token.text in ("and", "or")))

    def _unread(self, begin: int, closing: str, error: UnreadableError) -> list[Value]:
        """Skip an item that is not read; one with a plus-minus sign stands for two."""
        self.place, depth = begin, 0
        while (token := self.next) is not None:
            if depth == 0 and (self._separator() or (closing and self._closed(closing))):
                break
            depth += (token.kind == "open" or token.text == "{") - (token.kind == "close" or token.text == "}")
            self.place += 1
        skipped = self.tokens[begin : self.place]
        signs = [token for token in skipped if token.text in ("pm", "mp")]
        if isinstance(error, _PlusMinusError) and 1 <= len(signs) <= 2:
            return [_Reader([_signed(token, sign) for token in skipped]).answer() for sign in "+-"]
        no_number = isinstance(error, _RelationError) or any(_is_word(token) for token in skipped)
        malformed = not isinstance(error, OpenError)
        return [Unread(plain=written(skipped), reason=str(error), malformed=malformed, no_number=no_number)]

    def item(self) -> Value:
        begin = self.place
        if self.at("=") or self.at("approx", kind="command"):
            self.place += 1
        sides = [self.side()]
        while self.at("=") or (self.at("approx", kind="command") and isinstance(sides[-1], Number)):
            approximate = self.take().text == "approx"
            side = self.side()
            if not (approximate and isinstance(sides[-1], Number) and not sides[-1].exact.symbols):
                sides.append(side)  # of a value and its approximation only the first counts
        if self.at("in", kind="command") and len(sides) == 1:
            self.place += 1
            return self.item()
        if self.next is not None and self.next.text in _RELATIONS and self.next.kind in ("sign", "command"):
            raise _RelationError(f"a relation with {self.next.text!r}")
        if len(sides) == 1:
            return sides[0]
        numbers = tuple(side for side in sides if isinstance(side, Number))
        if len(numbers) == len(sides):
            return Equation(plain=self.plain(begin), sides=numbers)
        if isinstance(sides[-1], Collection):
            return sides[-1]  # S = {1, 2}; (x, y) = (1, 2)
        raise OpenError("an equation of other things than numbers")

    def side(self) -> Value:
        begin = self.place
        first = self.bracketed()
        if first is None:
            return self.quantity()
        parts = [first]
        while self.at("cup", kind="command"):
            self.place += 1
            part = self.bracketed()
            if part is None:
                raise OpenError("a union of other things than sets")
            parts.append(part)
        if len(parts) == 1:
            return first
        return Collection(plain=self.plain(begin), elements=tuple(parts), opening="union", closing="union")

    def bracketed(self) -> Collection | None:
        """Read a tuple, interval, set or matrix; None (and nothing is read) if there is none."""
        token = self.next
        if token is None:
            return None
        begin = self.place
        if token.kind == "begin":
            return self.matrix()
        if token.kind == "command" and token.text == "emptyset":
            self.place += 1
            return Collection(plain="\\emptyset", elements=(), opening="{", closing="}")
        if token.kind != "open" or not (token.text == "{" or self._has_comma()):
            return None
        self.deeper()
        self.place += 1
        elements = self.items(_PAIRS[token.text])
        closing = self.take().text
        self.level -= 1
        return Collection(plain=self.plain(begin), elements=tuple(elements), opening=token.text, closing=closing)

    def _has_comma(self) -> bool:
        depth = 0
        for token in self.tokens[self.place :]:
            depth += (token.kind == "open") - (token.kind == "close")
            if depth == 0:
                return False
            if depth == 1 and token.kind == "comma":
                return True
        return False

    def matrix(self) -> Collection:
        begin, name = self.place, self.take().text
        if name not in _MATRICES:
            raise OpenError(f"the environment {name!r}")
        self.deeper()
        rows: list[Value] = []
        cells: list[Value] = []
        while not (self.next is not None and self.next.kind == "end"):
            if self.at("\\\\", "&"):
                if self.take().text == "\\\\" and cells:
                    rows.append(_row(cells))
                    cells = []
                continue
            cells.append(self.quantity())
            if len(rows) * max(1, len(cells)) > MAX_ELEMENTS * 4:
                raise LimitError(f"more than {MAX_ELEMENTS * 4} elements")
        self.place += 1
        self.level -= 1
        if cells:
            rows.append(_row(cells))
        return Collection(plain=self.plain(begin), elements=tuple(rows), opening="matrix", closing="matrix")

    # -- quantities ----------------------------------------------------------------------------------------------------

    def quantity(self) -> Number:
        begin, self.currency = self.place, None
        exact = self.expression()
        base = self._base(begin)
        percent, unit = False, None
        ratio = self.at(":", kind="sign")
        if ratio:
            self.place += 1
            exact = self.compute.divide(exact, self.expression())
        if self.at("%") or self.at("percent", kind="word") or self.at("percent", kind="text"):
            self.place += 1
            percent = True
        else:
            unit = self._unit() or self.currency
        return Number(plain=self.plain(begin), exact=exact, percent=percent, unit=unit, base=base)

    def _base(self, begin: int) -> int | None:
        """Read the index of a numeral: ``2516_8``, ``1101_{2}``."""
        if not self.at("_"):
            return None
        if self.place != begin + 1 and not (self.place == begin + 2 and self.tokens[begin].text == "-"):
            raise UnreadableError("an index")
        self.place += 1
        value = (self.group() if self.at("{") else self.number()).rational
        if value is None or value.denominator != 1 or not 2 <= value <= 36:
            raise UnreadableError("an index that is no base")
        return value.numerator

    def _unit(self) -> Unit | None:
        """Read degrees, or words behind a number up to the end of the item; None if they are no unit of measure."""
        if self.at("^") and self._degree_at(self.place + 1):
            self.place += 1
        if self._degree_at(self.place):
            self.place += 3 if self.at("{") else 1
            letters = self.next is not None and self.next.text in ("C", "F")
            self.place += letters
            return None if letters else read_unit("degree")
        if self.next is None or not (self.next.kind in ("word", "text") or self._symbol_of_unit()):
            return None
        parts: list[str] = []
        while (token := self.next) is not None and not self._separator():
            behind = parts and parts[-1] in ("^", "{")
            if not (
                token.kind in ("word", "text", "letter")
                or token.text in "^/{}.-'"
                or (token.kind == "number" and behind)
            ):
                break
            if token.kind == "number" and len(token.text) > 2:
                break
            parts.append(f" {token.text}" if token.spaced else token.text)
            self.place += 1
        return read_unit("".join(parts))

    def _symbol_of_unit(self) -> bool:
        """Whether what is left is one letter of a unit behind a blank: ``5 m``, but not ``5m``."""
        token = self.tokens[self.place]
        return token.kind == "letter" and token.spaced and token.text in "mgshL" and self.place + 1 == len(self.tokens)

    def _degree_at(self, place: int) -> bool:
        texts = [token.text for token in self.tokens[place : place + 3]]
        return texts[:1] == ["degree"] or texts == ["{", "degree", "}"]

    # -- expressions ---------------------------------------------------------------------------------------------------

    def expression(self) -> Quotient:
        self.deeper()
        total = self.signed_term()
        while self.at("+", "-"):
            total = self.compute.add(total, self.signed_term())
        if self.at("pm", "mp", kind="command"):
            raise _PlusMinusError("a plus-minus sign")
        self.level -= 1
        return total

    def signed_term(self) -> Quotient:
        negative = False
        while self.at("+", "-"):
            negative ^= self.take().text == "-"
        if self.at("pm", "mp", kind="command"):
            raise _PlusMinusError("a plus-minus sign")
        term = self.term()
        return self.compute.negate(term) if negative else term

    def term(self) -> Quotient:
        mixed = self.mixed()
        if mixed is not None:
            return mixed
        product = self.factor()
        divided = False
        while True:
            if self.at("*"):
                self.place += 1
                product = self.compute.multiply(product, self.signed_factor())
                divided = False
            elif self.at("/"):
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
            return False  # two numbers side by side are no product
        if token.kind == "letter":
            return not self._symbol_of_unit()
        if token.kind == "word":
            return token.text in ("pi", "sqrt")
        if token.kind == "command":
            return token.text in _COMMANDS or token.text in _GREEK
        return (token.kind == "open" and token.text != "{") or token.text == "{"

    def signed_factor(self) -> Quotient:
        if self.at("-"):
            self.place += 1
            return self.compute.negate(self.factor())
        return self.factor()

    def mixed(self) -> Quotient | None:
        """Read ``3 1/2`` or ``3\\frac{1}{2}``; None (and nothing is read) if there is none."""
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
            if self.at("^") and not self._degree_at(self.place + 1):
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
        if token.text in _CURRENCIES:
            self.place += 1
            self.currency = _CURRENCIES[token.text]
            if self.at("-"):
                self.place += 1
                return self.compute.negate(self.atom())
            return self.atom()
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
        raise _unexpected(token)

    def number(self) -> Quotient:
        token = self.take()
        if token.kind != "number":
            raise _unexpected(token)
        value = exact_number(token.text)
        if "." in token.text and self.at("overline", kind="command"):
            self.place += 1
            self.expect("{")
            period = self.take().text
            self.expect("}")
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
            n, k = self.argument().rational, self.argument().rational
            if n is None or k is None or n.denominator * k.denominator != 1 or not 0 <= k <= n <= _MAX_FACTORIAL:
                raise OpenError("a binomial coefficient that is not computed")
            return constant(comb(n.numerator, k.numerator))
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
        """Read what stands in braces, or one character: ``\\frac12``."""
        if self.at("{"):
            return self.group()
        token = self.next
        if token is not None and token.kind == "number" and token.text.isdecimal() and len(token.text) > 1:
            self.tokens[self.place] = Token("number", token.text[1:])
            return constant(int(token.text[0]))
        return self.atom()


_COMMANDS = {"pi", "infty", "frac", "binom", "sqrt"}


def exact_number(text: str) -> Fraction:
    """Read digits, with a decimal point and a power of ten or without.

    Raises:
        LimitError: it is longer or larger than the limits allow.
    """
    if len(text) > MAX_DIGITS:
        raise LimitError(f"a number of {len(text)} digits; the limit is {MAX_DIGITS}")
    digits, _, exponent = text.lower().partition("e")
    if exponent and (len(exponent) > 6 or abs(int(exponent)) > MAX_EXPONENT):
        raise LimitError(f"a power of ten of {exponent[:20]}; the limit is {MAX_EXPONENT}")
    whole, _, decimals = digits.partition(".")
    value = Fraction(int(whole + decimals or "0"), 10 ** len(decimals))
    return value * Fraction(10) ** int(exponent) if exponent else value


def _unexpected(token: Token) -> UnreadableError:
    """What is wrong where a token does not fit: functions and bars are mathematics, other things are not."""
    known = token.kind in ("command", "begin") or token.text in NAMES or token.text in ("|", "'")
    return (OpenError if known else UnreadableError)(f"unexpected {token.text[:20]!r}")


def _integer(token: Token) -> int | None:
    return (
        int(token.text) if token.kind == "number" and token.text.isdecimal() and len(token.text) <= MAX_DIGITS else None
    )


def _fraction_of_digits(window: Sequence[Token]) -> tuple[int, tuple[Token | None, Token | None]]:
    """Numerator and denominator of ``\\frac`` at the window's second place, and the tokens up to its end."""
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


def _row(cells: Sequence[Value]) -> Collection:
    return Collection(plain="&".join(cell.plain for cell in cells), elements=tuple(cells), opening="row", closing="row")


def _signed(token: Token, sign: str) -> Token:
    if token.text == "pm":
        return Token("sign", sign)
    return Token("sign", "-" if sign == "+" else "+") if token.text == "mp" else token


def _is_word(token: Token) -> bool:
    return token.kind == "text" or (token.kind == "word" and token.text not in NAMES)


def _is_prose(tokens: Sequence[Token]) -> bool:
    """Whether an answer begins with words and has no signs of mathematics."""
    if not any(map(_is_word, tokens)):
        return False
    first = next((token for token in tokens if token.kind not in ("open", "close")), None)
    if (
        first is None
        or not (_is_word(first) or first.kind == "letter")
        or (first.kind == "letter" and not _is_word(tokens[1]))
    ):
        return False
    signs = {".", "-", "'", '"', "!", "?", ":", "&", "/"}
    kinds = ("command", "begin", "end")
    return all(token.kind not in kinds and (token.kind != "sign" or token.text in signs) for token in tokens)
