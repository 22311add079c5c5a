"""Tokenization of an answer: numbers, letters, LaTeX commands, texts and signs, without layout."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from nbg_lightning.scoring.mathematics.limits import MAX_ANSWER, MAX_ELEMENTS, MAX_NESTING, LimitError, UnreadableError
from nbg_lightning.scoring.mathematics.units import POWERS, is_unit, read_unit, read_upright

TokenKind = Literal["number", "letter", "word", "command", "text", "sign", "open", "close", "comma", "begin", "end"]


class Token(NamedTuple):
    """A token.

    Attributes:
        kind: a ``letter`` is one letter of a variable, a ``word`` has several, a ``text`` is in ``\\text{}``; ``open`` and
            ``close`` are brackets of collections.
        text: text without layout.
        spaced: whether it follows a blank.
    """

    kind: TokenKind
    text: str
    spaced: bool = False


_LAYOUT = {
    *(
        "left",
        "right",
        "big",
        "Big",
        "bigg",
        "Bigg",
        "bigl",
        "bigr",
        "Bigl",
        "Bigr",
        "biggl",
        "biggr",
        "Biggl",
        "Biggr",
    ),
    *(
        "displaystyle",
        "textstyle",
        "limits",
        "quad",
        "qquad",
        "thinspace",
        "enspace",
        "hfill",
        "hline",
        "middle",
        "rm",
        "bf",
        "it",
    ),
    *("tiny", "scriptsize", "footnotesize", "small", "normalsize", "large", "Large", "LARGE", "huge", "Huge"),
}
_SWITCHES = ("rm", "bf", "it")  # {\rm km}, and \rm{km}
_SPLICED = {
    "mathbf",
    "mathit",
    "boldsymbol",
    "bm",
    "underline",
    "boxed",
    "fbox",
    "emph",
    "ensuremath",
    "mathbb",
    "mathsf",
    "mathnormal",
    "mathtt",
    "textcolor",
    "colorbox",
    "color",
}
_TEXTS = {
    "text",
    "textbf",
    "textit",
    "textrm",
    "textsf",
    "texttt",
    "textnormal",
    "mbox",
    "hbox",
    "mathrm",
    "operatorname",
}
_SAME = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "nicefrac", "sfrac", "xfrac"), "frac"),
    **dict.fromkeys(("bar", "dot"), "overline"),
    **dict.fromkeys(("leq", "leqslant"), "le"),
    **dict.fromkeys(("geq", "geqslant"), "ge"),
    **dict.fromkeys(("neq",), "ne"),
    **dict.fromkeys(("varnothing",), "emptyset"),
    **dict.fromkeys(("bigcup",), "cup"),
    **dict.fromkeys(("R", "Reals"), "reals"),
    **dict.fromkeys(("dbinom", "tbinom"), "binom"),
    **dict.fromkeys(("circ", "degree", "degrees"), "degree"),
}
NAMES = {
    *(
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "ln",
        "exp",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
    ),
    *(
        "max",
        "min",
        "gcd",
        "lcm",
        "mod",
        "abs",
        "floor",
        "ceil",
        "factorial",
        "binomial",
        "sqrt",
        "pi",
        "inf",
        "infinity",
    ),
    *("and", "or", "percent"),
}
"""Words with a mathematical meaning even directly after a number."""

CODES = {"USD": "dollar", "EUR": "euro", "GBP": "sterling", "Rs": "rupee", "US": "dollar"}
"""Names of currencies before an amount; ``US`` only before a dollar sign."""

_SIGNS = {"times": "*", "cdot": "*", "ast": "*", "div": "/", "lt": "<", "gt": ">", "colon": ":"}

_SPACE = r"(?:\s|~|\\[,;:> ])"
_GROUPED = rf"\d{{1,3}}(?:(?:,|\{{,\}}|,{_SPACE}{{0,2}}\\!{_SPACE}{{0,2}})\d{{3}})++(?!,?\d)(?:\.\d++)?"
_SPACED = rf"\d{{1,3}}(?:(?: |~|\\[,;: ])\d{{3}})++(?:\.\d++)?(?!{_SPACE}?[\d/,.])"
_NUMBER = re.compile(
    r"(?:\d++(?:\.\d*+)?|\.\d++|\.(?=\\(?:overline|bar|dot)\b))(?:[eE][-+]?\d++(?![A-Za-z\d]))?", re.ASCII
)
_TOKEN = re.compile(
    rf"(?P<space>(?:\s|~|\\[,;:!> ]|\\[hv]space\{{[^{{}}]{{0,20}}\}})+)"
    rf"|(?P<grouped>{_GROUPED}|{_SPACED})"
    rf"|(?P<number>{_NUMBER.pattern})"
    r"|\\(?P<command>[A-Za-z]+|\\|[{}$%&_|#])"
    r"|(?P<letters>[AaPp]\.[Mm]\b\.?|[A-Za-z]+)"
    r"|(?P<sign>\*\*|<=|>=|!=|==|.)",
    re.DOTALL | re.ASCII,
)
_READ_WITHIN = re.compile(r"[\d,;()\\=$%]|^\s*[A-Z]\s*$|^\s*,?\s*(?:and|or)\b")  # in \text{}: more than words
_LINE_SKIP = re.compile(r"\*?\s?\[-?[\d.]{1,8}\s?(?:pt|ex|em|mm|cm|in)\]")  # after the end of a row: ``\\\\[2pt]``
_COLOUR = re.compile(r"\s?(?:\[\w{1,10}\])?\{[^{}]{0,40}\}")
_REALS = re.compile(r"R(?![A-Za-z])")
_SWITCH = re.compile(r"\\(?:rm|bf|it)(?![A-Za-z])\s?")
_MONEY = re.compile(r"\s?\\?\$")
_SIGN_WORDS = ("minus", "negative")
_ENVIRONMENT = re.compile(r"\s?\{([A-Za-z]{1,20}\*?)\}(?:\{[clr|\s]{0,40}\})?")
_SIGN_KINDS: dict[str, TokenKind] = {",": "comma", ";": "comma", "(": "open", "[": "open", ")": "close", "]": "close"}
_BRACKETS = {
    "{": "{",
    "lbrace": "{",
    "}": "}",
    "rbrace": "}",
    "langle": "(",
    "rangle": ")",
    "lbrack": "[",
    "rbrack": "]",
}
_CONSTANTS = ("e", "i")  # possibly written upright
_SIGN_FORMS = {"**": "^", "==": "=", "<=": "le", ">=": "ge", "!=": "ne"}


def tokenize(text: str) -> list[Token]:
    """Split an answer (from `plain_characters`) into tokens.

    Raises:
        LimitError: it exceeds the limits.
        UnreadableError: a command is not closed.
    """
    if len(text) > MAX_ANSWER:
        raise LimitError(f"an answer of {len(text)} characters; the limit is {MAX_ANSWER}")
    tokens = _Tokenizer(text).tokens
    if sum(token.kind == "comma" for token in tokens) > 4 * MAX_ELEMENTS:
        raise LimitError(f"more than {4 * MAX_ELEMENTS} elements")
    return tokens


class _Tokenizer:
    def __init__(self, text: str, level: int = 0):
        if level > MAX_NESTING:
            raise LimitError(f"more than {MAX_NESTING} levels of commands")
        self.text, self.level = text, level
        self.tokens: list[Token] = []
        self.spaced, self.depth = False, 0
        place = 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            assert match is not None, "its last alternative takes any character"
            place = self._step(match)
            self.spaced = match.lastgroup == "space"

    def _step(self, match: re.Match[str]) -> int:
        """Add the token of a match; returns the start of the next one."""
        kind, found = match.lastgroup, match.group()
        if kind == "command":
            return self._command(match)
        if kind == "grouped":
            groups = re.findall(r"[\d.]+", found)
            if self.depth and "{" not in found and "\\" not in found and all(each[0] != "0" for each in groups[1:]):
                number = _NUMBER.match(self.text, match.start())  # (0,100) is a pair
                assert number is not None
                self._put("number", number.group())
                return number.end()
            self._put("number", "".join(groups))
        elif kind == "number":
            self._put("number", found)
        elif kind == "letters":
            self._letters(found, match.end())
        elif found == "{" and (switch := _SWITCH.match(self.text, match.end())) is not None:
            return self._upright("text", switch.end(), self._closing(match.start()))
        elif kind == "sign" and found != "$":
            form = _SIGN_KINDS.get(found, "sign")
            self.depth += (form == "open") - (form == "close")
            self._put("command" if found in ("<=", ">=", "!=") else form, _SIGN_FORMS.get(found, found))
        return match.end()

    def _opens_an_item(self) -> bool:
        return not self.tokens or self.tokens[-1].kind in ("comma", "open") or self.tokens[-1].text == "="

    def _letters(self, found: str, place: int) -> None:
        """Add letters as a word, or as a product of variables: ``3 apples``, ``3cm``, ``Evelyn``, but ``3xy``.

        Args:
            found: the letters.
            place: position after the letters.
        """
        alone = self.spaced or not self.tokens or self.tokens[-1].kind in ("comma", "open")
        if alone and found.lower() in _SIGN_WORDS and self._opens_an_item():
            self._put("sign", "-")  # from "minus 5"; "5 minus x" has no value
            return
        code = found in CODES and (found != "US" or _MONEY.match(self.text, place) is not None)
        measure = (is_unit(found, self.spaced) or found.lower() in POWERS) and bool(self.tokens)
        known = found in NAMES or code or measure or "." in found
        if known or (len(found) > 3 and alone) or (len(found) == 3 and self.spaced and found.islower()):
            self._put("word", found)
        else:
            for letter in found:
                self._put("letter", letter)
                self.spaced = False

    def _command(self, match: re.Match[str]) -> int:
        name, end = match.group("command"), match.end()
        if name in ("begin", "end"):
            environment = _ENVIRONMENT.match(self.text, end)
            if environment is None:
                raise UnreadableError(f"\\{name} of nothing")
            self._put("begin" if name == "begin" else "end", environment.group(1))
            return environment.end()
        if name in ("color", "textcolor", "colorbox"):
            colour = _COLOUR.match(self.text, end)
            end = end if colour is None else colour.end()
        if name in _TEXTS or name in _SPLICED or (name in _SWITCHES and self.text.startswith("{", end)):
            return self._argument("text" if name in _SWITCHES else name, end)
        if name in _LAYOUT:
            return end + self.text.startswith(".", end) if name in ("left", "right") else end
        if name in _BRACKETS:
            kind = _SIGN_KINDS.get(_BRACKETS[name], "open" if _BRACKETS[name] == "{" else "close")
            self.depth += 1 if kind == "open" else -1
            self._put(kind, _BRACKETS[name])
        elif name == "dollar":
            self._put("sign", "\\$")
        elif (len(name) == 1 and name not in _SAME) or name in _SIGNS:
            self._put("sign", {"$": "\\$", "\\": "\\\\"}.get(name, _SIGNS.get(name, name)))
            skip = _LINE_SKIP.match(self.text, end) if name == "\\" else None
            return end if skip is None else skip.end()
        else:
            self._put("command", _SAME.get(name, name))
        return end

    def _argument(self, name: str, end: int) -> int:
        """Consume ``{...}`` after a text command: as one text, or as tokens if it contains more than words."""
        begin = end
        while begin < len(self.text) and self.text[begin] == " ":
            begin += 1
        if name == "mathbb" and _REALS.match(self.text, begin):
            self._put("command", "reals")
            return begin + 1
        if begin == len(self.text) or self.text[begin] != "{":
            return end
        return self._upright(name, begin + 1, self._closing(begin))

    def _upright(self, name: str, begin: int, close: int) -> int:
        """Add the text between two positions in the command ``name``; returns the position after its closing brace."""
        content = self.text[begin:close]
        words = " ".join(content.replace("~", " ").split())
        if name == "mathbb" and words == "R":
            self._put("command", "reals")
            return close + 1
        if name in _TEXTS and words in _CONSTANTS:
            self._put("letter", words)
        elif (
            name in _TEXTS
            and len(words) == 1
            and self.tokens[-1:]
            and self.tokens[-1].kind == "number"
            and read_unit(words)
        ):
            self._put("text", words)  # 5\text{ C}, and not the choice C
        elif name in _TEXTS and not _READ_WITHIN.search(content):
            if words:
                self._put("text", words)
        elif name in _TEXTS and (unit := read_upright(content)) is not None:
            self._put("text", unit)
        else:
            inner = _Tokenizer(content, self.level + 1).tokens
            self.tokens += [inner[0]._replace(spaced=inner[0].spaced or self.spaced), *inner[1:]] if inner else []
        return close + 1

    def _closing(self, begin: int) -> int:
        depth = 0
        for place in range(begin, len(self.text)):
            depth += {"{": 1, "}": -1}.get(self.text[place], 0)
            if depth == 0:
                return place
        raise UnreadableError("a command without its closing brace")

    def _put(self, kind: TokenKind, text: str) -> None:
        self.tokens.append(Token(kind, text, self.spaced))
