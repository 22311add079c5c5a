"""Parsing of judge output on criteria: a list of criteria, or a score for each. Missing scores are never guessed."""

from __future__ import annotations

import re

from nbg_lightning.scoring.judgements import MAX_JUDGEMENT

LOWEST, HIGHEST = 0, 9  # one character each; graded scores work better than binary ones
MAX_CRITERION = 300  # characters
_ITEM = re.compile(r"[ \t]{0,8}(?:[-*•]|\(?\d{1,2}[.):])[ \t]{1,8}(\S.{0,2000})")
_MARK = re.compile(
    r"[\s*#(\[>-]{0,8}(?:criterion )?(\d{1,2})[\s*\])]{0,4}(?::|\.(?=\s)|=|-|–|\))[\s*]{0,4}(?:score[\s:=*]{0,4})?"
    r"(-?\d{1,6}(?:\.\d{1,6})?)(?:\s{0,2}(?:/|out of)\s{0,2}(\d{1,6}))?(?![\w%/]|\.\d)",
    re.IGNORECASE,
)


def read_criteria(text: str, most: int) -> list[str]:
    """The items of a list without duplicates, at most ``most``.

    Raises:
        ValueError: there is none.

    Example:
        >>> read_criteria("Sure!\\n- It names the capital.\\n2. It is short.", 5)
        ['It names the capital.', 'It is short.']
    """
    items = (match[1].strip(" *\t") for line in text[-MAX_JUDGEMENT:].splitlines() if (match := _ITEM.match(line)))
    found = list(dict.fromkeys(item[:MAX_CRITERION] for item in items if item))
    if not found:
        raise ValueError(f"it lists no criteria: {_shown(text)}")
    return found[:most]


def read_marks(text: str, count: int) -> list[float]:
    """A score from 0 to 9 for each criterion, from lines such as ``2: 7`` or ``2. **7/9** because ...``.

    Raises:
        ValueError: a criterion has no score, conflicting ones, or one that is out of range.

    Example:
        >>> read_marks("1: 9\\n2: 4.5 - too long", 2)
        [9.0, 4.5]
    """
    marks: dict[int, float] = {}
    for line in text[-MAX_JUDGEMENT:].splitlines():
        match = _MARK.match(line)
        if match is None or not 1 <= int(match[1]) <= count:
            continue
        number, mark = int(match[1]), float(match[2])
        if not LOWEST <= mark <= HIGHEST or (match[3] is not None and int(match[3]) != HIGHEST):
            raise ValueError(f"criterion {number} has a mark off the scale of {LOWEST} to {HIGHEST}: {_shown(line)}")
        if marks.setdefault(number, mark) != mark:
            raise ValueError(f"criterion {number} has the marks {marks[number]:g} and {mark:g}")
    missing = [str(number) for number in range(1, count + 1) if number not in marks]
    if missing:
        raise ValueError(f"no mark for criterion {', '.join(missing[:5])}: {_shown(text)}")
    return [marks[number] for number in range(1, count + 1)]


def _shown(text: str) -> str:
    return repr(" ".join(text[-200:].split())[-60:])
