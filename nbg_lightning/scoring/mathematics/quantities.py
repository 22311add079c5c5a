"""Quantities: an expression followed by a percent sign, a unit of measure or the base of a numeral.

.. code-block:: text

    quantity    = expression [ "%" | "percent" | degrees | unit ]
"""

from __future__ import annotations

from nbg_lightning.scoring.mathematics.algebra import constant
from nbg_lightning.scoring.mathematics.expressions import CURRENCIES, ExpressionReader
from nbg_lightning.scoring.mathematics.limits import UnreadableError
from nbg_lightning.scoring.mathematics.units import GREEK_SYMBOLS, Unit, read_unit, scale_of
from nbg_lightning.scoring.mathematics.values import Number


class QuantityReader(ExpressionReader):
    """Parses quantities."""

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
            scale, unit = self._words()
            exact = exact if scale == 1 else self.compute.multiply(exact, constant(scale))
            if self.currency is not None and (unit is None or unit.dimension.startswith("/")):  # $15 per hour
                unit = self.currency
        return Number(plain=self.plain(begin), exact=exact, percent=percent, unit=unit, base=base)

    def _base(self, begin: int) -> int | None:
        """Parse the index of a numeral: ``2516_8``, ``1101_{2}``."""
        if not self.at("_"):
            return None
        numeral = "".join(token.text for token in self.tokens[begin : self.place]).removeprefix("-")
        if not numeral.removeprefix("(").removesuffix(")").isalnum():
            raise UnreadableError("an index")
        self.place += 1
        value = (self.group() if self.at("{") else self.number()).rational
        if value is None or value.denominator != 1 or not 2 <= value <= 36:
            raise UnreadableError("an index that is no base")
        return value.numerator

    def _words(self) -> tuple[int, Unit | None]:
        """Parse degrees, or words after a number up to the end of the item: returns its scale, and its unit or None."""
        if self.at("^") and self.degree_at(self.place + 1):
            self.place += 1
        if self.degree_at(self.place):
            self.place += 3 if self.at("{") else 1
            scale = self.take().text if self.at("C", "F") else ""
            return 1, read_unit(f"°{scale}")
        if self.next is not None and self.next.text in CURRENCIES:
            return 1, CURRENCIES[self.take().text]
        if self.next is not None and (unit := self._fraction_of_words()) is not None:
            return 1, read_unit(unit)
        if self.next is None or not (self.next.kind in ("word", "text") or self.symbol_of_unit() or self.per_word()):
            return 1, None
        parts: list[str] = []
        while (token := self.next) is not None and not self.separator():
            behind = bool(parts) and (parts[-1] in ("^", "{") or "".join(parts[-3:]).endswith(("^-", "^{-")))
            if not (
                token.kind in ("word", "text", "letter")
                or (token.kind == "sign" and token.text in "^/{}.-'")
                or (token.kind == "command" and token.text in GREEK_SYMBOLS)
                or (token.kind == "number" and behind)
                or (token.text == "*" and self.factor_of_unit_behind())
            ):
                break
            if token.kind == "number" and len(token.text) > 2:
                break
            text = " " if token.text == "*" else GREEK_SYMBOLS.get(token.text, token.text)
            parts.append(f" {text}" if token.spaced and parts[-1:] not in (["u"], [" u"]) else text)
            self.place += 1
        return scale_of("".join(parts))

    def factor_of_unit_behind(self) -> bool:
        r"""Whether the token after the next one may be a unit: in ``km \cdot h^{-1}``, but not in ``5 km * 3``."""
        behind = self.tokens[self.place + 1 : self.place + 2]
        return behind != [] and behind[0].kind in ("word", "text", "letter") and read_unit(behind[0].text) is not None

    def _fraction_of_words(self) -> str | None:
        """Parse ``\\frac{\\text{km}}{\\text{h}}`` as ``km/h``; None (without consuming anything) if there is none."""
        if not self.at("frac"):
            return None
        parts: list[str] = []
        place = self.place + 1
        for _ in range(2):
            end = next((end for end in range(place, len(self.tokens)) if self.tokens[end].text == "}"), place)
            inside = self.tokens[place + 1 : end]
            if self.tokens[place : place + 1] == [] or self.tokens[place].text != "{" or not inside:
                return None
            one = not parts and [token.text for token in inside] == ["1"]
            rest = inside[1:]
            if not (
                one or (inside[0].kind == "text" and all(each.kind == "number" or each.text == "^" for each in rest))
            ):
                return None
            parts.append("" if one else "".join(token.text for token in inside))
            place = end + 1
        self.place = place
        return "/".join(parts)

    def separator(self) -> bool:
        token = self.next
        if token is None or token.kind == "comma":
            return token is not None
        return (token.kind == "word" and token.text in ("and", "or")) or (token.kind == "sign" and token.text == "&")
