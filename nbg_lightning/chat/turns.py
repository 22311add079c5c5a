"""Lists of turns in the forms of public data: messages, ShareGPT turns, JSON text, dialogues as text, and histories."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from nbg_lightning.chat.values import ConversationError, quoted, read_json

ChatRow = Mapping[str, Any]

SHAREGPT_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response"), "tool"),
    "system": "system",
    "function_call": "assistant",
}
_JSON_TURNS = re.compile(r'[ \t\n\r]*\[\s*\{\s*"(?:role|from|content|value)"\s*:')  # beginning of a list of turns
_JSON_BEGINS = "[ \t\n\r"  # first characters of such a text, which rule out most texts
SPEAKERS = ("Human", "Assistant")
RESULT_OPEN, RESULT_CLOSE = "<tool_response>", "</tool_response>"


def turn_list(value: Any, what: str) -> Any:
    """A column that must be a list of turns, possibly as JSON text; anything else is left to the parser."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = read_json(value, f"{what} are")
    return turns_of(value)


def json_turns(value: Any) -> list[Any] | None:
    """The turns in a JSON text; None for anything else, such as an answer that is some other JSON."""
    if not isinstance(value, str) or value[:1] not in _JSON_BEGINS or not _JSON_TURNS.match(value):
        return None
    try:
        turns = read_json(value, "turns are")
    except ConversationError:  # it only begins like one
        return None
    are_turns = all(isinstance(turn, Mapping) and ("role" in turn or "from" in turn) for turn in turns)
    return turns if are_turns else None


def turns_of(value: Any) -> Any:
    """A list of turns, with ShareGPT's converted to messages, possibly from JSON text. Any other text is returned as it is."""
    if isinstance(value, str):
        if (turns := json_turns(value)) is None:
            return value
        value = turns
    if not isinstance(value, (list, tuple)):
        return value
    for turn in value:
        if (type(turn) is dict or isinstance(turn, Mapping)) and "from" in turn:  # the first check is fast
            break
    else:
        return list(value)
    return [message for turn in value for message in (_sharegpt_messages(turn) if _is_sharegpt(turn) else [turn])]


def _is_sharegpt(turn: Any) -> bool:
    return isinstance(turn, Mapping) and turn.get("from") is not None and turn.get("role") is None


def _sharegpt_messages(turn: ChatRow) -> list[dict[str, Any]]:
    """Convert a turn `{"from", "value"}` to messages: a `function_call` becomes a tool call, several results several messages."""
    sender, value = turn["from"], turn.get("value")
    role = SHAREGPT_ROLES.get(sender) if isinstance(sender, str) else None
    if role is None:
        raise ConversationError(f"unknown sender {quoted(sender)}; known are {', '.join(SHAREGPT_ROLES)}")
    message = {key: item for key, item in turn.items() if key not in ("from", "value", "role", "content")}
    if (content := turn.get("content")) is not None:
        if value is not None and value != content:
            raise ConversationError("a turn has its text as 'value' and as 'content': remove one")
        value = content
    if sender != "function_call":
        contents = _results(value) if role == "tool" else [value]
        return [{**message, "role": role, "content": content} for content in contents]
    calls = read_json(value, "a function_call is") if isinstance(value, str) else value
    calls = calls if isinstance(calls, list) else [calls]
    return [{**message, "role": role, "content": "", "tool_calls": calls}]


def _results(value: Any) -> list[Any]:
    """A tool turn's results without the tags around each in Hermes data, which the chat format writes itself."""
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
    """The messages with a system turn at the beginning.

    Raises:
        ConversationError: they begin with another one.
    """
    if not isinstance(messages, (list, tuple)) or not messages:
        return messages  # refused by the parser
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


def history_turns(row: ChatRow) -> list[dict[str, Any]]:
    """The earlier rounds of a row: its column ``history``, a list of [question, answer].

    Raises:
        ConversationError: it has another form.
    """
    history = row.get("history") or []
    if isinstance(history, str):
        history = read_json(history, "history is")
    if not isinstance(history, (list, tuple)):
        raise ConversationError(f"history must be a list of rounds, got {type(history).__name__}")
    turns = []
    for each in history:
        if not isinstance(each, (list, tuple)) or len(each) != 2:
            raise ConversationError("history must be a list of rounds [question, answer]")
        turns += [user(each[0]), assistant(each[1])]
    return turns


def untrained(prompt: list[Any]) -> list[Any]:
    """The turns of a prompt; its assistant turns get no loss, unless they request it."""
    return [
        {"weight": 0, **turn} if isinstance(turn, Mapping) and turn.get("role") == "assistant" else turn
        for turn in prompt
    ]


def prompt_turns(value: Any, what: str) -> list[Any]:
    """A prompt as turns: a list of messages, a dialogue as text, or one user turn.

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
    """Whether a text is a dialogue in the format of Anthropic's HH data."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and f"\n\n{SPEAKERS[1]}:" in value


def dialogue_turns(text: str) -> list[dict[str, Any]]:
    """The turns of a text "\\n\\nHuman: … \\n\\nAssistant: …"; an empty last turn, which asks for an answer, is dropped.

    Example:
        >>> dialogue_turns("\\n\\nHuman: 2+2?\\n\\nAssistant: 4")
        [{'role': 'user', 'content': '2+2?'}, {'role': 'assistant', 'content': '4'}]
    """
    pieces = re.split(rf"(?:^|\n\n)({'|'.join(SPEAKERS)}):", "\n\n" + text.strip())
    turns = []
    for speaker, said in zip(pieces[1::2], pieces[2::2], strict=True):
        turns.append((user if speaker == SPEAKERS[0] else assistant)(said.strip()))
    return turns[:-1] if turns and turns[-1] == assistant("") else turns
