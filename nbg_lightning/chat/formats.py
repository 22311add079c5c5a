"""Formats of public chat data: each row is read as messages, by the keys that it has.

* messages: ``messages``: a list of ``{"role", "content", …}``
* sharegpt: ``conversations``: a list of ``{"from", "value"}``
* alpaca: ``instruction``, perhaps ``input`` and ``history``, and ``output`` or ``response``
* prompt_completion: ``prompt`` and ``completion``, as texts or as messages
* question_answer: ``question``, ``query`` or ``prompt`` with ``answer`` or ``response``; ``input`` with ``output``

Beside them: `system` (or `system_prompt`) becomes the system turn; `tools` (or `functions`) are what may be called. A list of
turns may have either kind of turns under either name, and may be JSON text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from nbg_lightning.chat.values import ConversationError, did_you_mean, key_list, optional_text, quoted, read_json

AUTO = "auto"
TURN_LISTS = ("messages", "conversations", "conversation")
SYSTEM_COLUMNS = ("system", "system_prompt")
TOOL_COLUMNS = ("tools", "functions")
CONTEXT_COLUMNS = (*SYSTEM_COLUMNS, *TOOL_COLUMNS, "domain")
SHAREGPT_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response"), "tool"),
    "system": "system",
    "function_call": "assistant",
}
# (question, answer) columns of rows with a single round, most telling first.
SINGLE_ROUNDS = (
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "answer"),
    ("query", "response"),
    ("input", "output"),
)
# Columns of other tasks: a row that has one of them is not what it looks like.
REFUSED_COLUMNS = {
    **dict.fromkeys(("images", "image", "videos", "video", "audios", "audio"), "only text is supported"),
    "chat_template_kwargs": "settings of a template are the datamodule's, not a row's; remove the column",
}
PREFERENCE = "the row has chosen and rejected answers: give it to a pair source and PreferenceDataModule"
SINGLE_VERDICTS = (
    "the row has one answer with a label (KTO), and training on it would train on bad answers too: keep the good ones, or make "
    "pairs of chosen and rejected"
)

_JSON_TURNS = re.compile(r'\s*\[\s*\{\s*"(?:role|from|content|value)"\s*:')  # what a list of turns begins with
SPEAKERS = ("Human", "Assistant")
RESULT_OPEN, RESULT_CLOSE = "<tool_response>", "</tool_response>"
# Notes of a row.
READ_AS = "read as "
SYSTEM_COLUMN = "system turns from a column"
JSON_TURNS = "turns from JSON text"
NOT_USED = "column not used: "
MAX_NOTED_COLUMNS = 20  # of a row

Row = Mapping[str, Any]


@dataclass(slots=True)
class RowMessages:
    """What a row says in our words.

    Attributes:
        messages: the turns, not yet checked.
        tools: what may be called, not yet checked.
        domain: of the row, if it has one.
        notes: the format, what was read beside it and which columns were not used, for counts.
    """

    messages: Any
    tools: Any
    domain: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowFormat:
    """One format: how it is called, the columns that it reads, whether a row has it, and its turns."""

    label: str
    columns: frozenset[str]
    fits: Callable[[Row], bool]
    turns: Callable[[Row], Any]


def read_row(row: Row, row_format: str = AUTO, ignored_keys: Collection[str] = ()) -> RowMessages:
    """A row as messages.

    Args:
        row: one sample of a data set; a column that is None is missing.
        row_format: a key of `FORMATS`, or "auto".
        ignored_keys: keys of messages that are left out.

    Raises:
        ConversationError: the row has no such format, or a column that cannot be read.
    """
    if not isinstance(row, Mapping):
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
    if ignored_keys:
        messages = without_keys(messages, ignored_keys)
    notes = [f"{READ_AS}{found.label}"]
    system = optional_text(one_of(given, SYSTEM_COLUMNS), "the system column")
    if system is not None and system.strip():
        messages = with_system(messages, system)
        notes.append(SYSTEM_COLUMN)
    if any(json_turns(given.get(column)) for column in found.columns):
        notes.append(JSON_TURNS)
    notes += unused_columns(given, found.columns)
    domain = given.get("domain")
    return RowMessages(messages, one_of(given, TOOL_COLUMNS), None if domain is None else str(domain), tuple(notes))


def check_columns(row: Row) -> None:
    """Refuses rows with pictures, sounds or settings of a template.

    Raises:
        ConversationError: naming the column.
    """
    for column, why in REFUSED_COLUMNS.items():
        if row.get(column):
            raise ConversationError(f"column {column!r} has content: {why}")


def unused_columns(row: Row, used: Collection[str]) -> list[str]:
    """A note for every column that is not read."""
    names = [key for key in row if key not in used and key not in CONTEXT_COLUMNS]
    return [f"{NOT_USED}{quoted(str(name))[1:-1]}" for name in names[:MAX_NOTED_COLUMNS]]


def one_of(row: Row, columns: Collection[str]) -> Any:
    """The value of the one column of these that says something.

    Raises:
        ConversationError: two of them do.
    """
    given = [column for column in columns if row.get(column)]
    if len(given) > 1 and row[given[0]] != row[given[1]]:
        raise ConversationError(f"columns {given[0]!r} and {given[1]!r} say different things: remove one")
    return row[given[0]] if given else None


def _detected(row: Row) -> str:
    """The format of a row, by its columns."""
    for name, found in FORMATS.items():
        if found.fits(row):
            if name in ("prompt_completion", "question_answer") and is_verdict(row.get("label"), row):
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


def is_verdict(label: Any, row: Row) -> bool:
    """Whether a label says that an answer is good or bad, not what kind it is."""
    return isinstance(label, bool) or (isinstance(label, int) and label in (0, 1) and "prompt" in row)


def turn_list(value: Any, what: str) -> Any:
    """A column that must be a list of turns, from JSON text too; anything else is left to the parser."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = read_json(value, f"{what} are")
    return turns_of(value)


def json_turns(value: Any) -> list[Any] | None:
    """The turns that a text is as JSON; None for anything else, such as an answer that is some other JSON."""
    if not isinstance(value, str) or not _JSON_TURNS.match(value):
        return None
    try:
        turns = read_json(value, "turns are")
    except ConversationError:  # it only begins so
        return None
    are_turns = all(isinstance(turn, Mapping) and ("role" in turn or "from" in turn) for turn in turns)
    return turns if are_turns else None


def turns_of(value: Any) -> Any:
    """A list of turns, with ShareGPT's as messages; from JSON text, too. Any other text stays a text."""
    turns = json_turns(value)
    value = value if turns is None else turns
    if not isinstance(value, (list, tuple)):
        return value
    if not any(isinstance(turn, Mapping) and "from" in turn for turn in value):
        return list(value)
    return [message for turn in value for message in (_sharegpt_messages(turn) if _is_sharegpt(turn) else [turn])]


def _is_sharegpt(turn: Any) -> bool:
    return isinstance(turn, Mapping) and turn.get("from") is not None and turn.get("role") is None


def _sharegpt_messages(turn: Row) -> list[dict[str, Any]]:
    """A turn `{"from", "value"}` as messages: a `function_call` becomes a tool call, several results several messages."""
    sender, value = turn["from"], turn.get("value")
    role = SHAREGPT_ROLES.get(sender) if isinstance(sender, str) else None
    if role is None:
        raise ConversationError(f"unknown sender {quoted(sender)}; known are {', '.join(SHAREGPT_ROLES)}")
    message = {key: item for key, item in turn.items() if key not in ("from", "value", "role")}
    if sender != "function_call":
        if message.get("content") is not None:
            raise ConversationError("a turn has its text as 'value' and as 'content': remove one")
        contents = _results(value) if role == "tool" else [value]
        return [{**message, "role": role, "content": content} for content in contents]
    calls = read_json(value, "a function_call is") if isinstance(value, str) else value
    calls = calls if isinstance(calls, list) else [calls]
    return [{**message, "role": role, "content": "", "tool_calls": calls}]


def _results(value: Any) -> list[Any]:
    """A tool turn's results without the tags that Hermes data writes around each: the chat format writes them itself."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(RESULT_OPEN) and text.endswith(RESULT_CLOSE):
            inner = text[len(RESULT_OPEN) : -len(RESULT_CLOSE)]
            return [piece.strip("\n") for piece in re.split(rf"{RESULT_CLOSE}\s*{RESULT_OPEN}", inner)]
    return [value]


def without_keys(messages: Any, keys: Collection[str]) -> Any:
    """The messages without these keys."""
    if not isinstance(messages, (list, tuple)):
        return messages
    return [
        {key: value for key, value in message.items() if key not in keys} if isinstance(message, Mapping) else message
        for message in messages
    ]


def with_system(messages: Any, system: str) -> Any:
    """The messages, begun by a system turn.

    Raises:
        ConversationError: they begin with another one.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        return messages  # which the parser refuses
    first = messages[0]
    if isinstance(first, Mapping) and first.get("role") == "system":
        if first.get("content") == system:
            return messages
        raise ConversationError("the system column and the system turn say different things: remove one")
    return [{"role": "system", "content": system}, *messages]


def user(content: Any) -> dict[str, Any]:
    """A user turn."""
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    """An assistant turn."""
    return {"role": "assistant", "content": content}


def _alpaca(row: Row) -> list[dict[str, Any]]:
    """Earlier rounds, then the instruction with its input below it, and the answer."""
    messages = []
    history = row.get("history") or []
    if isinstance(history, str):
        history = read_json(history, "history is")
    if not isinstance(history, (list, tuple)):
        raise ConversationError(f"history must be a list of rounds, got {type(history).__name__}")
    for turn in history:
        if not isinstance(turn, (list, tuple)) or len(turn) != 2:
            raise ConversationError("history must be a list of rounds [question, answer]")
        messages += [user(turn[0]), assistant(turn[1])]
    answer = row["output"] if "output" in row else row["response"]
    if not isinstance(answer, str):
        raise ConversationError(f"the output must be a text, got {type(answer).__name__}")
    return [*messages, user(instruction_text(row)), assistant(answer)]


def instruction_text(row: Row) -> str:
    """An instruction with its input below it.

    Raises:
        ConversationError: one of them is no text.
    """
    texts = []
    for column in ("instruction", "input"):
        if (text := optional_text(row.get(column), column)) is not None and text.strip():
            texts.append(text)
    return "\n".join(texts)


def _prompt_completion(row: Row) -> list[Any]:
    """Prompt and completion; assistant turns of the prompt are not trained, as in TRL."""
    prompt = prompt_turns(row["prompt"], "prompt")
    completion = turns_of(row["completion"])
    if isinstance(completion, str):
        completion = [assistant(completion.removeprefix(" ") if is_dialogue(row["prompt"]) else completion)]
    elif not isinstance(completion, list):
        raise ConversationError(f"completion must be a text or a list of messages, got {type(completion).__name__}")
    untrained = [
        {"weight": 0, **turn} if isinstance(turn, Mapping) and turn.get("role") == "assistant" else turn
        for turn in prompt
    ]
    return [*untrained, *completion]


def prompt_turns(value: Any, what: str) -> list[Any]:
    """A prompt as turns: a list of messages, a dialogue written as text, or one user turn.

    Raises:
        ConversationError: it is neither a text nor a list.
    """
    value = turns_of(value)
    if isinstance(value, str):
        return dialogue_turns(value) if is_dialogue(value) else [user(value)]
    if isinstance(value, Mapping):
        return [value]
    if not isinstance(value, list):
        raise ConversationError(f"{what} must be a text or a list of messages, not {type(value).__name__}")
    return value


def is_dialogue(value: Any) -> bool:
    """Whether a text is a dialogue as Anthropic's HH data writes it."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and f"\n\n{SPEAKERS[1]}:" in value


def dialogue_turns(text: str) -> list[dict[str, Any]]:
    """The turns of a text "\\n\\nHuman: … \\n\\nAssistant: …"; an empty last one is left out: it is asked for.

    Example:
        >>> dialogue_turns("\\n\\nHuman: 2+2?\\n\\nAssistant: 4")
        [{'role': 'user', 'content': '2+2?'}, {'role': 'assistant', 'content': '4'}]
    """
    pieces = re.split(rf"(?:^|\n\n)({'|'.join(SPEAKERS)}):", "\n\n" + text.strip())
    turns = []
    for speaker, said in zip(pieces[1::2], pieces[2::2], strict=True):
        turns.append((user if speaker == SPEAKERS[0] else assistant)(said.strip()))
    return turns[:-1] if turns and turns[-1] == assistant("") else turns


def _single_round(row: Row) -> list[dict[str, Any]]:
    question, answer = next(columns for columns in SINGLE_ROUNDS if columns[0] in row and columns[1] in row)
    for column in (question, answer):
        if not isinstance(row[column], str):
            raise ConversationError(f"{column} must be a text, got {type(row[column]).__name__}")
    return [user(row[question]), assistant(row[answer])]


def _has(*columns: str) -> Callable[[Row], bool]:
    return lambda row: all(column in row for column in columns)


def _is_sharegpt_row(row: Row) -> bool:
    return any(name in row for name in TURN_LISTS[1:])


FORMATS: dict[str, RowFormat] = {
    "messages": RowFormat(
        "messages", frozenset(("messages",)), _has("messages"), lambda row: turn_list(row["messages"], "messages")
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
        frozenset(column for columns in SINGLE_ROUNDS for column in columns),
        lambda row: any(question in row and answer in row for question, answer in SINGLE_ROUNDS),
        _single_round,
    ),
}
PLAIN_COLUMNS = frozenset((TURN_LISTS[0], TOOL_COLUMNS[0]))
PLAIN_NOTES = (f"{READ_AS}{FORMATS['messages'].label}",)
# All columns that reading a row may look at, for sources that read single columns.
ROW_COLUMNS = frozenset(
    (
        *(column for found in FORMATS.values() for column in found.columns),
        *CONTEXT_COLUMNS, *REFUSED_COLUMNS, "label", "chosen", "rejected",
    )
)  # fmt: skip
