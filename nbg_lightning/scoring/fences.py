"""Fenced code blocks in Markdown as written by models (CommonMark 0.31, section 4.5, with their deviations)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbg_lightning.scoring.bounded import python_tree

_OPENING = re.compile(r"[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?(?P<fence>`{3,}|~{3,})(?P<info>.*)")
_GLUED_OPENING = re.compile(r"^[^`]*(?P<fence>`{3,})[ \t]*(?P<info>python3?|py|)[ \t]*$", re.IGNORECASE)  # after prose
_LANGUAGE = re.compile(r"[\s{.]*([\w+#-]*)(?P<file>[\w./-]*\.py\b)?")
_PYTHON = frozenset({"python", "python3", "py", "py3", "ipython", "ipython3"})
_MARKDOWN = frozenset({"", "markdown", "md"})
_MAX_NESTING = 3  # of blocks in Markdown blocks
_MAX_CLOSING_INDENT = 3  # relative to its opening fence: CommonMark's rule
_MAX_FENCE = 1000  # a longer run of backticks is not a fence

_OUTSIDE = re.compile(r'#|"""|\'\'\'|"|\'|`{3,}')
_INSIDE = {quote: re.compile(rf"\\.|\\$|{quote}") for quote in ('"""', "'''", '"', "'")}


@dataclass(frozen=True)
class CodeBlock:
    """One fenced code block.

    Attributes:
        language: first word after the opening fence, in lower case; may be empty.
        code: lines between the fences, without the common indentation of their list item.
        closed: whether there is a closing fence.
    """

    language: str
    code: str
    closed: bool = True

    @property
    def is_python(self) -> bool:
        """Whether it is marked as Python."""
        return self.language in _PYTHON


def code_blocks(text: str) -> list[CodeBlock]:
    """The fenced blocks of a text, in order; in linear time.

    Fences have at least three backticks or tildes; a closing one is of the same kind and at least as long. In addition to
    CommonMark: a Python block is also closed by backticks at the end of a line of code, but not by a fence inside one of its
    strings; a Markdown block yields the Python blocks in it; an unclosed block extends to the end of the text.

    Example:
        >>> code_blocks("1. Do:\\n\\n   ~~~python\\n   f()\\n   ~~~")
        [CodeBlock(language='python', code='f()\\n', closed=True)]
    """
    return _unwrapped(_LineReader(text).blocks(), _MAX_NESTING)


def _unwrapped(blocks: list[CodeBlock], levels: int) -> list[CodeBlock]:
    """The blocks, with Markdown blocks replaced by the blocks inside them."""
    found: list[CodeBlock] = []
    for block in blocks:
        inner: list[CodeBlock] = []
        if levels and block.language in _MARKDOWN and ("```" in block.code or "~~~" in block.code):
            inner = _unwrapped(_LineReader(block.code).blocks(), levels - 1)
        found += inner if any(each.is_python for each in inner) else [block]
    return found


class _LineReader:
    """Reads each line once, except for those after a string that is never closed."""

    def __init__(self, text: str):
        self.lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self.strings_hide_fences = True

    def blocks(self) -> list[CodeBlock]:
        found = []
        place = 0
        while place < len(self.lines):
            line = self.lines[place]
            place += 1
            match = _opening(line) or _GLUED_OPENING.search(line)
            if match is None:
                continue
            quotes = line[: match.start("fence")].count(">")
            fence = _Fence(match["fence"], match.start("fence"), quotes, _language(match["info"]))
            block, place = self._block(fence, place)
            found.append(block)
        return found

    def _block(self, fence: _Fence, begin: int) -> tuple[CodeBlock, int]:
        """The block after an opening fence, and the index of the following line."""
        quote = ""
        hidden: list[int] = []  # indices of fences in strings
        for place in range(begin, len(self.lines)):
            line = fence.content(self.lines[place])
            if line is None:  # the end of a block quote
                return fence.block(self.lines[begin:place]), place
            closes = fence.is_closed_by(line)
            if not fence.is_python:
                if closes and not fence.is_too_deep(line):
                    return fence.block(self.lines[begin:place]), place + 1
                continue
            if quote and closes and not fence.is_too_deep(line):
                hidden.append(place)
                if not self.strings_hide_fences:
                    break
            opens = (
                not quote and not closes and _opening(line) is not None
            )  # backticks are not Python: it was not closed
            if (opens or (closes and not quote)) and not self._is_whole(fence, begin, place, hidden):
                break
            if opens:
                return fence.block(self.lines[begin:place], closed=False), place
            if closes and not quote:
                return fence.block(self.lines[begin:place]), place + 1
            quote, glued = _after(line, quote, fence.mark)
            if glued is not None:
                return fence.block([*self.lines[begin:place], line[:glued]]), place + 1
        else:
            if self._is_whole(fence, begin, len(self.lines), hidden):
                return fence.block(self.lines[begin:], closed=False), len(self.lines)
        self.strings_hide_fences = False
        return fence.block(self.lines[begin : hidden[0]]), hidden[0] + 1

    def _is_whole(self, fence: _Fence, begin: int, end: int, hidden: list[int]) -> bool:
        """Whether lines are one block: with fences hidden in strings, only if they are a program."""
        return not hidden or python_tree(fence.block(self.lines[begin:end]).code) is not None


@dataclass(frozen=True)
class _Fence:
    """An opening fence: its characters, its column, the number of block-quote marks before it, and its language."""

    mark: str
    column: int
    quotes: int
    language: str

    @property
    def is_python(self) -> bool:
        return self.language in _PYTHON

    def content(self, line: str) -> str | None:
        """A line without block-quote marks; None if they are missing."""
        for _ in range(self.quotes):
            stripped = line.lstrip(" \t")
            if not stripped.startswith(">"):
                return None
            line = stripped[2:] if stripped[1:2] == " " else stripped[1:]
        return line

    def is_closed_by(self, line: str) -> bool:
        run = line.strip(" \t")
        return len(run) >= len(self.mark) and run == self.mark[0] * len(run)

    def is_too_deep(self, line: str) -> bool:
        own_column = 0 if self.quotes else self.column
        return len(line) - len(line.lstrip(" \t")) > own_column + _MAX_CLOSING_INDENT

    def block(self, lines: list[str], closed: bool = True) -> CodeBlock:
        own = [self.content(line) or "" for line in lines] if self.quotes else lines
        return CodeBlock(self.language, dedented(own), closed)


def _language(info: str) -> str:
    """The first word after a fence, in lower case; a Python file name counts as ``python``."""
    match = _LANGUAGE.match(info)
    assert match is not None, "it matches everything"
    return "python" if match["file"] else match[1].lower()


def _opening(line: str) -> re.Match[str] | None:
    """An opening fence at the beginning of a line."""
    match = _OPENING.match(line)
    if match is None or len(match["fence"]) > _MAX_FENCE or ("`" in match["fence"] and "`" in match["info"]):
        return None
    return match


def dedented(lines: list[str]) -> str:
    """Lines as text, with the indentation of the first non-blank line removed as far as each line has it.

    Lines of a string that begin further left are therefore unchanged.

    Example:
        >>> dedented(["  def f():", "      return 1"])
        'def f():\\n    return 1\\n'
    """
    first = next((line for line in lines if line.strip()), "")
    margin = first[: len(first) - len(first.lstrip(" \t"))]
    width = len(margin)
    if not width:
        return "\n".join(lines) + "\n" if lines else ""
    kept = []
    for line in lines:
        blanks = len(line) - len(line.lstrip(" \t"))
        kept.append(line[min(blanks, width) :])
    return "\n".join(kept) + "\n"


def _after(line: str, quote: str, mark: str) -> tuple[str, int | None]:
    """The string that is open after a line of Python, and the position of a fence after code on the line.

    Args:
        line: one line.
        quote: opening quote of the string that is open before it; empty outside of strings.
        mark: the fence that closes the block.
    """
    place = 0
    end = len(line.rstrip())
    while True:
        if quote:
            match = _INSIDE[quote].search(line, place)
            if match is None:
                return (quote if len(quote) == 3 else ""), None
            if match[0] == "\\":  # the string continues on the next line
                return quote, None
            quote = "" if match[0] == quote else quote
        else:
            match = _OUTSIDE.search(line, place)
            if match is None:
                break
            if match[0] == "#":
                return "", None
            if match[0][0] != "`":
                quote = match[0]
            elif match[0][0] == mark[0] and len(match[0]) >= len(mark) and match.end() >= end:
                return "", match.start() if line[: match.start()].strip() else None
        place = match.end()
    code = len(line[:end].rstrip("~")) if mark[0] == "~" else end
    return "", code if end - code >= len(mark) and line[:code].strip() else None
