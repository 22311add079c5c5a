"""Verdicts on a model's text: the answer is extracted, and compared with the gold answer.

An unparsable answer is the model's fault: it counts as wrong, and the rate of these is reported. A failure of the library (a
verifier, an engine, a judge) has no score and is never counted as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from nbg_lightning.scoring.boxes import boxed, tagged
from nbg_lightning.scoring.characters import plain_characters
from nbg_lightning.scoring.fences import code_blocks
from nbg_lightning.scoring.letters import extract_letter
from nbg_lightning.scoring.mathematics.compare import Pairs, compare, value_of
from nbg_lightning.scoring.mathematics.reader import read
from nbg_lightning.scoring.mathematics.values import Number, Unread
from nbg_lightning.scoring.places import announced, extract_expression, extract_value
from nbg_lightning.scoring.result import NOT_FOUND as NOT_FOUND
from nbg_lightning.scoring.result import Verdict, failure, unreadable
from nbg_lightning.scoring.verifier import VerifierError, shared_verifier

# -- numbers -----------------------------------------------------------------------------------------------------------


def number(text: str) -> Fraction | None:
    """The exact value of a written number: ``1,200``, ``$3.50``, ``-7``, ``3/4``; for a percentage the number before the sign.

    Example:
        >>> number("$1,200.50")
        Fraction(2401, 2)
    """
    value = read(text)
    return _fraction(value) if isinstance(value, Number) else None


def extract_number(text: str, first: bool = False) -> Fraction | None:
    """The number that a text gives as its answer; see `nbg_lightning.scoring.places`.

    Args:
        text: a model's text.
        first: without a mark, use the first number of the text instead of the last: for continuations that run on.
    """
    found = extract_value(text, first)
    return None if isinstance(found, str) else _fraction(found)


def _fraction(value: Number | None) -> Fraction | None:
    return None if value is None else value.exact.rational


def score_number(text: str, gold: str, first: bool = False) -> Verdict:
    """Whether a text's answer is a number with this value.

    Example:
        >>> score_number("so 4 + 5 = 9 eggs. The answer is $9.00.", "9").score
        1.0
    """
    wanted = value_of(read(str(gold)))
    if wanted is None or wanted.rational is None:
        return failure(f"the gold answer {str(gold)[:60]!r} is not a number")
    found = extract_value(text, first)
    if isinstance(found, str):
        return unreadable(found)
    return Verdict(float(compare(wanted, found) is True), answer=str(found.rational))


# -- mathematics -------------------------------------------------------------------------------------------------------


def score_math(text: str, gold: str) -> Verdict:
    r"""Whether a solution's answer equals the gold expression: decided exactly, else by math-verify (in its process).

    Example:
        >>> score_math(r"Thus \boxed{\dfrac12}", r"\frac{1}{2}").score
        1.0
    """
    found = extract_expression(text)
    if not found:
        return unreadable("no answer is marked")
    wanted, value = read(str(gold)), read(found)
    if isinstance(value, Unread) and value.beyond:
        return unreadable(value.reason)
    verdict = compare(wanted, value)
    if not isinstance(verdict, bool):
        return _asked(verdict, wanted.plain, value.plain)
    return Verdict(float(verdict), answer=wanted.plain if verdict else value.plain)


def _asked(pairs: Pairs, wanted: str, found: str) -> Verdict:
    """The verdict of math-verify on pairs that must all be equal. An unequal one decides, whatever the others give."""
    failed = None
    for pair in pairs:
        try:
            outcome = shared_verifier().ask("math", *pair)
        except VerifierError as error:
            failed = failure(str(error))
            continue
        if not outcome.value:
            reason = f"math-verify did not decide: {outcome.detail}" if outcome.detail else ""
            return Verdict(0.0, detail=reason, answer=found)
    return failed or Verdict(1.0, answer=wanted)


# -- tagged answers ----------------------------------------------------------------------------------------------------


def extract_answer(text: str) -> str:
    """The content of ``<answer>``, else of the last box, else the text after the last "Answer:", else the whole text.

    All lines are kept as written: characters such as ``_`` and ``#`` are the cells of a board. Only a fence, or asterisks
    around the announcement or the whole answer, are removed.

    Example:
        >>> extract_answer("Let me see. <answer> 42 </answer>"), extract_answer("**Answer:** _ Q\\nQ _")
        ('42', '_ Q\\nQ _')
    """
    for marked in (tagged(text), boxed(text)):
        if marked is not None:
            return marked
    return _as_written(next((said.behind for said in announced(text)), text))


def _as_written(region: str) -> str:
    """The text after an announcement, without its layout."""
    answer = region.strip().removeprefix(":").strip()
    if answer[:3] in ("** ", "**\n"):  # they end the announcement: **Answer:** 5
        answer = answer[3:].strip()
    blocks = code_blocks(answer) if answer.startswith("```") else []
    if blocks:
        return blocks[0].code.strip()
    whole = answer.removeprefix("**").removesuffix("**")
    return whole.strip() if len(whole) == len(answer) - 4 and "**" not in whole else answer


# -- choices and texts -------------------------------------------------------------------------------------------------


def score_letter(text: str, gold: str, letters: Sequence[str], options: Sequence[str] = ()) -> Verdict:
    """Whether a text chooses the gold letter; see `nbg_lightning.scoring.letters`. Options with the same text are one answer.

    Args:
        text: a model's text.
        gold: the right letter.
        letters: letters of all options.
        options: their texts, by which an answer may choose too.

    Example:
        >>> score_letter("Thinking ... The answer is (B).", "B", "ABCD").answer
        'B'
    """
    found, reason = extract_letter(text, letters, options)
    if found is None:
        return unreadable(reason)
    texts = dict(zip(letters, options, strict=False))
    return Verdict(float(found == gold or (found in texts and texts[found] == texts.get(gold))), answer=found)


def score_exact(text: str, gold: str) -> Verdict:
    """Whether the first line (or the text after "answer:") is the gold text, ignoring case, spaces and a final full stop."""
    region = next((said.answer for said in announced(text)), text).strip()
    line = boxed(text) or tagged(text) or next(iter(region.splitlines()), "")

    def plain(value: str) -> str:
        return " ".join(plain_characters(value).split()).strip(" .*\"'`").lower()

    found = plain(line)
    if not found:
        return unreadable("there is no answer")
    return Verdict(float(found == plain(str(gold))), answer=found)
