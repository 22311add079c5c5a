"""Reading rows of chat sources as conversations, with notes on what was found, for one log line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from nbg_lightning.chat.conversation import Conversation, ConversationError
from nbg_lightning.chat.formats import NOT_USED, READ_AS, SYSTEM_COLUMNS, TOOL_COLUMNS
from nbg_lightning.chat.values import did_you_mean
from nbg_lightning.data.pair_formats import SCORES, SWAPPED

Notes = Counter[str]
"""Counts of formats, columns and untrained turns that would otherwise go unnoticed."""

MAX_NOTES = 64  # maximum number of different notes: column names are untrusted
OPTIONAL_COLUMNS = (*SYSTEM_COLUMNS, *TOOL_COLUMNS, "history", "input")  # rows without them are valid too
LISTED = 8  # columns listed in a line
NOT_TRAINED = "assistant turns not trained"
NULLS = "null keys of Arrow left out of tools and calls"
VERSION = 3  # of the way rows are read: rows read in another way are prepared again


def read_conversations(
    rows: Iterable[Any], notes: Notes, row_format: str, ignored_keys: Collection[str] = ()
) -> Iterator[Conversation | ConversationError]:
    """Read every row as a conversation, or return its error.

    Args:
        rows: rows of `ChatPart.rows`.
        notes: updated in place.
        row_format: see `Conversation.from_dict`.
        ignored_keys: see `Conversation.from_dict`.
    """
    for row in rows:
        try:
            conversation = Conversation.from_dict(row, row_format=row_format, ignored_keys=ignored_keys)
        except ConversationError as error:
            yield error
            continue
        add_notes(notes, conversation.notes)
        for message in conversation.messages:
            if message.weight == 0.0 and message.role == "assistant":
                notes[NOT_TRAINED] += 1
        yield conversation


def add_notes(notes: Notes, found: Iterable[str]) -> None:
    """Count notes, of a bounded number of kinds."""
    for note in found:
        if note in notes or len(notes) < MAX_NOTES:
            notes[note] += 1


def describe(notes: Notes) -> str:
    """Describe the notes in one line: the formats with their rows, then everything else."""
    formats = {note.removeprefix(READ_AS): count for note, count in notes.items() if note.startswith(READ_AS)}
    columns = [note.removeprefix(NOT_USED) for note in notes if note.startswith(NOT_USED)]
    others = {note: count for note, count in notes.items() if not note.startswith((READ_AS, NOT_USED))}
    pieces = [", ".join(f"{label}, {count:,} rows" for label, count in formats.items())]
    pieces += [f"{note}: {count:,}" for note, count in others.items()]
    if columns:
        more = f" and {len(columns) - LISTED} more" if len(columns) > LISTED else ""
        pieces.append(f"columns not used: {', '.join(columns[:LISTED])}{more}")
    return "; ".join(piece for piece in pieces if piece) or "nothing: no row can be used"


def likely_mistakes(notes: Notes) -> list[str]:
    """Unused columns with a name like a used one, and pairs that may be swapped."""
    columns = [note.removeprefix(NOT_USED) for note in notes if note.startswith(NOT_USED)]
    unread = [name for name in columns if not set(name.split("_")) & set(OPTIONAL_COLUMNS)]  # "input_id" is not "input"
    found = [f"column {name!r} is not used{hint}" for name in unread if (hint := did_you_mean(name, OPTIONAL_COLUMNS))]
    if notes[SWAPPED]:
        found.append(f"{notes[SWAPPED]:,} of {notes[SCORES]:,} {SWAPPED}: are chosen and rejected the wrong way round?")
    return found
