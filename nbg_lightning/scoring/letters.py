"""The option chosen by a text: by its letter, or by the option's own text.

A letter counts where it is marked: in a box, in ``<answer>``, after "the answer is", "the correct option is" or "I choose",
before "is correct", as a last line ("So B"), at the beginning of the text ("B. Paris"). "A" before a word is an article. Two
letters ("A or B") are not a choice. A box without a letter ("D = 5") is skipped. The text of an option counts as its letter,
even if it contains letters ("B cells", "A and C", "answer a question"), and so does a letter before the option's own text
("C) is opened by ...").
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from nbg_lightning.scoring.boxes import boxed, tagged
from nbg_lightning.scoring.characters import plain_characters
from nbg_lightning.scoring.mathematics.compare import compare
from nbg_lightning.scoring.mathematics.cursor import plain_words
from nbg_lightning.scoring.mathematics.limits import MAX_PLACES
from nbg_lightning.scoring.mathematics.reader import read
from nbg_lightning.scoring.places import announced, sentence

SEVERAL = "several options are named"
NONE = "no option is named"
_MAX_LINE = 400  # characters considered after a mark
_STOPS = " .!?"  # after an option
_CLOSING = " )]"
_BETWEEN = " ()[].:,-"  # between a letter and the option's text
_MARKUP = re.compile(r"\\[A-Za-z]+\s?|[{}$*_~`\"'\\#]")
_STYLE = re.compile(r"\\(?:text|math)(?:rm|bf|it|sf|tt|up|normal)?\b\s?|\\[()\[\]]|[{}$*_~`\"'#]")
_MATHEMATICS = re.compile(r"\\(?!(?:text|math(?:rm|bf|it|sf|tt)|boxed|fbox|quad|left|right)[a-z]{0,6}\b)[A-Za-z]")
_ARTICLES = "AI"
_BEHIND_ARTICLE = r"(?:because|since|as|is|which|for|with|by|based|due|only|alone|here|not|rather|over)\b"
_SIGN = re.compile(r"\s?(?:[.:,;!](?=\s|$)|[-/]\s|$)")
_SUBJECT = re.compile(r"\s?(?:is|are|was|says|can|would)\b")
_DENIED = re.compile(
    r"\s(?:(?:is|are|was|would be|can|could|must|should|does|seems|looks)\s?)(?:(?:clearly|obviously|certainly|also|be)\s)?"
    r"(?:not|n t|nnot|incorrect|wrong|false|out|ruled|eliminated)\b"
)
_NOT_CHOSEN = re.compile(r"\b(?:not|never|cannot|can't|\w{2,6}n['\s]t)\s(?:\w{1,12}\s)?$", re.IGNORECASE)
_WORD = r"[^\W\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]"  # a word character, in scripts with spaces between words
_BULLET = r"(?:[-+>•]\s|\d{1,2}[.)]\s)?"
_CHOSEN = re.compile(
    r"\b(?:options?|choices?|letter)\b[\s*_]{0,4}(?:(?:is|are|would be|must be|should be)\b|[:=])"
    r"|\bit (?:must|has to|can only|should) be\b|\bi(?: (?:think|believe|guess|would say)|'d say) (?:that )?it(?: is|'s)\b"
    r"|\b(?:choose|chose|chosen|pick|select|go with|going with)\b(?:\s(?:option|choice|answer|letter))?",
    re.IGNORECASE,
)


class _Patterns(NamedTuple):
    """Patterns for a set of letters, on text without markup (`_bare`)."""

    lead: re.Pattern[str]  # begins with a letter
    several: re.Pattern[str]  # continues with another letter
    conclusion: re.Pattern[str]  # ends with a concluded letter
    confirmed: re.Pattern[str]  # a letter called correct


@lru_cache(maxsize=64)
def _patterns(letters: tuple[str, ...]) -> _Patterns:
    one = f"[{re.escape(''.join(letters) + ''.join(letters).lower())}]"
    noun = (
        r"(?:(?:the\s)?(?:correct\s|right\s|best\s)?(?:option|choice|answer|letter|(?:a\s)?letra|lettre|opción|alternativa)"
        r"\s?(?:is\s|:\s?)?)"
    )
    return _Patterns(
        lead=re.compile(
            rf"(?:either\s)?(?P<noun>{noun})?(?P<open>[(\[<]\s?)?(?P<letter>{one})(?!{_WORD}|[+#])(?:\s?(?P<close>[)\]>]))?",
            re.I,
        ),
        several=re.compile(
            rf"\s?(?:,?\s?(?:or|and|/|&)\s?(?!not\b)(?:maybe\s|perhaps\s|possibly\s|even\s)?{noun}?[(\[]?{one}(?!\w)|,\s?[(\[]?{one}[)\]]?\s?(?:[.,;]|$|or\b|and\b))",
            re.I,
        ),
        conclusion=re.compile(
            rf"(?:^{_BULLET}|\b(?:so|thus|hence|therefore|conclusion|finally|is|be|choose|pick|select)\b[\s,:]{{0,3}})"
            rf"(?:it\s(?:is|s|must be)\s|i\s(?:choose|pick|select)\s)?{noun}?(?P<open>[(\[])?(?P<letter>{one})[)\]]?[\s.!)]*$",
            re.I,
        ),
        confirmed=re.compile(
            rf"(?<!\w)[(\[]?(?P<letter>{one})[)\]]?\s(?:is|must be|would be)\s(?:(?:indeed|clearly|therefore)\s)?"
            r"(?:the\s)?(?:correct|right|best|true)\b",
            re.I,
        ),
    )


def extract_letter(text: str, letters: Sequence[str], options: Sequence[str] = ()) -> tuple[str | None, str]:
    """The letter chosen by a text.

    Args:
        text: a model's text.
        letters: letters of the options, upper case.
        options: texts of the options, in the same order; "The answer is Paris" chooses by them.

    Returns:
        The letter, or None with the reason.

    Example:
        >>> extract_letter("The answer is not A, it is (B).", "ABCD")[0], extract_letter("A or B", "ABCD")
        ('B', (None, 'several options are named'))
    """
    text = plain_characters(text)
    finder = _Finder(tuple(letters), options)
    for found in finder.marked(text):
        if found is not None:
            return (None, SEVERAL) if found == SEVERAL else (found, "")
    return None, NONE


class _Finder:
    def __init__(self, letters: tuple[str, ...], options: Sequence[str]):
        self.letters, self.patterns = letters, _patterns(letters)
        self.options = options
        self.limit = max([_MAX_LINE, *(len(option) + _MAX_LINE for option in options)])

    @cached_property
    def forms(self) -> list[tuple[Callable[[str], str], list[str]]]:
        """How a text is compared to options, strictest first: "Rr" differs from "RR", and "~A" from "A", if both are options."""
        return [(form, [form(plain_characters(option)) for option in self.options]) for form in _FORMS]

    def marked(self, text: str) -> Iterator[str | None]:
        """The choice at each mark of an answer, strongest mark first; None if there is none."""
        if len(text) <= self.limit:
            yield self.quoted(text, whole=True)
        box = boxed(text)
        if box is not None and len(box) <= self.limit:
            yield self.quoted(box, whole=True) or self.lead(_bare(box), strict=True) or self.named(box)
        tag = tagged(text)
        if tag is not None:
            yield self.region(tag)
        for said in announced(text):
            yield self.quoted(said.behind[: self.limit]) or self.region(said.answer)
        for match in reversed(deque(_CHOSEN.finditer(text), maxlen=MAX_PLACES)):
            if not _NOT_CHOSEN.search(text, max(0, match.start() - 30), match.start()):
                yield self.region(text[match.end() : match.end() + self.limit])
        for line in reversed(text[-_MAX_LINE:].splitlines()):
            yield from map(self.letter, deque(self.patterns.confirmed.finditer(_bare(line)), maxlen=1))
        yield from self.outer_lines(text)
        yield self.named(text[:_MAX_LINE]) if len(text) < _MAX_LINE else None

    def region(self, text: str) -> str | None:
        """The choice in the first line after a mark, or by a multi-line option quoted there."""
        text = text[: self.limit].strip()
        line = next(iter(text[:_MAX_LINE].splitlines()), "")
        bare = _bare(line)
        quoted = self.quoted(text) or self.quoted(line)
        said = sentence(line)
        named = self.named(said) or self.named(said.partition(",")[0])
        return quoted or self.lead(bare) or named or self.concluded(bare)

    def outer_lines(self, text: str) -> Iterator[str | None]:
        last = _bare(text[-_MAX_LINE:].rstrip().rpartition("\n")[2])
        if len(last) < _MAX_LINE:
            yield self.concluded(last)
        heads = [self.lead(_bare(line), strict=True) for line in text[:_MAX_LINE].strip().splitlines()[:2]]
        if len(heads) == 2 and None not in heads and heads[0] != heads[1]:
            return  # the options, repeated
        yield heads[0] if heads else None

    def lead(self, bare: str, strict: bool = False) -> str | None:
        """The letter at the beginning of a text.

        Args:
            bare: text without markup.
            strict: ignore a letter before a word; only a standalone one, in brackets or before a sign, counts.
        """
        match = self.patterns.lead.match(bare)
        if match is None:
            return None
        rest = bare[match.end() :]
        if self.is_own_text(match, rest):
            return self.letter(match)
        if self.patterns.several.match(rest):
            return SEVERAL
        if _DENIED.match(rest):
            return None
        strict = strict and not match.group("noun")
        marked = bool(match.group("close") or _SIGN.match(rest))
        if marked or (match.group("open") and not strict):
            accepted = not (strict and _SUBJECT.match(rest))
        elif strict:
            accepted = match.group("letter").isupper() and bool(re.match(r"\s(?:because|since)\b", rest))
        else:
            accepted = self.goes_on(match, rest)
        return self.letter(match) if accepted else None

    def goes_on(self, match: re.Match[str], rest: str) -> bool:
        """Whether the words after a letter leave it a choice: "B 12", "A because"; not "A cell", "a city", "A-level", "D = 5"."""
        if match.group("letter").islower():
            return bool(match.group("noun") and re.match(rf"\s{_BEHIND_ARTICLE}", rest))
        article = match.group("letter") in _ARTICLES
        return bool(re.match(rf"\s{_BEHIND_ARTICLE}" if article else r"\s[^=<>+*^]|[^\W\d_]", rest))

    def concluded(self, bare: str) -> str | None:
        match = self.patterns.conclusion.search(bare)
        if match is None or (match.group("letter").islower() and not match.group("open")):
            return None
        if _NOT_CHOSEN.search(bare, max(0, match.start() - 30), match.start()):
            return None
        return self.letter(match)

    def letter(self, match: re.Match[str]) -> str:
        return match.group("letter").upper()

    def is_own_text(self, match: re.Match[str], rest: str) -> bool:
        """Whether the text of the matched letter's option follows the letter."""
        if not self.options:
            return False
        own = _bare(plain_characters(self.options[self.letters.index(self.letter(match))])).rstrip(_STOPS)
        return bool(own) and _begins(rest.lstrip(_BETWEEN).casefold(), own.casefold())

    def quoted(self, text: str, whole: bool = False) -> str | None:
        """The letter of the longest option that begins a text, word for word; an option that is itself a letter takes precedence.

        Args:
            text: text of a region.
            whole: require that nothing follows.
        """
        for form, options in self.forms:
            begin = form(text)
            found = [
                each for each in options if each.upper() not in ("", *self.letters) and _begins(begin, each, whole)
            ]
            if found:
                return self.letters[options.index(max(found, key=len))]
        return None

    def named(self, text: str) -> str | None:
        """The letter of the only option with this text or value."""
        words, value = plain_words(_bare(text)), read(text)
        if not words or not self.options:
            return None
        pairs = list(zip(self.letters, self.options, strict=True))
        same = [letter for letter, option in pairs if compare(read(option), value) is True]
        if not same and not _MATHEMATICS.search(text):  # \\frac12 differs from 12
            same = [letter for letter, option in pairs if plain_words(_bare(plain_characters(option))) == words]
        return same[0] if len(same) == 1 else None


def _begins(text: str, option: str, whole: bool = False) -> bool:
    """Whether a text begins with an option, followed by the end of the text or of a sentence."""
    if not text.startswith(option):
        return False
    rest = text[len(option) :].lstrip(_CLOSING)
    return not rest.strip(_STOPS) or (not whole and bool(re.match(r"[.;!?]\s", rest)))


def _bare(text: str) -> str:
    """A line without LaTeX commands, Markdown and quotes."""
    return " ".join(_MARKUP.sub(" ", text.replace("\\(", " ").replace("\\)", " ")).split())


def _single_spaced(text: str) -> str:
    return " ".join(text.split())


def _bare_ends(text: str) -> str:
    return _single_spaced(text).strip(" :=#$*_`\"'").rstrip(_STOPS)


def _styleless(text: str) -> str:
    """A text without Markdown, quotes, formula delimiters and font commands."""
    return _bare_ends(_STYLE.sub(" ", text))


def _caseless(text: str) -> str:
    return _styleless(text).casefold()


_FORMS: tuple[Callable[[str], str], ...] = (_single_spaced, _bare_ends, _styleless, _caseless)
