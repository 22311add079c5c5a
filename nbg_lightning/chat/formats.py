"""Formats of public chat data: each row is read as messages, depending on its keys.

* messages: ``messages``: a list of ``{"role", "content", …}``
* sharegpt: ``conversations``: a list of ``{"from", "value"}``
* alpaca: ``instruction``, optionally ``input`` and ``history``, and ``output`` or ``response``
* prompt_completion: ``prompt`` and ``completion``, as texts or as messages
* question_answer: ``question``, ``query`` or ``prompt`` with ``answer`` or ``response``; ``input`` with ``output``; optionally
  ``history``

In addition, `system` (or `system_prompt`) becomes the system turn; `tools` (or `functions`) are the available tools. A list
of turns may have either kind of turns under either name, and may be JSON text. Two columns that could both be trained on must
have the same content.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from nbg_lightning.chat.turns import (
    ChatRow,
    assistant,
    history_turns,
    is_dialogue,
    json_turns,
    prompt_turns,
    turn_list,
    turns_of,
    untrained,
    user,
    with_system,
    without_keys,
)
from nbg_lightning.chat.values import ConversationError, did_you_mean, key_list, optional_text, quoted

AUTO = "auto"
TURN_LISTS = ("messages", "conversations", "conversation")
SYSTEM_COLUMNS = ("system", "system_prompt")
TOOL_COLUMNS = ("tools", "functions")
CONTEXT_COLUMNS = (*SYSTEM_COLUMNS, *TOOL_COLUMNS, "domain")
# (question, answer) columns of rows with a single round, most specific first.
SINGLE_ROUNDS = (
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "answer"),
    ("query", "response"),
    ("input", "output"),
)
# Columns of other tasks: a row with one of them is not what it looks like.
REFUSED_COLUMNS = {
    **dict.fromkeys(("images", "image", "videos", "video", "audios", "audio"), "only text is supported"),
    "chat_template_kwargs": "settings of a template are the datamodule's, not a row's; remove the column",
}
VERDICT_COLUMNS = ("label", "kto_tag")  # TRL's and LLaMA-Factory's
PREFERENCE = "the row has chosen and rejected answers; give it to a pair source and PreferenceDataModule"
SINGLE_VERDICTS = (
    "the row has one answer with a label (KTO), and training on it would train on bad answers too: keep the good ones, or make "
    "pairs of chosen and rejected"
)

# Notes about a row.
READ_AS = "read as "
SYSTEM_COLUMN = "system turns from a column"
JSON_TURNS = "turns from JSON text"
NOT_USED = "column not used: "
MAX_NOTED_COLUMNS = 20  # per row


@dataclass(slots=True)
class RowMessages:
    """A row converted to messages.

    Attributes:
        messages: the turns, not validated yet.
        tools: the available tools, not validated yet.
        domain: the row's domain, if it has one.
        notes: the format, other columns that were read, and unused columns, for counts.
    """

    messages: Any
    tools: Any
    domain: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowFormat:
    """One row format.

    Attributes:
        label: name of the format.
        columns: columns that it may read.
        fits: whether a row has this format.
        turns: converts a row to turns.
        used: the columns read from a row; by default all of `columns`.
    """

    label: str
    columns: frozenset[str]
    fits: Callable[[ChatRow], bool]
    turns: Callable[[ChatRow], Any]
    used: Callable[[ChatRow], Collection[str]] | None = None


def read_row(row: ChatRow, row_format: str = AUTO, ignored_keys: Collection[str] = ()) -> RowMessages:
    """Read a row as messages.

    Args:
        row: one sample of a dataset; a None column counts as missing.
        row_format: a key of `FORMATS`, or "auto".
        ignored_keys: message keys to ignore.

    Raises:
        ConversationError: the row does not have the format, or a column cannot be read.
    """
    if type(row) is not dict and not isinstance(row, Mapping):  # checking the base class takes longer
        raise ConversationError(f"a sample must be an object, got {type(row).__name__}")
    turns = row.get(TURN_LISTS[0])
    if isinstance(turns, list) and row.keys() <= PLAIN_COLUMNS and row_format == AUTO and not ignored_keys:  # most rows
        return RowMessages(turns_of(turns), row.get(TOOL_COLUMNS[0]), None, PLAIN_NOTES)
    given = {key: value for key, value in row.items() if value is not None}
    check_columns(given)
    found = FORMATS[_detected(given) if row_format == AUTO else row_format]
    if not found.fits(given):
        raise ConversationError(f"the row is not in the format {found.label} (keys: {key_list(row)})")
    messages = found.turns(given)
    if row_format == AUTO:
        check_turn_lists(given)
        if all(given.get(side) for side in ("chosen", "rejected")) and _asks(messages):
            raise ConversationError(PREFERENCE)
    if ignored_keys:
        messages = without_keys(messages, ignored_keys)
    notes = [f"{READ_AS}{found.label}"]
    system = optional_text(one_of(given, SYSTEM_COLUMNS), "the system column")
    if system is not None and system.strip():
        messages = with_system(messages, system)
        notes.append(SYSTEM_COLUMN)
    if any(json_turns(given.get(column)) for column in found.columns):
        notes.append(JSON_TURNS)
    notes += unused_columns(given, found.columns if found.used is None else found.used(given))
    domain = given.get("domain")
    return RowMessages(messages, one_of(given, TOOL_COLUMNS), None if domain is None else str(domain), tuple(notes))


def check_columns(row: ChatRow) -> None:
    """Refuse rows with images, audio or template settings.

    Raises:
        ConversationError: naming the column.
    """
    for column in row:
        if column in REFUSED_COLUMNS and row[column]:
            raise ConversationError(f"column {column!r} has content: {REFUSED_COLUMNS[column]}")


def unused_columns(row: ChatRow, used: Collection[str]) -> list[str]:
    """A note for every unread column."""
    names = [key for key in row if key not in used and key not in CONTEXT_COLUMNS]
    return [f"{NOT_USED}{quoted(str(name))[1:-1]}" for name in names[:MAX_NOTED_COLUMNS]]


def one_of(row: ChatRow, columns: Collection[str]) -> Any:
    """The value of the only non-empty column among these.

    Raises:
        ConversationError: two of them are not empty.
    """
    given = [column for column in columns if row.get(column)]
    for other in given[1:]:
        if row[given[0]] != row[other]:
            raise ConversationError(f"columns {given[0]!r} and {other!r} say different things: remove one")
    return row[given[0]] if given else None


def check_turn_lists(row: ChatRow, columns: Collection[str] = TURN_LISTS) -> None:
    """Refuse a row with two conversations, one of which would be ignored.

    Raises:
        ConversationError: two of the columns hold different turns.
    """
    if sum(bool(row.get(column)) for column in columns) < 2:
        return
    read = [(column, turns_of(row.get(column))) for column in columns]
    given = [(column, turns) for column, turns in read if turns and isinstance(turns, list)]
    for column, turns in given[1:]:
        if turns != given[0][1]:
            raise ConversationError(
                f"columns {given[0][0]!r} and {column!r} hold different conversations: remove one, or name the one that is meant "
                "in the source's settings"
            )


def _asks(messages: Any) -> bool:
    """Whether the last turn asks for an answer."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, Mapping) and last.get("role") in ("user", "tool")


def _detected(row: ChatRow) -> str:
    """Detect the format of a row from its columns."""
    for name, found in FORMATS.items():
        if found.fits(row):
            if any(is_verdict(row.get(column), row) for column in VERDICT_COLUMNS):
                raise ConversationError(SINGLE_VERDICTS)
            return name
    if "chosen" in row and "rejected" in row:
        raise ConversationError(PREFERENCE)
    hint = next(
        (did_you_mean(key, TURN_LISTS) for key in row if isinstance(key, str) and did_you_mean(key, TURN_LISTS)), ""
    )
    if "text" in row and not hint:
        hint = "; a column of plain text is for CurriculumDataModule"
    raise ConversationError(f"no 'messages' key (keys: {key_list(row)}), nor those of another chat format{hint}")


def is_verdict(label: Any, row: ChatRow) -> bool:
    """Whether a label rates an answer as good or bad, rather than naming its kind."""
    return isinstance(label, bool) or (isinstance(label, int) and label in (0, 1) and "prompt" in row)


def _alpaca(row: ChatRow) -> list[dict[str, Any]]:
    """Earlier rounds, then the instruction followed by its input, and the answer."""
    asked = [*history_turns(row), user(instruction_text(row))]
    answer = one_of(row, ("output", "response")) or ""
    if not isinstance(answer, str):
        raise ConversationError(f"the output must be a text, got {type(answer).__name__}")
    return [*asked, assistant(answer)]


def instruction_text(row: ChatRow) -> str:
    """An instruction followed by its input.

    Raises:
        ConversationError: one of them is not a text.
    """
    texts = []
    for column in ("instruction", "input"):
        if (text := optional_text(row.get(column), column)) is not None and text.strip():
            texts.append(text)
    return "\n".join(texts)


def _prompt_completion(row: ChatRow) -> list[Any]:
    """Prompt and completion; assistant turns of the prompt are not trained on, as in TRL."""
    prompt = prompt_turns(row["prompt"], "prompt")
    completion = turns_of(row["completion"])
    if isinstance(completion, str):
        completion = [assistant(completion.removeprefix(" ") if is_dialogue(row["prompt"]) else completion)]
    elif not isinstance(completion, list):
        raise ConversationError(f"completion must be a text or a list of messages, got {type(completion).__name__}")
    return [*untrained(prompt), *completion]


def _rounds(row: ChatRow) -> list[tuple[str, str]]:
    """The pairs of question and answer columns in a row."""
    return [columns for columns in SINGLE_ROUNDS if columns[0] in row and columns[1] in row]


def _single_round(row: ChatRow) -> list[Any]:
    """Earlier rounds, the question (a text or messages), and the answer."""
    questions, answers = (tuple(dict.fromkeys(columns)) for columns in zip(*_rounds(row), strict=True))
    question, answer = one_of(row, questions), one_of(row, answers) or ""
    if not isinstance(answer, str):
        raise ConversationError(f"{' or '.join(answers)} must be a text, got {type(answer).__name__}")
    asked = turns_of(question)
    if not isinstance(asked, (str, list)):
        raise ConversationError(f"{' or '.join(questions)} must be a text, got {type(question).__name__}")
    turns = [user(asked)] if isinstance(asked, str) else untrained(asked)
    return [*history_turns(row), *turns, assistant(answer)]


def _has(*columns: str) -> Callable[[ChatRow], bool]:
    return lambda row: all(column in row for column in columns)


def _is_sharegpt_row(row: ChatRow) -> bool:
    return any(name in row for name in TURN_LISTS[1:])


FORMATS: dict[str, RowFormat] = {
    "messages": RowFormat(
        "messages",
        frozenset(TURN_LISTS[:1]),
        lambda row: "messages" in row and bool(row["messages"] or not any(map(row.get, TURN_LISTS[1:]))),
        lambda row: turn_list(row["messages"], "messages"),
    ),
    "sharegpt": RowFormat(
        "ShareGPT (conversations, from/value)",
        frozenset(TURN_LISTS[1:]),
        _is_sharegpt_row,
        lambda row: turn_list(one_of(row, TURN_LISTS[1:]) or [], "conversations"),
    ),
    "alpaca": RowFormat(
        "Alpaca (instruction, input, output)",
        frozenset(("instruction", "input", "output", "response", "history")),
        lambda row: "instruction" in row and ("output" in row or "response" in row),
        _alpaca,
    ),
    "prompt_completion": RowFormat(
        "prompt and completion",
        frozenset(("prompt", "completion")),
        _has("prompt", "completion"),
        _prompt_completion,
    ),
    "question_answer": RowFormat(
        "question and answer",
        frozenset((*(column for columns in SINGLE_ROUNDS for column in columns), "history")),
        lambda row: bool(_rounds(row)),
        _single_round,
        lambda row: {"history"}.union(*_rounds(row)),
    ),
}
PLAIN_COLUMNS = frozenset((TURN_LISTS[0], TOOL_COLUMNS[0]))
PLAIN_NOTES = (f"{READ_AS}{FORMATS['messages'].label}",)
# All columns that reading a row may use, for sources that read single columns.
ROW_COLUMNS = frozenset(
    (
        *(column for found in FORMATS.values() for column in found.columns),
        *CONTEXT_COLUMNS, *REFUSED_COLUMNS, *VERDICT_COLUMNS, "chosen", "rejected",
    )
)  # fmt: skip
