"""Parsing of judge output: which of two answers is better, or a score on a scale. Missing verdicts are never guessed."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any, Literal

from nbg_lightning.scoring.bounded import json_objects

MAX_JUDGEMENT = 200_000  # characters; longer texts are read from their end
MAX_CLAUSE = 300  # characters; longer clauses are read from their end
_MAX_NUMBER = 32  # characters

MARKS = {"A>>B": 1.0, "A>B": 0.75, "A=B": 0.5, "B>A": 0.25, "B>>A": 0.0, "A": 1.0, "B": 0.0, "C": 0.5, "TIE": 0.5}
"""Values of ``[[A>B]]`` for A: Arena-Hard's five (Li et al. 2024, arXiv 2406.11939) and MT-Bench's three (C is a tie)."""
VERDICT_KEYS = (
    "verdict",
    "winner",
    "choice",
    "preferred",
    "preference",
    "better",
    "best",
    "judgement",
    "judgment",
    "answer",
)
"""Keys of a judge's JSON object; the first one present counts."""

_Word = Literal["a", "b", "tie"]
_WORTH: dict[_Word, float] = {"a": 1.0, "b": 0.0, "tie": 0.5}


# -- two orders --------------------------------------------------------------------------------------------------------


def agreed(first: float, swapped: float) -> float:
    """Value for an answer judged in both positions: a verdict counts only if both orders agree on the winner.

    If they disagree, or one of them is a tie, the answers are tied: a judge that chooses the same position twice has expressed
    no preference. If they agree, the value is the mean of both strengths.

    Args:
        first: value for the first position, which this answer has; 1 for a win, 0.5 for a tie, 0 for a loss.
        swapped: value for the first position, which the other answer has.

    Example:
        >>> agreed(1.0, 0.0), agreed(1.0, 1.0), agreed(0.5, 0.0), agreed(1.0, 0.25)
        (1.0, 0.5, 0.5, 0.875)
    """
    own = 1.0 - swapped
    return (first + own) / 2 if (first - 0.5) * (own - 0.5) > 0 else 0.5


# -- which of two ------------------------------------------------------------------------------------------------------


def read_pairwise(text: str) -> float:
    """Value of a judgement for answer A: 1 if A is better, 0.5 for a tie, 0 if B is better.

    The verdict is the last mark such as ``[[A>B]]``, else the last JSON object with one of `VERDICT_KEYS`, else words. Among
    words, the last verdict in a concluding sentence counts ("Overall, B is better", "Final answer: B"); otherwise all must agree.

    Raises:
        ValueError: there is no verdict, or several conflict.

    Example:
        >>> read_pairwise("A closer look shows that B is better."), read_pairwise("It's a tie"), read_pairwise("[[A>B]]")
        (0.0, 0.5, 0.75)
    """
    plain = unicodedata.normalize("NFKC", text[-MAX_JUDGEMENT:]).translate(_SAME)
    if marks := _MARK.findall(plain):
        return MARKS["".join(marks[-1].split()).upper()]
    for found in reversed(json_objects(plain)):
        if key := next((key for key in VERDICT_KEYS if key in found), None):
            value = found[key]
            if not isinstance(value, str) or (word := _verdict_of(value)) is None:
                raise ValueError(f"its {key!r} is no verdict: {str(value)[:60]!r}")
            return _WORTH[word]
    if (word := _verdict_of(plain)) is None:
        raise ValueError(f"it says neither A, B nor tie, or several of them: {' '.join(text[-200:].split())[-60:]!r}")
    return _WORTH[word]


_SAME = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "–": "—", "\u200b": None, "\ufeff": None})
_MARK = re.compile(r"\[\[\s?(A ?>> ?B|A ?> ?B|A ?= ?B|B ?> ?A|B ?>> ?A|A|B|C|tie)\s?\]\]", re.IGNORECASE)
_DECORATION = re.compile(r"</?\w{1,20}>|\\(?:boxed|text|textbf|mathrm)\b|[*_`#\"“”«»()\[\]{}$]")
_BREAKS = re.compile(r"[\n;,!]|(?<!vs)\.|(?<=\?)|—| - |\b(?:but|however|yet|so|and (?:so|thus|therefore|hence))\b")


def _any(*words: str) -> str:
    return f"(?:{'|'.join(words)})"


# Patterns for a clause in lower case with single spaces. X is one of the two answers.
_THING = _any(
    "answer|response|option|assistant|model|candidate|choice|text|output|reply|solution",
    "completion|generation|version|draft|submission|essay|summary|translation|story|poem|article|review|passage",
    "explanation|argument|proof|code|program|implementation|chatbot|bot|agent|system|writer|author|student",
)
_X = rf"(?:(?:the )?{_THING} )?\b([ab])\b(?:'s(?: {_THING})?)?(?! ?(?:/|or|and|&|vs|versus) ?(?:{_THING} )?[ab]\b)"
_XS = rf"(?:(?:the )?{_THING} )?[ab]"
_END = r"(?=$| (?:because|since|as|for|by|over|due|here|overall)\b)"  # not "a short one"
_ADVERB = _any(
    "clearly|much|far|by far|slightly|significantly|considerably|definitely|certainly|obviously|marginally|somewhat",
    "overall|generally|still|simply|also|strictly|even|the|a|a bit|a lot|a little",
)
_HOW = rf"(?: {_ADVERB})*"
_MANNER = rf"(?:{_ADVERB}|\w+ly|just|always|often)"
# Before a letter that denotes an answer; after other words it is part of a name: "vitamin B", "plan B", "hepatitis B".
_BEFORE_A_LETTER = re.compile(
    r"(?:^|[^\w\s]|\b(?:"
    + _any(
        r"\w+ly|that|the|so|then|and|also|since|because|as|while|whereas|overall|thus|hence|therefore|still|now|here|to|is|well",
        "yes|ok|okay|me|us|view|opinion|judge?ment|sum|conclusion|summary|short|end|balance|all|total|general|comparison|contrast",
        "hand|consequence|result|clear|obvious|evident|sure|certain|confident|however|instead|again|hmm|like|with|where|when|say",
        "says|said|think|thinks|thought|believe|believes|find|finds|found|feel|feels|see|sees|consider|considers|judge|judges",
        "conclude|concludes|concluded|decide|decided|suggests?|shows?|means?|indicates?|implies|makes?|know|argue|claim|agree",
        "guess|suppose|reckon|assume|maintain|consideration|reading|reflection|inspection|look|analysis|considered|considering",
    )
    + r")) ?$"
)
_IS = _any("is", "was", "'s", "seems", "looks", "appears", "seems to be", "appears to be")
_GOOD = _any(
    "better",
    "best",
    "superior",
    "stronger",
    "preferable",
    "preferred",
    "winner",
    "winning",
    "more correct",
    "more helpful",
)
_BAD = _any("worse", "worst", "inferior", "weaker", "loser", "poorer")
_WHAT = _any("better", "best", "superior", "stronger", "preferred", "winning", "right", "final")
_BE = r" ?(?:is|was|:|=|goes to|would be|must be|should be|->|is:)+ ?"
_LEAD = _any(
    "answer",
    "verdict",
    "choice",
    "judge?ment",
    "decision",
    "winner",
    "preference",
    "conclusion",
    "result",
    "vote",
    "pick",
)
_FOR = _any(
    "prefer",
    "prefers",
    "preferred",
    "choose",
    "chose",
    "pick",
    "picked",
    "select",
    "favou?r",
    "go with",
    "going with",
    "lean(?:ing)?(?: towards?)?",
    "vote for",
    "say:?",
)

_WINS = re.compile(
    _any(
        rf"{_X} ?{_IS}{_HOW} {_GOOD}\b",
        rf"{_X} (?:{_MANNER} )?(?:wins|outperforms|beats|surpasses|edges out)\b",
        rf"{_X} (?:(?:does|did|performs|performed) )?(?:{_ADVERB} )?better(?=$| than {_XS}\b)",
        rf"{_X} (?:has|had|gives|gave|provides|provided|offers|is) (?:the |a )?"
        rf"(?:better|best|more \w+)(?: {_THING}$| than {_XS}\b)",
        rf"{_X} ?(?:更好|更优|更佳|胜出|获胜|比 ?(?:{_THING} )?[ab] ?(?:更?好|强))",
        rf"(?:更好的(?:答案|回答|回复)(?:是|为)|我?(?:选择?|认为)) ?{_X}",
        rf"{_X} ?>+ ?(?:{_THING} )?[ab]\b",
        rf"\b{_FOR} {_X}{_END}",
        rf"\b{_any(_WHAT, _LEAD)}(?: (?:one|{_THING}|{_LEAD}))?(?: here| overall| between the two| of the two)?{_BE}{_X}{_END}",
    )
)
_LOSES = re.compile(
    _any(
        rf"{_X} ?{_IS}{_HOW} {_BAD}\b",
        rf"{_X} (?:{_MANNER} )?loses\b",
        rf"{_X} ?{_IS} (?:not as good as|not as \w+ as|less \w+ than) {_XS}\b",
        rf"{_X} ?<+ ?(?:{_THING} )?[ab]\b",
        rf"\b{_BAD}(?: (?:one|{_THING}))?{_BE}{_X}{_END}",
    )
)
_ALONE = re.compile(
    rf"^(?:(?:i(?:'d| would)? say|it(?:'s| is)|definitely|clearly|overall:?|hmm|well|ok|okay|yes|then|to|with|is) )*{_X}{_END}"
)
_CALLED = _any("^", r"\b(?:a|is|it's|to|say|call it|are|be|as)", "[:=]") + " ?(?:a )?(?:clear |complete |perfect )?"
_ABOUT = r"(?: (?:about|roughly|basically|essentially|practically|just|all|nearly))*"
_ALIKE = _any("equal", "even", "equivalent", "the same", "identical", "comparable", "on par", "indistinguishable")
_QUALITY = _any(
    "good|well|bad|helpful|correct|strong|poor|weak|valid|useful|right|wrong|accurate|matched|clear|convincing"
)
_TIES = re.compile(
    _any(
        rf"{_CALLED}(?:tie|draw|tied|toss-?up)(?=$| (?:because|between|since|as|overall|here|in)\b)",
        rf"\b(?:are|is|they're|both|seem|look|as){_ABOUT} {_ALIKE}(?=$| (?:in|because|overall|here|to|with|each)\b)",
        rf"\bequally {_QUALITY}\b",
        r"^(?:about |roughly )?(?:equal|even|equally|same)$",
        r"^(?:i(?:'d| would)? say |answer: |verdict: )?(?:neither|none)$",
        rf"\bneither (?:one |{_THING} |of them |of the two )?(?:is|was|wins|stands)\b",
        r"\bno (?:clear |real |significant |meaningful )*(?:winner|preference|difference)\b",
        r"\b(?:can't|cannot) (?:choose|decide)\b",
        rf"^(?:{_THING}s? )?a ?(?:==?|≈) ?b$",
        rf"^(?:they|both|{_THING}s? a and b|a and b) (?:tie|draw)$",
        r"^(?:the )?same$|\bequal quality\b|\b(?:it's|is) a wash\b|平局|平手|一样好|不分上下",
    )
)
_BEGINS_WITH_LETTER = re.compile(r"[ab]\b")
_LISTED = re.compile(rf"^(?:or|and|nor) (?:(?:a )?(?:tie|draw|equal)|{_X})$")  # the end of "A, B, or tie"
_DENIES = re.compile(
    r"\b(?:not|n't|never|no longer|hardly|doubt|if|whether|unless|would have|could be|might be|may be|which)\b|n't\b|\?$"
)
_COMPARED = re.compile(rf"\bnot as \w+ as {_XS}$")  # says which is better, without a negation
_CONCEDES = re.compile(r"^(?:and )?(?:although|though|while|even though|even if|whereas|despite)\b")
_CONCLUDES = re.compile(
    rf"^(?:overall|therefore|thus|hence|in conclusion|to conclude|in summary|in sum|all in all|finally|ultimately|on balance)\b|"
    rf"\b(?:final|{_LEAD})(?: {_any(_THING, _LEAD)})?{_BE}"
)


def _verdict_of(text: str) -> _Word | None:
    """The verdict expressed by the words of a text, if there is one."""
    said: set[_Word] = set()
    concluded: _Word | None = None
    concluding = False
    known: dict[str, _Word | None] = {}
    for clause in _clauses(text):
        if not concluding and _CONCLUDES.search(clause):
            concluding = True
        if clause not in known:
            if _LISTED.match(clause):
                said |= _WORTH.keys()
            known[clause] = _clause_verdict(clause)
        word = known[clause]
        if word is None:
            continue
        said.add(word)
        if concluding:
            concluded = word
    if concluded is not None:
        return concluded
    return said.pop() if len(said) == 1 else None


_PLACES = {
    "a": re.compile(rf"\b(?:the (?:first|former)(?: one| {_THING})|the former|{_THING} (?:1|one))\b"),
    "b": re.compile(rf"\b(?:the (?:second|latter)(?: one| {_THING})|the latter|{_THING} (?:2|two))\b"),
}
_ASIDE = re.compile(r"[(\[]([^()\[\]\n]{3,300})[)\]]")  # a separate sentence: "B (A is too short)"
_BETWEEN_SCRIPTS = re.compile(r"(?<=[\u4e00-\u9fff])(?=[ab])|(?<=[ab])(?=[\u4e00-\u9fff])")


def _clauses(text: str) -> list[str]:
    plain = _ASIDE.sub(r"\n\1\n", text)
    plain = _DECORATION.sub(lambda found: "\n" if found[0].startswith("<") else " ", plain).casefold()
    for name, pattern in _PLACES.items():
        plain = pattern.sub(f"answer {name}", plain)
    plain = _BETWEEN_SCRIPTS.sub(" ", plain)
    parts = (" ".join(part[-MAX_CLAUSE:].split()) for part in _BREAKS.split(plain))
    return [part for part in parts if part]


def _is_answer(found: re.Match[str]) -> bool:
    """Whether the letter at the beginning of a match denotes an answer, rather than being part of a name."""
    before = found.string[max(0, found.start() - 20) : found.start()]
    return not _BEGINS_WITH_LETTER.match(found[0]) or bool(_BEFORE_A_LETTER.search(before)) or not before.isascii()


def _clause_verdict(clause: str) -> _Word | None:
    if _CONCEDES.match(clause):
        return None
    denied = None if _COMPARED.search(clause) else _DENIES.search(clause)
    if (found := _TIES.search(clause)) is not None:
        return "tie" if denied is None or found.start() <= denied.start() < found.end() else None
    if denied is not None:
        return None
    for pattern, lost in ((_LOSES, True), (_WINS, False), (_ALONE, False)):
        letters = {
            letter for found in pattern.finditer(clause) for letter in found.groups() if letter and _is_answer(found)
        }
        if len(letters) == 1:
            letter = letters.pop()
            return "a" if (letter == "a") != lost else "b"
        if letters:
            return None
    return None


# -- yes or no -----------------------------------------------------------------------------------------------------------


_ASSENT = re.compile(
    rf"^(?:(?:so|well|hmm|ok|okay|thus|therefore|hence|overall|the|my|final|{_LEAD}|is|it|would|be|:|=|-|i say|then|again|indeed"
    r"|definitely|certainly|clearly|absolutely|finally) ?)*(yes|no)$"
)
_BEGINS = re.compile(
    r"^(yes|no)\b(?! (?:doubt|question|problem|longer|one|idea|need|way to|matter|further|other|errors?|issues?)\b)"
)


def read_yes_or_no(text: str) -> bool:
    """Whether a judgement says yes: by clauses that are just yes or no, which must agree, else by its first word.

    Raises:
        ValueError: it says neither, or both.

    Example:
        >>> read_yes_or_no("**Yes**, they agree. No step is missing."), read_yes_or_no("No doubt, yes"), read_yes_or_no("No.")
        (True, True, False)
    """
    plain = unicodedata.normalize("NFKC", text[-MAX_JUDGEMENT:]).translate(_SAME)
    clauses = _clauses(plain.replace(":", "\n"))
    said = {found[1] for clause in clauses if (found := _ASSENT.search(clause))}
    if (
        not said
        and clauses
        and (found := _BEGINS.search(clauses[0]))
        and not re.search(r"\b(?:and|or) (?:yes|no)\b", clauses[0])
    ):
        said = {found[1]}
    if len(said) != 1:
        raise ValueError(f"it says neither yes nor no, or both: {' '.join(text[-200:].split())[-60:]!r}")
    return said == {"yes"}


# -- marks on a scale --------------------------------------------------------------------------------------------------


def read_score(text: str, lowest: float, highest: float, key: str = "score") -> float:
    """A score from a judgement: from the last complete JSON object with the key, else ``score: 8``, ``8/10`` or ``8`` in words.

    Raises:
        ValueError: there is none, it is not finite, on another scale or out of range, or there are several.

    Example:
        >>> read_score('{"score": 3} No: {"reason": "fine", "score": "8/10"}', 1, 10), read_score("Score: 7", 1, 10)
        (8.0, 7.0)
    """
    plain = unicodedata.normalize("NFKC", text[-MAX_JUDGEMENT:])
    objects = [found for found in json_objects(plain) if key in found]
    if objects:
        return _on_scale(objects[-1][key], lowest, highest)
    if f'"{key}"' in plain:
        raise ValueError(f"its JSON with {key!r} cannot be read")
    words = _AROUND_MARK.sub("", plain).strip()
    names = "|".join(map(re.escape, (key, *_NAMES_OF_SCORE) if key == "score" else (key,)))
    announced = rf"(?:\b|(?<=[\u4e00-\u9fff]))(?:{names})['\"]?(?: ?\([^()\n]{{0,30}}\))?"
    announced += rf"(?: is| of)?(?:\s?[:=]|\s[-–—]\s)?\s?({_MARK_ON_SCALE})"
    if found := re.findall(announced, words, re.IGNORECASE):
        return _on_scale(found[-1], lowest, highest)
    if re.fullmatch(_MARK_ON_SCALE, words.rstrip(".")):
        return _on_scale(words.rstrip("."), lowest, highest)
    given = {_on_scale(found, lowest, highest) for found in re.findall(_FRACTION, words)}
    if len(given) != 1:
        raise ValueError(f"it has {'several marks' if given else f'no {key}'} from {lowest:g} to {highest:g}")
    return given.pop()


_NAMES_OF_SCORE = ("rating", "评分", "得分", "分数")
_AROUND_MARK = re.compile(r"[*`\[\]{}]|</?\w{1,20}>|\\boxed")
_NUMBER = r"(?<![\w.,/-])-?\d{1,9}(?:\.\d{1,9})?"
_FRACTION = rf"{_NUMBER}(?: ?/ ?| out of )\d{{1,9}}(?![\w%/]|[.,]\d)"
_MARK_ON_SCALE = rf"(?:{_FRACTION}|{_NUMBER}(?![A-Za-z_\d%]|[.,]\d| ?/| out of| ?[-–—] ?\d| (?:or|to) \d))"


def _on_scale(value: Any, lowest: float, highest: float) -> float:
    """The number in a JSON value or a text like ``8/10``."""
    mark, scale = value, None
    if isinstance(value, str):
        parts = re.fullmatch(r"\s?(-?\d{1,9}(?:\.\d{1,9})?)(?:(?: ?/ ?| out of )(\d{1,9}))?\s?", value[:_MAX_NUMBER])
        if parts is None or len(value) > _MAX_NUMBER:
            raise ValueError(f"its score is no number: {value[:60]!r}")
        mark, scale = float(parts[1]), parts[2]
    if isinstance(mark, bool) or not isinstance(mark, (int, float)):
        raise ValueError(f"its score is no number: {str(value)[:60]!r}")
    if not lowest <= mark <= highest or not math.isfinite(mark) or (scale is not None and float(scale) != highest):
        raise ValueError(f"it has no score from {lowest:g} to {highest:g}: {str(value)[:60]!r}")
    return float(mark)
