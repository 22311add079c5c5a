"""A cursor over the tokens of an answer, and the conversion of tokens to text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nbg_lightning.scoring.mathematics.limits import MAX_NESTING, LimitError, OpenError, UnreadableError
from nbg_lightning.scoring.mathematics.tokens import CODES, NAMES, Token

_WRITTEN = {"degree": "\\circ", "reals": "\\mathbb{R}"}
_PUNCTUATION = re.compile(r"[^\w+/-]+")


class Cursor:
    """Consumes tokens one by one, counting bracket levels."""

    def __init__(self, tokens: Sequence[Token]):
        self.tokens, self.place, self.level = list(tokens), 0, 0

    @property
    def next(self) -> Token | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def at(self, *texts: str, kind: str | None = None) -> bool:
        if self.place >= len(self.tokens):
            return False
        token = self.tokens[self.place]
        return token.text in texts and (kind is None or token.kind == kind)

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


def is_word(token: Token) -> bool:
    """Whether a token is words, but not a mathematical name or a currency."""
    return token.kind == "text" or (token.kind == "word" and token.text not in NAMES and token.text not in CODES)


def written(tokens: Sequence[Token]) -> str:
    """Tokens as LaTeX without layout."""
    parts: list[str] = []
    behind_word = False
    for token in tokens:
        if parts and parts[-1][0] == "\\" and parts[-1][1:].isalpha() and token.text[:1].isalpha():
            parts.append(" ")
        form = token.text
        if token.kind == "command":
            form = _WRITTEN.get(form, f"\\{form}")
        elif token.kind == "text":
            form = f"\\text{{{form}}}"
        elif token.kind in ("begin", "end"):
            form = f"\\{token.kind}{{{form}}}"
        elif token.kind in ("open", "close") and form in "{}":
            form = f"\\{form}"
        elif token.spaced and (
            token.kind == "word" or behind_word or (token.kind == "number" and parts[-1:] and parts[-1][-1].isdecimal())
        ):
            form = f" {form}"
        elif form == "%":
            form = "\\%"
        parts.append(form)
        behind_word = token.kind == "word"
    return "".join(parts)


def plain_words(text: str) -> str:
    """Words without case, spaces and punctuation.

    Example:
        >>> plain_words("(P) No, thanks.")
        'p no thanks'
    """
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text.replace(".m.", "m"))
    return " ".join(_PUNCTUATION.sub(" ", text.lower()).split())


def unexpected(token: Token) -> UnreadableError:
    """The error for an unexpected token: functions and bars are mathematics, other things are not."""
    known = token.kind in ("command", "begin") or token.text in NAMES or token.text in ("|", "'")
    return (OpenError if known else UnreadableError)(f"unexpected {token.text[:20]!r}")
