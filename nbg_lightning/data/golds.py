"""The gold answer of a row and its choices, read in the same way for question sources and benchmarks.

A gold answer that nothing can match would always score 0, so ambiguous ones are refused with an explanation.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from nbg_lightning.chat.values import MAX_INTEGER_BITS, check_text, quoted

MAX_GOLD_CHARACTERS = 100_000
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_MISSING = re.compile(r"nan|[+-]?inf|nat|<na>", re.IGNORECASE)  # what exports write for an empty cell
_LABEL = re.compile(r"\(\s*(\S{1,8}?)\s*\)|(\S{1,8}?)[.):]?")
_NUMBER = re.compile(r"[+-]?(\d{1,300}(\.\d{0,300})?|\.\d{1,300})")
_REASONS = {
    bool: "is a truth value; write the text that an answer has to be, such as 'True' or 'yes'",
    bytes: "is of bytes: decode it to a text",
    Mapping: "is an object; give its text, or a number",
}


def plain(value: Any) -> Any:
    """A value as a plain Python value, converting numpy's scalars and arrays."""
    np = sys.modules.get("numpy")  # whoever has a numpy value has imported numpy; processes of episodes need not
    if np is None:
        return value
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def said(value: Any) -> str:
    """A short quotation of any value."""
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        return "of too many digits"
    return quoted(str(value)[:200])


def gold_text(value: Any) -> str | None:
    """A gold answer as text; None if there is none. A list of one answer is that answer; a float is its shortest repr.

    Raises:
        ValueError: no answer can match it, or it is not a single answer.
    """
    value = plain(value)
    if value is None:
        return None
    for kind, reason in _REASONS.items():
        if isinstance(value, kind):
            raise ValueError(f"the answer {said(value)} {reason}")
    if isinstance(value, (list, tuple, set, frozenset)):
        if len(value) == 1:
            return gold_text(next(iter(value)))
        raise ValueError(
            f"the answer is a list of {len(value)}: only one gold is supported; keep one, or write them as one text, "
            "such as '5, 6', if an answer has to give all of them"
        )
    if isinstance(value, str):
        return _gold_of_text(value)
    if isinstance(value, Integral):
        if int(value).bit_length() > MAX_INTEGER_BITS:
            raise ValueError("the answer is a number of too many digits; write it as a text, such as 2^20000")
        return str(value)
    if isinstance(value, (Real, Decimal)):
        if not math.isfinite(value):
            raise ValueError(f"the answer is {value}, which no answer equals; remove the row, or fill it in")
        return str(value)
    raise ValueError(f"the answer is of type {type(value).__name__}; give a text or a number")


def _gold_of_text(value: str) -> str:
    if not value.strip():
        raise ValueError("the answer is empty; give a text, or leave it out")
    if len(value) > MAX_GOLD_CHARACTERS:
        raise ValueError(f"the answer has {len(value):,} characters; shorten it to {MAX_GOLD_CHARACTERS:,}")
    try:
        check_text(value)
    except ValueError as error:
        raise ValueError(f"the answer has {error}; repair its encoding") from None
    if _MISSING.fullmatch(value.strip()):
        raise ValueError(
            f"the answer is {value.strip()!r}, which exports write for a missing one; remove the row, or write the answer in "
            "words or LaTeX, such as \\infty"
        )
    return value


@dataclass(frozen=True)
class Choices:
    """The answers to choose from.

    Attributes:
        texts: their texts.
        labels: their labels; A, B, C, … if the row gives none.
        named: whether the row gives labels.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    named: bool = False

    @classmethod
    def read(cls, value: Any) -> Choices:
        """Read a list of texts or numbers, or ``{"text": [...], "label": [...]}``.

        Raises:
            ValueError: there are fewer than two or too many choices, two are equal, or one is not a text.
        """
        value, labels = plain(value), None
        if isinstance(value, Mapping):
            if "text" not in value or set(value) - {"text", "label"}:
                raise ValueError(
                    "choices are an object without text and label; give a list, or {'text': […], 'label': […]}"
                )
            labels, value = plain(value.get("label")), plain(value["text"])
        texts = _texts(value, "choices")
        if len(texts) < 2:
            raise ValueError(f"there are {len(texts)} choices; give two or more, or remove the field")
        if labels is None and len(texts) > len(LETTERS):
            raise ValueError(f"there are {len(texts)} choices, more than {len(LETTERS)} letters; give explicit labels")
        names = LETTERS[: len(texts)] if labels is None else _texts(labels, "labels of choices")
        if len(names) != len(texts):
            raise ValueError(f"there are {len(texts)} choices and {len(names)} labels; give the same number of both")
        return cls(texts, tuple(names), labels is not None)

    def right(self, answer: Any) -> int:
        """Index of the gold answer, which is given as a choice's text, its label (``B``, ``b``, ``(B)``) or its index.

        Raises:
            ValueError: it is none of the choices, or could be two of them.
        """
        readings = self.readings(answer)
        if not readings:
            raise ValueError(
                f"the answer {said(answer)} is not among the {len(self.texts)} choices; give the text or the "
                f"label ({self.labels[0]} to {self.labels[-1]}) of one, or its index from 0 as answer_index"
            )
        if len(set(readings.values())) > 1:
            meant = " or ".join(f"{self.texts[place][:40]!r} (by its {how})" for how, place in readings.items())
            raise ValueError(
                f"the answer {said(answer)} is ambiguous: {meant}; give the index from 0 as answer_index"
                f"{'' if isinstance(answer, str) else ', or the label or text of the choice as a text'}"
            )
        return next(iter(readings.values()))

    def index(self, value: Any) -> int:
        """Check a given ``answer_index``.

        Raises:
            ValueError: it is not an integer, or out of range.
        """
        value = plain(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(self.texts):
            raise ValueError(f"answer_index is invalid: {said(value)}; give 0 to {len(self.texts) - 1}")
        return value

    def readings(self, answer: Any) -> dict[str, int]:
        """All indices that a gold answer can refer to, by how it is read: as a text, a label, a value or an index."""
        answer = plain(answer)
        if isinstance(answer, (list, tuple)) and len(answer) == 1:
            answer = plain(answer[0])
        if isinstance(answer, bool):
            return _found(text=self._place(self.texts, str(answer)))
        if isinstance(answer, str):
            wanted = answer.strip()
            match = _LABEL.fullmatch(wanted)
            label = None if match is None else self._place(self.labels, match[1] or match[2])
            return _found(text=self._place(self.texts, wanted), label=label)
        if isinstance(answer, (int, float, Decimal)):
            value = self._of_value(answer)
            if not isinstance(answer, int):
                return _found(value=value)
            label = self._place(self.labels, str(answer)) if self.named else None
            numeric = all(_NUMBER.fullmatch(text) for text in self.texts)
            is_index = 0 <= answer < len(self.texts) and not (numeric and value is None)
            return _found(value=value, label=label, index=answer if is_index else None)
        return {}

    def _of_value(self, answer: int | float | Decimal) -> int | None:
        if isinstance(answer, int) and answer.bit_length() > MAX_INTEGER_BITS:
            return None
        places = [n for n, text in enumerate(self.texts) if _NUMBER.fullmatch(text) and _equal(text, answer)]
        return places[0] if len(places) == 1 else None

    @staticmethod
    def _place(names: Sequence[str], wanted: str) -> int | None:
        """Index of a name among the choices: an exact match, or the only match when ignoring case."""
        if wanted in names:
            return names.index(wanted)
        folded = [place for place, name in enumerate(names) if name.casefold() == wanted.casefold()]
        return folded[0] if len(folded) == 1 else None


def _equal(text: str, answer: int | float | Decimal) -> bool:
    return Decimal(text) == (Decimal(repr(answer)) if isinstance(answer, float) else Decimal(answer))


def _found(**readings: int | None) -> dict[str, int]:
    return {how: place for how, place in readings.items() if place is not None}


def _texts(values: Any, what: str) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{what} are of type {type(values).__name__}; give a list")
    texts = []
    for value in map(plain, values):
        if isinstance(value, bool):
            texts.append(str(value))
            continue
        try:
            text = gold_text(value) if not isinstance(value, str) or not _MISSING.fullmatch(value.strip()) else value
        except ValueError as error:
            raise ValueError(f"{what} are invalid: {str(error).replace('the answer', 'one')}") from None
        if text is None or isinstance(value, (list, tuple)):
            raise ValueError(f"{what} are invalid: one is {'missing' if text is None else 'a list'}; give texts")
        texts.append(text.strip())
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise ValueError(f"{what} have {twice[:60]!r} twice; remove one, so that one is right")
    return tuple(texts)


def right_choice(row: Mapping[str, Any], answer_field: str = "answer") -> tuple[Choices, int] | None:
    """The choices of a row and the index of the right one; None if the row has no choices.

    The gold is ``answer_index``, the answer's field, or ``answerKey``; if several are given they must agree.

    Raises:
        ValueError: as `Choices`; or there is no gold, or two disagree.
    """
    if row.get("choices") is None:
        return None
    choices = Choices.read(row["choices"])
    place = None if row.get("answer_index") is None else choices.index(row["answer_index"])
    for name in dict.fromkeys((answer_field, "answerKey")):
        value = plain(row.get(name))
        if value is None:
            continue
        if place is None:
            place = choices.right(value)
        elif place not in choices.readings(value).values():
            given = f"{name} is {said(value)}"
            raise ValueError(f"{given}, but another field says {choices.texts[place][:60]!r}; remove the wrong one")
    if place is None:
        raise ValueError(
            f"there are choices, but no {answer_field}; give the text, the label or answer_index of the right one"
        )
    return choices, place
