"""Location of the final answer in a text.

In this order: the content of the last complete box, whatever follows it; the last ``<answer>``; the text after the last
announcement ("####", "The answer is", "**Answer**:", a heading "Final answer"); the last formula; the last number.
Every function takes linear time.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from nbg_lightning.scoring.boxes import boxed, formulas, last_formula, tagged
from nbg_lightning.scoring.characters import plain_characters
from nbg_lightning.scoring.mathematics.compare import value_of
from nbg_lightning.scoring.mathematics.limits import MAX_ANSWER, MAX_GAP, MAX_PLACES
from nbg_lightning.scoring.mathematics.reader import read
from nbg_lightning.scoring.mathematics.units import is_unit
from nbg_lightning.scoring.mathematics.values import Collection, Number, Text, Unread, Value

_MARKUP = r"[\s*_~`\"')\]]{0,6}"
_ANNOUNCEMENT = re.compile(
    r"####"
    rf"|\banswers?\b(?:\s(?:to|of|for)\s[^.\n:?!]{{1,60}}?|\schoice)?{_MARKUP}"
    r"(?:(?:is|are|was)(?:\b|(?=n't))|(?:would|will|must|should|has to) be\b|[:=])"
    r"|(?:^|\n)[\s#*_]{0,8}(?:final\s)?answer[ *_]{0,8}(?:\n|[-\u2013\u2014.]\s)"
    r"|(?:^|\n)[\s#*_]{0,8}ans[.:]{1,2}(?=\s)"
    r"|\b(?:respuestas?|r[ée]ponses?|antwort|resposta|risposta|ответ|đáp án)\b"
    rf"(?:\s(?!est\b|ist\b)\w{{1,15}})?{_MARKUP}(?:(?:es|est|ist|lautet|é|è|là)\b|[:=])"
    r"|答案[\s*_]{0,4}(?:应该|应当|应|就)?[\s*_]{0,4}(?:是|为|選|选|[:=])|[故应]选(?:择|项)?|(?:^|[\n，,。])[\s*]{0,4}选(?=[A-Z（(*\s])"
    r"|(?:答え|正解)[\s*_]{0,4}(?:は|[:=])|정답[\s*_]{0,4}(?:은|:)",
    re.IGNORECASE,
)
"""English, and the words for "answer" in the languages that models answer in most."""

_LAYOUT = re.compile(
    r"(?:[\s:=*_~`#}]|\$(?=\s)|\b(?:clearly|therefore|thus|then|hence|simply|just|exactly|indeed|definitely|certainly"
    r"|obviously|surely|actually|probably|most likely|likely|equal to|given by|found to be)\b)*"
)
_STOP = re.compile(r"\\[{}]|[{}]|[.?](?=\s|\*|$)|\n")
_CLAUSE = re.compile(
    r",?\s(?:because|since|as|so|which|where|when|for|if|but|with|after|in total)\s|\s\(|,\s(?=[a-z]{3})|です|입니다"
)
_DENIAL = re.compile(
    r"\s*(?:(?:not|neither|n't)\b[^.;\n]{0,60}?(?:[,;]|\bbut\b|\.\s|\.?$)|[^.;\n?]{1,60}\?\s*(?:no|nope)\b[,.!:]?)\s*"
    r"(?:(?:but|rather|instead|and|it's|its|it|is|actually)\b\s*){0,4}",
    re.IGNORECASE,
)
_DENIAL_OF_NUMBER = re.compile(r"(?:\bnot|n't|\bnever)\s(?:equal to\s|equal\s)?\n?", re.IGNORECASE)
_IN_PROSE = re.compile(
    r"(?<![\w.^\\])(?:[-+]|(?:[Mm]inus|[Nn]egative)\s)?(?:\\?[$€£¥]\s?)?"
    r"(?:(?P<spaced>\d{1,3}(?: \d{3})++(?![\d,./]))|(?P<run>\d++(?:,\d++)*+(?:\.\d++)?)|\.\d++)"
    r"(?:[eE][-+]?\d{1,6}(?!\w)|\s?(?:\\times|\\cdot|\*|[xX])\s{0,2}10\^(?:\{-?\d{1,6}\}|-?\d{1,6}))?"
    r"(?:\s?/\s?\d++|\s\d++/\d++)?(?:\s?\\?%)?(?:\s(?:hundred|thousand|million|billion|trillion)\b)?",
    re.ASCII,
)
_LETTERS = re.compile(r"[A-Za-z]+")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})++(?:\.\d++)?")
_GLUED = {"m", "s", "h", "g", "l", "min", "am", "pm", "x"}  # letters that may follow a number directly: 5m


_SAME = str.maketrans({"\uff1a": ":", "’": "'", "‘": "'"})  # one character each, so that positions are unchanged


# -- announcements -----------------------------------------------------------------------------------------------------


class Announced(NamedTuple):
    """What follows an announcement of an answer, up to the limits."""

    begin: int
    """Where the announcement begins."""
    behind: str
    """The text from its end on."""
    answer: str
    """The same without its layout (":", "**") and a negation ("not 3, but")."""


def announced(text: str) -> Iterator[Announced]:
    """What follows the announcements of an answer, from the last one backwards.

    Example:
        >>> [each.answer for each in announced("The answer is 3. No, the answer is **4**.")]
        ['4**.', '3. No, the answer is **4**.']
    """
    text = text.translate(_SAME)
    for match in reversed(deque(_ANNOUNCEMENT.finditer(text), maxlen=MAX_PLACES)):
        begin = match.end()
        for skipped in (_LAYOUT, _DENIAL):
            found = skipped.match(text, begin, begin + MAX_ANSWER)
            begin = begin if found is None else found.end()
        behind, answer = (text[place : place + MAX_ANSWER + 1] for place in (match.end(), begin))
        yield Announced(match.start(), behind, answer)


def said_in(marked: str) -> str:
    r"""The announced text: in a box or tag, otherwise all of it, without the closing brace of a surrounding command.

    Example:
        >>> said_in(r"\text{Answer: }5"), said_in(r"\text{The answer is 5}")
        ('5', '5')
    """
    said = next(announced(marked), None)
    if said is None:
        return marked
    region = said.answer
    return region.strip().removesuffix("}" if region.count("}") > region.count("{") else "")


def sentence(text: str) -> str:
    r"""The first sentence or line of a text, including everything inside braces.

    Example:
        >>> sentence(r"12\text{ sq. ft}. That is all.")
        '12\\text{ sq. ft}'
    """
    first, depth = len(text), 0
    for match in _STOP.finditer(text):
        token = match.group()
        if token in ("{", "}"):
            depth = max(0, depth + (1 if token == "{" else -1))
        elif len(token) == 1:
            first = min(first, match.start())
            if depth == 0:
                return text[: match.start()]
    return text[:first] if depth else text


def _candidates(region: str) -> Iterator[str]:
    """Candidates for the answer in the text after an announcement: its formula, its sentence, its first clause."""
    whole = sentence(region)
    if region.startswith(("$", "\\(", "\\[")):
        begin, end = next(formulas(region), (0, 0))
        behind = region[end : end + 60].lstrip("$\\)] ")
        if end and not sentence(behind).strip(" .,*"):
            yield region[begin:end]
        yield whole
        yield region[begin:end]
    else:
        yield whole
    clause = _CLAUSE.search(whole)
    if clause is not None:
        yield whole[: clause.start()]


# -- expressions -------------------------------------------------------------------------------------------------------


def extract_expression(text: str) -> str | None:
    r"""The answer of a solution: from the last box, else ``<answer>``, an announcement, the last formula.

    Example:
        >>> extract_expression("Then $x > 1$. The answer is $x = 2$, since x is even.")
        'x = 2'
    """
    for marked in (boxed(text), tagged(text)):
        if marked is not None:
            return said_in(marked).strip() if marked else None
    for said in announced(text):
        found = [candidate.strip(" *$\n") for candidate in _candidates(said.answer)]
        found = [candidate for candidate in found if candidate]
        known = (candidate for candidate in found if _is_read(read(candidate)))
        answer = next(known, found[-1] if found and isinstance(read(found[0]), Unread) else next(iter(found), None))
        if answer is not None:
            return answer
    return last_formula(text)


def _is_read(value: Value) -> bool:
    """Whether a candidate is an answer, rather than an answer with a part of its sentence."""
    if isinstance(value, Collection):
        words = [isinstance(element, Text) for element in value.elements]
        malformed = any(isinstance(element, Unread) and element.malformed for element in value.elements)
        return not malformed and (all(words) or not any(words))
    return not isinstance(value, Text | Unread)


# -- numbers -----------------------------------------------------------------------------------------------------------


def extract_value(text: str, first: bool = False) -> Number | str:
    """The number that a text gives as its answer.

    Args:
        text: a model's text.
        first: without a mark, use the first number of the text: for continuations that run on.

    Returns:
        The number, or a one-line reason why there is none.
    """
    text = plain_characters(text)
    marked = boxed(text)
    if marked is not None:
        value = _number(said_in(marked))
        return f"the box holds no number: {marked[:60]!r}" if value is None else value
    marked = tagged(text)
    if marked is not None:
        text = marked
        if (value := _number(marked)) is not None:
            return value
    said = list(announced(text))
    for region in (each.answer for each in said):
        for candidate in _candidates(region):
            if (value := _number(candidate)) is not None:
                return value
        near = next(_numbers_in(region), None)
        if near is not None and near[0] <= MAX_GAP and (value := _number(near[2])) is not None:
            return value
    if said and not said[0].answer:  # the answer is negated, and no other given
        text = text[: said[0].begin]
    return _last_or_first(text, first)


def _number(text: str) -> Number | None:
    value = value_of(read(text))
    return value if value is not None and value.rational is not None else None


def _numbers_in(text: str) -> Iterator[tuple[int, int, str]]:
    """Numbers in prose with begin, end and text; without ordinals, exponents and names (``x3``)."""
    for match in _IN_PROSE.finditer(text):
        behind = _LETTERS.match(text, match.end(), match.end() + 20)
        if behind is not None and not (is_unit(behind.group(), spaced=True) or behind.group().lower() in _GLUED):
            continue
        if text[max(0, match.start() - 2) : match.start()] in ("^{", "_{"):
            continue
        run = match.group("run")
        if run is not None and "," in run and not _THOUSANDS.fullmatch(run):  # 3,5 in a series of numbers
            for each in re.finditer(r"[\d.]+", match.group()):
                yield match.start() + each.start(), match.start() + each.end(), each.group()
        else:
            yield match.start(), match.end(), match.group()


def _last_or_first(text: str, first: bool) -> Number | str:
    denied = set() if first else {match.end() for match in _DENIAL_OF_NUMBER.finditer(text)}
    said = (each for each in _numbers_in(text) if each[0] not in denied)
    found = next(said, None)
    if found is None:
        return "there is no number"
    if not first:
        found = (deque(said, maxlen=1) or [found])[0]
        for begin, end in formulas(text):  # a number inside the last formula may be a part of it
            if begin <= found[0] < end and (value := _number(text[begin:end])) is not None:
                return value
    value = _number(found[2])
    return f"a number that is not read: {found[2][:40]!r}" if value is None else value
