"""Records, the common format of everything that a page displays: a prompt with its answers."""

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
    """A run of text with one loss weight.

    Attributes:
        text: the text.
        weight: loss weight of its tokens; 0 is context, None is unknown.
    """

    text: str
    weight: float | None = None


@dataclass(frozen=True)
class ShownTurn:
    """A message, or a whole prompt.

    Attributes:
        role: the role; empty for rendered text, which contains the roles.
        pieces: its pieces, in order.
    """

    role: str
    pieces: tuple[ShownPiece, ...]


@dataclass(frozen=True)
class ShownAnswer:
    """One answer of a record.

    Attributes:
        name: label such as ``answer 2`` or ``chosen``.
        turns: its turns.
        score: its reward or score; None without one.
        facts: advantage, number of tokens, finish reason.
    """

    name: str
    turns: tuple[ShownTurn, ...]
    score: float | None = None
    facts: Facts = ()


@dataclass(frozen=True)
class ShownRecord:
    """A question, item, pair or conversation.

    Attributes:
        key: identifies the same record in another run.
        title: its origin.
        group: source, benchmark or domain, by which a reader can filter.
        prompt: the prompt.
        answers: the answers; a conversation has none.
        gold: the reference answer.
        facts: further data.
        rate: pass rate, if answers are counted but not stored.
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
    """A bar of a small chart: a label, a length from 0 to 1, and its number."""

    label: str
    length: float
    value: str


@dataclass
class ShownRecords:
    """The records of a file.

    Attributes:
        title: their origin.
        noun: what they are, in the plural.
        records: the records shown.
        total: number of records in the file, shown or not.
        notes: remarks, such as lines that could not be read.
        facts: data about the whole file.
        bars: a chart of the whole file, with its title.
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
        first: record of the only or the first run.
        second: record of the second run.
    """

    first: ShownRecord | None
    second: ShownRecord | None = None

    @property
    def record(self) -> ShownRecord:
        """The first record, or the second if there is no first."""
        found = self.first or self.second
        assert found is not None
        return found

    @property
    def change(self) -> str:
        """``better``, ``worse`` or ``same``: the second run's mean score compared with the first's; empty if either is
        missing.
        """
        before = self.first.score if self.first else None
        after = self.second.score if self.second else None
        if before is None or after is None:
            return ""
        return "same" if before == after else "better" if after > before else "worse"


def side_by_side(first: Sequence[ShownRecord], second: Sequence[ShownRecord] | None) -> list[Side]:
    """The records of one run, or of two runs matched by key; those that only the second has come last.

    Repeated keys are matched in order.

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
    """Evenly spaced subsample in one pass with little memory: every n-th item, where n is a power of two.

    Args:
        limit: maximum number of items kept.

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
        """Whether the next item is kept."""
        return self.total % self.stride == 0

    def add(self, item: T) -> None:
        """Count an item, and keep it if it falls on the stride."""
        if self.wanted:
            self.items.append(item)
            if len(self.items) > self._limit:
                self.items = self.items[::2]
                self.stride *= 2
        self.total += 1


def fact(name: str, value: object) -> Facts:
    """A fact if there is a value; empty for None."""
    return () if value is None else ((name, f"{value:g}" if isinstance(value, float) else str(value)),)


def plain(role: str, text: str, weight: float | None = None) -> ShownTurn:
    """A turn of one piece."""
    return ShownTurn(role, (ShownPiece(text, weight),))


def all_facts(parts: Iterable[Facts]) -> Facts:
    """Several in a row."""
    return tuple(pair for part in parts for pair in part)
