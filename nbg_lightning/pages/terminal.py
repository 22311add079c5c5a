"""Records in a terminal: prompts and answers, with trained tokens in colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nbg_lightning.pages.document import shortened
from nbg_lightning.pages.records import Facts, ShownAnswer, ShownRecord, ShownRecords, ShownTurn
from nbg_lightning.printable import printable

if TYPE_CHECKING:
    from rich.text import Text

TRAINED, WEIGHTED, QUIET = "black on green", "black on yellow", "dim"


def record_lines(collections: Sequence[ShownRecords], most_characters: int) -> Iterable[Text]:
    """Lines for a terminal; control characters in texts are escaped."""
    from rich.text import Text

    for collection in collections:
        head = f"{collection.title}: {len(collection.records):,} of {collection.total:,} {collection.noun}"
        yield Text(printable(head), style="bold")
        for record in collection.records:
            yield from _record(record, most_characters)


def _record(record: ShownRecord, most: int) -> Iterable[Text]:
    from rich.text import Text

    yield Text(printable(f"\n== {record.title} {record.group}".rstrip()), style="bold")
    yield from _facts(record.facts)
    for turn in record.prompt:
        yield _turn(turn, most)
    if record.gold is not None:
        yield Text(f"gold: {printable(shortened(record.gold, most))}", style=QUIET)
    for answer in record.answers:
        yield from _answer(answer, most)


def _answer(answer: ShownAnswer, most: int) -> Iterable[Text]:
    from rich.text import Text

    score = "" if answer.score is None else f": {answer.score:g}"
    yield Text(f"\n-- {printable(answer.name)}{score}", style="bold")
    yield from _facts(answer.facts)
    for turn in answer.turns:
        yield _turn(turn, most)


def _turn(turn: ShownTurn, most: int) -> Text:
    from rich.text import Text

    found = Text(f"[{printable(turn.role)}] " if turn.role else "", style=QUIET)
    for piece in turn.pieces:
        style = "" if not piece.weight else TRAINED if piece.weight == 1 else WEIGHTED
        found.append(printable(shortened(piece.text, most)), style=style or "not dim")
    return found


def _facts(facts: Facts) -> Iterable[Text]:
    from rich.text import Text

    if facts:
        yield Text(", ".join(printable(f"{name} {value}".strip()) for name, value in facts), style=QUIET)
