"""The grammar of final answers: parses a text to a value.

.. code-block:: text

    answer      = item { ("," | ";" | "and" | "or") item }           several items are a list
    item        = [ variable "∈" ] side { "=" side }
    side        = bracketed { "∪" bracketed } | matrix | quantity
    bracketed   = "(" items ")" | "[" items "]" | "\\{" items "\\}"   with a comma inside, or in braces; half-open ones too
    quantity    = see `nbg_lightning.scoring.mathematics.quantities`
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from nbg_lightning.scoring.characters import plain_characters
from nbg_lightning.scoring.mathematics.algebra import QuotientArithmetic, atom, constant
from nbg_lightning.scoring.mathematics.cursor import is_word, plain_words, unexpected, written
from nbg_lightning.scoring.mathematics.expressions import PlusMinusError, exact_number
from nbg_lightning.scoring.mathematics.limits import MAX_ANSWER, MAX_ELEMENTS, LimitError, OpenError, UnreadableError
from nbg_lightning.scoring.mathematics.quantities import QuantityReader
from nbg_lightning.scoring.mathematics.tokens import Token, tokenize
from nbg_lightning.scoring.mathematics.values import Collection, Equation, Number, Text, Unread, Value

_AROUND = " \t\r\n*`\"'$"  # Markdown, quotes, formula delimiters
_RELATIONS = {"<", ">", "le", "ge", "ne", "equiv", "cong", "sim", "mid", "subset", "subseteq", "notin", "to"}
_MATRICES = {"pmatrix", "bmatrix", "Bmatrix", "matrix", "array", "smallmatrix"}  # a vmatrix is a determinant
_PAIRS = {"(": ")]", "[": ")]", "{": "}", "]": "["}
_ENDING = re.compile(r"(?:\\[,;:!> ]|\\$|[.,;:?\s])+\Z")  # punctuation and LaTeX spaces
_ORDER = {"<": (True, False), "le": (True, True), ">": (False, False), "ge": (False, True)}  # ascending, inclusive
_CLOSINGS = {"[": "]", "(": ")"}
_NUMERAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_GROUPS = re.compile(r"[1-9]\d{0,2}(?:,[1-9]\d\d)+")


class _RelationError(OpenError):
    """The item is an inequality, or another relation."""


@lru_cache(maxsize=4096)
def read(text: str) -> Value:
    r"""Parse an answer; never raises.

    Example:
        >>> read(r"m+n = \frac{408}{2}\text{ cm}").sides[-1].rational, read("3, 1/2").elements[1].plain
        (Fraction(204, 1), '1/2')
    """
    if len(text) < 18 and _NUMERAL.fullmatch(text):  # most answers; same result as the grammar
        return Number(plain=text, exact=constant(exact_number(text)))
    if len(text) > MAX_ANSWER:
        reason = f"an answer of {len(text)} characters; the limit is {MAX_ANSWER}"
        return Unread(plain=text[:MAX_ANSWER], reason=reason, beyond=True)
    bare = _ENDING.sub("", plain_characters(text).strip(_AROUND)).strip(_AROUND)
    try:
        value = _AnswerReader(tokenize(bare)).answer()
        if isinstance(value, Number) and _GROUPS.fullmatch(bare):
            return replace(value, groups=tuple(bare.split(",")))
        return value
    except LimitError as error:
        return Unread(plain=bare, reason=str(error), beyond=True)
    except UnreadableError as error:
        return Unread(plain=bare, reason=str(error), malformed=not isinstance(error, OpenError))


class _AnswerReader(QuantityReader):
    """Parses complete answers: items, their sides, and brackets."""

    def answer(self) -> Value:
        if not self.tokens:
            raise UnreadableError("it is empty")
        plain = written(self.tokens)
        if _is_prose(self.tokens):
            return Text(plain=plain, words=plain_words(plain))
        self.tokens = _with_round_brackets(self.tokens)
        elements = self.items("")
        if self.next is not None:
            raise unexpected(self.next)
        if len(elements) == 1:
            return elements[0]
        return Collection(plain=plain, elements=tuple(elements))

    def items(self, closing: str) -> list[Value]:
        """Parse items up to the end, or to one of these closing brackets."""
        elements: list[Value] = []
        while self.next is not None and not (closing and self._closed(closing)):
            if self.separator():
                self.place += 1
                continue
            begin, level = self.place, self.level
            try:
                value = self.item()
                if not (self.next is None or self.separator() or (closing and self._closed(closing))):
                    raise unexpected(self.next)
                elements.append(value)
            except LimitError:
                raise
            except UnreadableError as error:
                self.level = level
                elements += self._unread(begin, closing, error)
            if len(elements) > MAX_ELEMENTS:
                raise LimitError(f"more than {MAX_ELEMENTS} elements")
        return elements

    def _closed(self, closing: str) -> bool:
        token = self.next
        return token is not None and token.kind == "close" and token.text in closing

    def _unread(self, begin: int, closing: str, error: UnreadableError) -> list[Value]:
        """Skip an unreadable item; one with a plus-minus sign stands for two."""
        self.place, depth = begin, 0
        while (token := self.next) is not None:
            if depth == 0 and (self.separator() or (closing and self._closed(closing))):
                break
            depth += (token.kind == "open" or token.text == "{") - (token.kind == "close" or token.text == "}")
            self.place += 1
        skipped = self.tokens[begin : self.place]
        signs = [token for token in skipped if token.text in ("pm", "mp")]
        if isinstance(error, PlusMinusError) and 1 <= len(signs) <= 2:
            return [_AnswerReader([_signed(token, sign) for token in skipped]).answer() for sign in "+-"]
        malformed = not isinstance(error, OpenError)
        if malformed and len(skipped) == len(self.tokens) and (last := _last_side(skipped)) is not None:
            return [last]
        no_number = isinstance(error, _RelationError) or any(is_word(token) for token in skipped)
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
            return self.inequality(begin, sides)
        if len(sides) == 1:
            return sides[0]
        numbers = tuple(side for side in sides if isinstance(side, Number))
        if len(numbers) == len(sides):
            return Equation(plain=self.plain(begin), sides=numbers)
        if isinstance(sides[-1], Collection):
            return sides[-1]  # S = {1, 2}; (x, y) = (1, 2)
        raise OpenError("an equation of other things than numbers")

    def inequality(self, begin: int, sides: list[Value]) -> Collection:
        """Parse what follows the first side: ``2 < x \\le 5`` is the interval ``(2, 5]``, other relations are left undecided."""
        signs = []
        while self.next is not None and self.next.text in _ORDER:
            signs.append(_ORDER[self.take().text])
            sides.append(self.side())
        if self.next is not None and self.next.text in _RELATIONS:
            raise _RelationError(f"a relation with {self.next.text!r}")
        if len({upward for upward, _ in signs}) == 1 and (interval := _interval(sides, signs)) is not None:
            return replace(interval, plain=self.plain(begin))
        raise _RelationError("an inequality that is no interval of one variable")

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
        """Parse a tuple, interval, set or matrix; None (without consuming anything) if there is none."""
        token = self.next
        if token is None:
            return None
        begin = self.place
        if token.kind == "begin":
            return self.matrix()
        if token.kind == "open" and self.tokens[begin + 1 : begin + 2] and self.tokens[begin + 1].kind == "begin":
            self.place += 1  # \left( \begin{array} ... \end{array} \right)
            matrix = self.matrix()
            if self.take().text not in _PAIRS[token.text]:
                raise UnreadableError("brackets that do not match")
            return matrix
        if token.kind == "command" and token.text == "emptyset":
            self.place += 1
            return Collection(plain="\\emptyset", elements=(), opening="{", closing="}")
        if token.kind == "command" and token.text == "reals":
            self.place += 1
            return _all_reals()
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


def _with_round_brackets(tokens: list[Token]) -> list[Token]:
    """Rewrite ``]0, 1[`` and ``[0, 1[`` as ``(0, 1)`` and ``[0, 1)``, if the whole answer is such an interval."""
    first = next((place for place, token in enumerate(tokens) if token.text in ("[", "]", "(")), None)
    if first is None or first == len(tokens) - 1:
        return tokens
    begin, end = tokens[first], tokens[-1]
    if end.text not in ("[", "]", ")") or any(token.text in ("[", "]") for token in tokens[first + 1 : -1]):
        return tokens
    begin = Token("open", "(") if begin.text == "]" else begin
    end = Token("close", ")") if end.text == "[" else end
    return [*tokens[:first], begin, *tokens[first + 1 : -1], end]


def _interval(sides: Sequence[Value], signs: Sequence[tuple[bool, bool]]) -> Collection | None:
    """The interval of a variable between constants; None if the sides are anything else."""
    if not all(isinstance(side, Number) and side.unit is None and not side.percent for side in sides):
        return None
    if not signs[0][0]:  # 5 > x is x < 5
        sides, signs = sides[::-1], signs[::-1]
    lone = [isinstance(side, Number) and _is_variable(side) for side in sides]
    constant_sides = [isinstance(side, Number) and not side.exact.symbols - {"infinity"} for side in sides]
    closed = ["[" if including else "(" for _, including in signs]
    infinity = atom("infinity")
    if lone == [True, False] and constant_sides[1]:
        low: Value = Number(plain="-\\infty", exact=QuotientArithmetic().negate(infinity))
        return Collection(plain="", elements=(low, sides[1]), opening="(", closing=_CLOSINGS[closed[0]])
    if lone == [False, True] and constant_sides[0]:
        high = Number(plain="\\infty", exact=infinity)
        return Collection(plain="", elements=(sides[0], high), opening=closed[0], closing=")")
    if lone == [False, True, False] and constant_sides[0] and constant_sides[2]:
        return Collection(plain="", elements=(sides[0], sides[2]), opening=closed[0], closing=_CLOSINGS[closed[1]])
    return None


def _all_reals() -> Collection:
    infinity = atom("infinity")
    low = Number(plain="-\\infty", exact=QuotientArithmetic().negate(infinity))
    high = Number(plain="\\infty", exact=infinity)
    return Collection(plain="(-\\infty,\\infty)", elements=(low, high), opening="(", closing=")")


def _is_variable(side: Number) -> bool:
    """Whether a side is a single letter."""
    return (
        side.exact.opaque is False
        and len(side.exact.symbols - {"infinity"}) == 1
        and side.exact.key == atom(side.plain).key
    )


def _row(cells: Sequence[Value]) -> Collection:
    return Collection(plain="&".join(cell.plain for cell in cells), elements=tuple(cells), opening="row", closing="row")


def _signed(token: Token, sign: str) -> Token:
    if token.text == "pm":
        return Token("sign", sign)
    return Token("sign", "-" if sign == "+" else "+") if token.text == "mp" else token


def _last_side(tokens: Sequence[Token]) -> Number | None:
    """The number after the last equals sign, if the text before it is unreadable: ``360° - 324° = 36°``."""
    begin = (
        max((place for place, token in enumerate(tokens) if token.text == "=" and token.kind == "sign"), default=-1) + 1
    )
    relations = any(token.text in _RELATIONS and token.kind in ("sign", "command") for token in tokens)
    if not 1 < begin < len(tokens) or relations:
        return None
    try:
        value = _AnswerReader(list(tokens[begin:])).answer()
    except UnreadableError:
        return None
    return value if isinstance(value, Number) else None


def _is_prose(tokens: Sequence[Token]) -> bool:
    """Whether an answer begins with words and contains no mathematical signs."""
    if not any(map(is_word, tokens)):
        return False
    first = next((token for token in tokens if token.kind not in ("open", "close")), None)
    if (
        first is None
        or not (is_word(first) or first.kind == "letter")
        or (first.kind == "letter" and not is_word(tokens[1]))
    ):
        return False
    signs = {".", "-", "'", '"', "!", "?", ":", "&", "/"}
    kinds = ("command", "begin", "end")
    return all(token.kind not in kinds and (token.kind != "sign" or token.text in signs) for token in tokens)
