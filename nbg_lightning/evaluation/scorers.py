"""What a model's text is worth: answers are found in it, and compared with the gold answer.

A verdict has a status beside its score. `parse_failure` is the model's doing and counts as wrong, and its rate is reported;
`error` is a failure of ours (a verifier, an engine, a judge), has no score and is never counted as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from nbg_lightning.rewards.verifier import VerifierError, shared_verifier

Status = Literal["ok", "parse_failure", "truncated", "error"]


@dataclass(frozen=True)
class Verdict:
    """The score of one sample.

    Attributes:
        score: 0 to 1; None for an error.
        status: see the module. (`truncated` is set by the suite, from how the completion ended.)
        answer: what was found in the text, in a form that is equal for equal answers.
        error: what went wrong, in one line.
        extra: further measures as (sum, count), added up over items.
    """

    score: float | None
    status: Status = "ok"
    answer: str | None = None
    error: str | None = None
    extra: dict[str, tuple[float, float]] = field(default_factory=dict)


NOT_FOUND = Verdict(0.0, "parse_failure")


def failure(error: str) -> Verdict:
    """A verdict that says nothing of the answer."""
    return Verdict(None, "error", None, error)


# -- numbers -----------------------------------------------------------------------------------------------------------

_ANY_NUMBER = re.compile(r"(?<![\w.])[-+]?\$?\d(?:[\d,]*\d)?(?:\.\d+)?(?:\s*/\s*\d+)?%?")
_ANNOUNCED = re.compile(r"(?:####|answer\s+is|answer\s*[:=])\s*[:=]?\s*", re.IGNORECASE)


def number(text: str) -> Fraction | None:
    """The exact value of a written number: ``1,200``, ``$3.50``, ``-7``, ``3/4``.

    Example:
        >>> number("$1,200.50")
        Fraction(2401, 2)
    """
    text = re.sub(r"[\s,$%]", "", text).rstrip(".")
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def find_number(text: str, first: bool = False) -> Fraction | None:
    """The number that a text gives as its answer.

    In this order: inside the last ``\\boxed{}``; after the last "####", "answer is" or "answer:"; the last number (or the
    first, for continuations that run on).
    """
    inside = boxed(text)
    if inside is not None and (value := number(inside)) is not None:
        return value
    announced = list(_ANNOUNCED.finditer(text))
    if announced:
        match = _ANY_NUMBER.search(text, announced[-1].end())
        if match is not None and match.start() - announced[-1].end() <= 40:
            return number(match.group())
    found = _ANY_NUMBER.findall(text)
    return number(found[0 if first else -1]) if found else None


def score_number(text: str, gold: str, first: bool = False) -> Verdict:
    """Whether a text's answer is a number of this value.

    Example:
        >>> score_number("so 4 + 5 = 9 eggs. The answer is $9.00.", "9").score
        1.0
    """
    wanted = number(str(gold))
    if wanted is None:
        return failure(f"the gold answer {gold!r} is not a number")
    found = find_number(text, first)
    return NOT_FOUND if found is None else Verdict(float(found == wanted), answer=str(found))


# -- mathematics -------------------------------------------------------------------------------------------------------


def boxed(text: str) -> str | None:
    r"""What the last complete ``\boxed{...}`` (or ``\fbox``) holds.

    Example:
        >>> boxed(r"so \boxed{1} or rather \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
    """
    for begin in reversed([match.end() for match in re.finditer(r"\\(?:boxed|fbox)\s*\{", text)]):
        depth = 1
        for position in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[begin:position].strip()
    return None


_LAYOUT = re.compile(r"\\left|\\right|(?<!\\)\\[!,;:> ]|\\displaystyle|\\quad|\s+|~")


def plain_latex(text: str) -> str:
    """An expression without what does not change its meaning, for comparison as text."""
    text = text.strip().strip("$").rstrip(".")
    text = re.sub(r"\\text(?:bf|it|rm)?\{\s*([^{}]*?)\s*\}", r"\1", text)
    text = re.sub(r"\\math(?:rm|bf|it)\{([^{}]*)\}", r"\1", text)
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\%", "").replace("\\$", "")
    return _LAYOUT.sub("", text).replace("^\\circ", "").replace("^{\\circ}", "")


def find_expression(text: str) -> str | None:
    """The answer of a solution: the last box; else what follows the last "answer is"; else the last ``$...$``."""
    if (inside := boxed(text)) is not None:
        return inside
    announced = list(_ANNOUNCED.finditer(text))
    if announced:
        line = text[announced[-1].end() :].strip().split("\n")[0]
        formula = re.match(r"\$+(.+?)\$", line)
        line = formula.group(1) if formula else re.split(r"\.(?:\s|$)", line)[0]
        return line.strip(" *$") or None
    formulas = re.findall(r"(?<!\\)\$([^$]+)(?<!\\)\$", text)
    return formulas[-1].strip() if formulas else None


def compare_at_once(plain: str, wanted: str) -> Verdict | None:
    """Two expressions (as `plain_latex` gives them) compared as texts, numbers or words; None if that does not settle it."""
    if plain == wanted:
        return Verdict(1.0, answer=plain)
    values = number(plain), number(wanted)
    if None not in values:
        return Verdict(float(values[0] == values[1]), answer=str(values[0]))
    if plain.isalpha() and wanted.isalpha():  # words: math-verify would multiply their letters
        return Verdict(float(plain.lower() == wanted.lower()), answer=plain)
    return None


def score_math(text: str, gold: str) -> Verdict:
    r"""Whether a solution's answer equals the gold expression, as text, as a number, or by math-verify (in its process).

    Example:
        >>> score_math(r"Thus \boxed{\dfrac12}", r"\frac{1}{2}").score
        1.0
    """
    found = find_expression(text)
    if found is None:
        return NOT_FOUND
    plain, wanted = plain_latex(found), plain_latex(str(gold))
    verdict = compare_at_once(plain, wanted)
    if verdict is not None:
        return verdict
    try:
        equal = shared_verifier().call("math", wanted, plain)
    except VerifierError as error:
        return failure(str(error))
    return Verdict(float(equal), answer=wanted if equal else plain)


# -- tagged answers ----------------------------------------------------------------------------------------------------

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_AFTER_ANSWER = re.compile(r"answer(?:\s+is)?\s*[:=]?\s+", re.IGNORECASE)


def find_answer(text: str) -> str:
    """What stands in ``<answer>``, else in the last box, else after the last "Answer:", else the whole text.

    Example:
        >>> find_answer("Let me see. <answer> 42 </answer>")
        '42'
    """
    if tagged := _TAGGED.findall(text):
        return tagged[-1].strip()
    if (inside := boxed(text)) is not None:
        return inside
    if announced := list(_AFTER_ANSWER.finditer(text)):
        text = text[announced[-1].end() :]
    return text.strip()


# -- choices and texts -------------------------------------------------------------------------------------------------


def score_letter(text: str, gold: str, letters: Sequence[str]) -> Verdict:
    """Whether a text chooses the gold letter.

    Looked for, in this order: the last box; after the last "answer is" or "answer:"; a text that begins with the letter;
    a last line that is the letter.

    Example:
        >>> score_letter("Thinking ... The answer is (B).", "B", "ABCD").answer
        'B'
    """
    one = f"[{''.join(map(re.escape, letters))}]"
    lone = re.compile(rf"[\s(\[*$]*(?:\\(?:text|mathrm|mathbf)\{{)?\(?({one})(?![A-Za-z])")
    inside = boxed(text)
    places = [] if inside is None else [inside]
    places += [text[match.end() :] for match in list(_ANNOUNCED.finditer(text))[-1:]]
    lines = text.strip().splitlines() or [""]
    places += [lines[0]] if re.fullmatch(rf"\W*{one}(?:\W*|[).:]\W*\s.*)", lines[0]) else []
    places += [lines[-1]] if re.fullmatch(rf"\W*{one}\W*", lines[-1]) else []
    for place in places:
        if match := lone.match(place):
            return Verdict(float(match.group(1) == gold), answer=match.group(1))
    return NOT_FOUND


def score_exact(text: str, gold: str) -> Verdict:
    """Whether the first line (or what follows "answer:") is the gold text, but for case, spaces and a final stop."""
    announced = list(_ANNOUNCED.finditer(text))
    text = text[announced[-1].end() :] if announced else text
    lines = text.strip().splitlines()
    if not lines:
        return NOT_FOUND
    inside = boxed(lines[0])

    def plain(value: str) -> str:
        return " ".join(value.split()).strip(" .*\"'").lower()

    found = plain(lines[0] if inside is None else inside)
    return Verdict(float(found == plain(str(gold))), answer=found)
