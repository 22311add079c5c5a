"""What a page shows, whatever file it was read from: records with what was asked, and what was answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
ShownOutcome = Literal["right", "wrong", "mixed", "unscored"]
"""Of a record: all scored answers have at least 1, all have at most 0, anything else, none has a score."""

Facts = tuple[tuple[str, str], ...]
"""Names and values, shown in one line."""


@dataclass(frozen=True)
class ShownPiece:
    """A run of text that is trained alike.

    Attributes:
        text: what stands there.
        weight: of its tokens in the loss; 0 is context, None is unknown.
    """

    text: str
    weight: float | None = None


@dataclass(frozen=True)
class ShownTurn:
    """A message, or a whole prompt.

    Attributes:
        role: who says it; empty for rendered text, which names roles itself.
        pieces: in order.
    """

    role: str
    pieces: tuple[ShownPiece, ...]


@dataclass(frozen=True)
class ShownAnswer:
    """One answer of a record.

    Attributes:
        name: such as ``answer 2`` or ``chosen``.
        turns: what was written.
        score: its reward or score; None without one.
        facts: advantage, tokens, what ended it.
    """

    name: str
    turns: tuple[ShownTurn, ...]
    score: float | None = None
    facts: Facts = ()


@dataclass(frozen=True)
class ShownRecord:
    """A question, item, pair or conversation.

    Attributes:
        key: of the same record in another run.
        title: where it is from.
        group: source, benchmark or domain: what a reader filters by.
        prompt: what was asked.
        answers: what was answered; a conversation has none.
        gold: the reference answer.
        facts: anything else.
        rate: share of right answers, where they are counted and not kept.
    """

    key: str
    title: str
    group: str
    prompt: tuple[ShownTurn, ...] = ()
    answers: tuple[ShownAnswer, ...] = ()
    gold: str | None = None
    facts: Facts = ()
    rate: float | None = None

    @property
    def scores(self) -> list[float]:
        """Scores of the answers that have one, or the rate."""
        if self.rate is not None:
            return [self.rate]
        return [answer.score for answer in self.answers if answer.score is not None]

    @property
    def score(self) -> float | None:
        """Their mean; None without any."""
        return sum(self.scores) / len(self.scores) if self.scores else None

    @property
    def outcome(self) -> ShownOutcome:
        """See `ShownOutcome`."""
        if not self.scores:
            return "unscored"
        if min(self.scores) >= 1:
            return "right"
        return "wrong" if max(self.scores) <= 0 else "mixed"


@dataclass(frozen=True)
class Bar:
    """A line of a small chart: a label, a length from 0 to 1, and the number it stands for."""

    label: str
    length: float
    value: str


@dataclass
class ShownRecords:
    """The records of a file.

    Attributes:
        title: where they are from.
        noun: what one of them is, in the plural.
        records: those that are shown.
        total: how many the file has, shown or not.
        notes: what else is to be said, such as lines that could not be read.
        facts: of the whole file.
        bars: a chart of the whole file, under its title.
    """

    title: str
    noun: str
    records: list[ShownRecord]
    total: int
    notes: list[str] = field(default_factory=list)
    facts: Facts = ()
    bars: tuple[str, list[Bar]] | None = None


@dataclass(frozen=True)
class Side:
    """A record in one or two runs; at least one of them has it.

    Attributes:
        first: of the only or the first run.
        second: of the second run.
    """

    first: ShownRecord | None
    second: ShownRecord | None = None

    @property
    def record(self) -> ShownRecord:
        """The one that there is, the first before the second."""
        found = self.first or self.second
        assert found is not None
        return found

    @property
    def change(self) -> str:
        """``better``, ``worse`` or ``same``: the second run's mean score beside the first's; empty where one has none."""
        before = self.first.score if self.first else None
        after = self.second.score if self.second else None
        if before is None or after is None:
            return ""
        return "same" if before == after else "better" if after > before else "worse"


def side_by_side(first: Sequence[ShownRecord], second: Sequence[ShownRecord] | None) -> list[Side]:
    """The records of one run, or those of two runs by their keys; those that only the second has come last.

    A key that stands several times is taken in order: the first with the first.

    Example:
        >>> one, two = ShownRecord("a", "", ""), ShownRecord("b", "", "")
        >>> [(bool(side.first), bool(side.second)) for side in side_by_side([one], [two])]
        [(True, False), (False, True)]
    """
    if second is None:
        return [Side(record) for record in first]
    waiting: dict[str, list[ShownRecord]] = {}
    for record in second:
        waiting.setdefault(record.key, []).append(record)
    found = []
    for record in first:
        partners = waiting.get(record.key)
        found.append(Side(record, partners.pop(0) if partners else None))
    left = {id(record) for records in waiting.values() for record in records}
    return found + [Side(None, record) for record in second if id(record) in left]


class EveryNth(Generic[T]):
    """Some of many, evenly spread, in one pass and little memory: every n-th, where n is a power of two.

    Args:
        limit: how many are kept, at most.

    Example:
        >>> kept = EveryNth(4)
        >>> for number in range(10):
        ...     kept.add(number)
        >>> kept.items, kept.stride, kept.total
        ([0, 4, 8], 4, 10)
    """

    def __init__(self, limit: int):
        self.items: list[T] = []
        self.stride, self.total, self._limit = 1, 0, max(1, limit)

    @property
    def wanted(self) -> bool:
        """Whether the next one is kept."""
        return self.total % self.stride == 0

    def add(self, item: T) -> None:
        """Count one, and keep it where it falls on the stride."""
        if self.wanted:
            self.items.append(item)
            if len(self.items) > self._limit:
                self.items = self.items[::2]
                self.stride *= 2
        self.total += 1


def fact(name: str, value: object) -> Facts:
    """A fact where there is a value; nothing for None."""
    return () if value is None else ((name, f"{value:g}" if isinstance(value, float) else str(value)),)


def plain(role: str, text: str, weight: float | None = None) -> ShownTurn:
    """A turn of one piece."""
    return ShownTurn(role, (ShownPiece(text, weight),))


def all_facts(parts: Iterable[Facts]) -> Facts:
    """Several in a row."""
    return tuple(pair for part in parts for pair in part)
