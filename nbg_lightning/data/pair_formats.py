"""Formats of public preference data: each row is read as a prompt and two answers, depending on its keys.

Answers are in `chosen` and `rejected`, as texts, messages or ShareGPT turns, or as whole conversations, which begin with the
prompt. The prompt is read by one of these formats:

* prompt: ``prompt``: a text, messages, or a dialogue written as text
* sharegpt: ``conversations`` or ``messages``: a list of turns
* alpaca: ``instruction``, optionally ``input``
* question: ``question``, ``query`` or ``input``
  Earlier rounds before the instruction or question may be in ``history``.
* implicit: the common beginning of both conversations; also dialogues written as text (``\\n\\nHuman: …\\n\\nAssistant: …``)

In addition, `system` (or `system_prompt`) becomes the system turn, `tools` (or `functions`) are the available tools, and
`score_chosen` and `score_rejected` are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from nbg_lightning.chat.formats import (
    AUTO,
    CONTEXT_COLUMNS,
    JSON_TURNS,
    READ_AS,
    SINGLE_VERDICTS,
    SYSTEM_COLUMN,
    SYSTEM_COLUMNS,
    TOOL_COLUMNS,
    TURN_LISTS,
    check_columns,
    check_turn_lists,
    instruction_text,
    is_verdict,
    one_of,
    unused_columns,
)
from nbg_lightning.chat.turns import (
    assistant,
    dialogue_turns,
    history_turns,
    is_dialogue,
    json_turns,
    prompt_turns,
    turns_of,
    user,
    with_system,
    without_keys,
)
from nbg_lightning.chat.values import ConversationError, key_list, optional_text, quoted

SIDES = ("chosen", "rejected")
PAIR_FORMATS = {
    "prompt": ("prompt",),
    "sharegpt": TURN_LISTS,
    "alpaca": ("instruction", "input", "history"),
    "question": ("question", "query", "input", "history"),
    "implicit": (),
}
LABELS = {
    "prompt": "prompt, chosen, rejected",
    "sharegpt": "ShareGPT pairs (conversations, chosen, rejected)",
    "alpaca": "Alpaca pairs (instruction, chosen, rejected)",
    "question": "question, chosen, rejected",
    "implicit": "chosen and rejected conversations",
}
DIALOGUES = "chosen and rejected dialogues written as text (Human, Assistant)"
SCORE_COLUMNS = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
)
MAX_SCORE = 1e30
SCORES = "pairs with scores"
SWAPPED = "pairs whose chosen answer has the lower score"
PLAIN_COLUMNS = frozenset(("prompt", *SIDES))
_PLAIN_NOTES = (f"{READ_AS}{LABELS['prompt']}",)
# All columns that reading a pair may use, for sources that read single columns.
PAIR_COLUMNS = frozenset(
    (
        *SIDES, *(column for columns in (*PAIR_FORMATS.values(), *SCORE_COLUMNS) for column in columns),
        *CONTEXT_COLUMNS, "completion", "completions", "label", "images", "image",
    )
)  # fmt: skip


@dataclass(slots=True)
class PairTurns:
    """A row read into prompt, chosen and rejected; turns are not validated yet.

    Attributes:
        prompt: turns of the prompt; None if the answers are conversations that begin with it.
        chosen: turns of the better answer.
        rejected: turns of the worse answer.
        tools: the available tools.
        scores: scores of the chosen and the rejected answer, if the row has them.
        notes: the format, other columns that were read, and unused columns, for counts.
    """

    prompt: Any
    chosen: Any
    rejected: Any
    tools: Any
    scores: tuple[float, float] | None
    notes: tuple[str, ...]


def read_pair(row: Mapping[str, Any], pair_format: str = AUTO, ignored_keys: Collection[str] = ()) -> PairTurns:
    """Read a row as a prompt and two answers.

    Args:
        row: one sample of a dataset; a None column counts as missing.
        pair_format: a key of `PAIR_FORMATS`, or "auto".
        ignored_keys: message keys to ignore.

    Raises:
        ConversationError: an answer is missing, the row has another format, or a column cannot be read.
    """
    if type(row) is not dict and not isinstance(row, Mapping):
        raise ConversationError(f"a pair is invalid: of type {type(row).__name__}; give an object")
    if len(row) == 3 and pair_format == AUTO and (plain := _plain_texts(row)) is not None:
        return plain
    given = {key: value for key, value in row.items() if value is not None}
    is_plain = given.keys() <= PLAIN_COLUMNS  # like most rows; then there is nothing else to look for
    if not is_plain:
        check_columns(given)
    for side in SIDES:
        if side not in given:
            raise ConversationError(f"no {side!r} (keys: {key_list(given)}){_instead(given, side)}")
    chosen, rejected = (_answer(given[side], side) for side in SIDES)
    found = _detected(given, chosen) if pair_format == AUTO else pair_format
    if not is_plain:
        check_turn_lists(given)
    prompt = _prompt(given, found)
    if ignored_keys:
        chosen, rejected = without_keys(chosen, ignored_keys), without_keys(rejected, ignored_keys)
        prompt = without_keys(prompt, ignored_keys)
    notes = [f"{READ_AS}{DIALOGUES if found == 'implicit' and is_dialogue(given['chosen']) else LABELS[found]}"]
    if is_plain and not any(json_turns(value) for value in given.values() if type(value) is str):
        return PairTurns(prompt, chosen, rejected, None, None, tuple(notes))
    system = _of_one(given, SYSTEM_COLUMNS)
    if system is not None and (system := optional_text(system, "the system column")) is not None and system.strip():
        notes.append(SYSTEM_COLUMN)
        chosen, rejected = (with_system(a, system) if prompt is None or _is_whole(a) else a for a in (chosen, rejected))
        prompt = None if prompt is None else with_system(prompt, system)
    scores, score_columns = _scores(given)
    if scores is not None:
        notes += [SCORES] if scores[0] >= scores[1] else [SCORES, SWAPPED]
    read = (*SIDES, *PAIR_FORMATS[found])
    if any(json_turns(value) for column in read if type(value := given.get(column)) is str):
        notes.append(JSON_TURNS)
    notes += unused_columns(given, (*read, *score_columns))
    return PairTurns(prompt, chosen, rejected, _of_one(given, TOOL_COLUMNS), scores, tuple(notes))


def _of_one(row: Mapping[str, Any], columns: tuple[str, ...]) -> Any:
    """Fast version of `one_of` for rows without any of the columns."""
    return None if row.keys().isdisjoint(columns) else one_of(row, columns)


def _plain_texts(row: Mapping[str, Any]) -> PairTurns | None:
    """A row of three plain texts, like most rows: no dialogue and no turns as JSON."""
    texts = [row.get(column) for column in ("prompt", *SIDES)]
    for text in texts:
        if type(text) is not str or not text or text.startswith(("Human:", "[")) or text[0].isspace():
            return None
    prompt, chosen, rejected = texts
    return PairTurns([user(prompt)], [assistant(chosen)], [assistant(rejected)], None, None, _PLAIN_NOTES)


def _instead(row: Mapping[str, Any], side: str) -> str:
    """Advice for a row without an answer: what the row is, or where the answer may be."""
    if like := next((key for key in row if isinstance(key, str) and side in key.split("_")), None):
        return f"; set {side}_field to {quoted(like)} if that is it"
    if is_verdict(row.get("label"), row) and ("completion" in row or "response" in row):
        return f"; {SINGLE_VERDICTS}"
    if isinstance(row.get("completions"), (list, tuple)):
        return "; the row has several rated completions: make pairs of them first, such as the best and another one"
    if any(name in row for name in TURN_LISTS) and not any(str(key).startswith("reject") for key in row):
        return "; the row is a conversation; give it to a chat source and ChatDataModule"
    return ""


def _answer(value: Any, side: str) -> Any:
    """An answer, or a whole conversation, as turns."""
    if type(value) is not list and is_dialogue(value):
        return dialogue_turns(value)
    value = turns_of([value] if isinstance(value, Mapping) else value)
    if isinstance(value, str):
        return [assistant(value)]
    if not isinstance(value, list):
        raise ConversationError(f"{side} must be a text or a list of messages, not {type(value).__name__}")
    return value


def _is_whole(turns: list[Any]) -> bool:
    """Whether an answer begins with its prompt."""
    return (
        bool(turns)
        and (type(turns[0]) is dict or isinstance(turns[0], Mapping))
        and turns[0].get("role") in ("system", "user")
    )


def _detected(row: Mapping[str, Any], chosen: list[Any]) -> str:
    if "prompt" in row:
        return "prompt"
    if not _is_whole(chosen):
        for name, columns in PAIR_FORMATS.items():
            if any(row.get(column) for column in (columns[:1] if name == "alpaca" else columns) if column != "history"):
                return name
    return "implicit"


def _prompt(row: Mapping[str, Any], found: str) -> Any:
    """The turns of the prompt."""
    if found == "implicit":
        return None
    if found == "alpaca":
        return [*history_turns(row), user(instruction_text(row))]
    columns = [column for column in PAIR_FORMATS[found] if column in row and column != "history"]
    if not columns:
        raise ConversationError(f"the row is not in the format {LABELS[found]} (keys: {key_list(row)})")
    if found == "sharegpt":
        return prompt_turns(next((row[column] for column in columns if row[column]), []), columns[0])
    asked = prompt_turns(one_of(row, columns) or "", " or ".join(columns))
    return [*history_turns(row), *asked] if found == "question" else asked


def _scores(row: Mapping[str, Any]) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """The scores of both answers, and the columns they come from."""
    for columns in SCORE_COLUMNS:
        if columns[0] in row and columns[1] in row:
            for column in columns:
                value = row[column]
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MAX_SCORE:
                    raise ConversationError(f"{column} is invalid: {quoted(value)}; give a finite number")
            return (float(row[columns[0]]), float(row[columns[1]])), columns
    return None, ()
