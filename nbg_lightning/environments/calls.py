"""Parsing a model's turn: its reasoning, its calls in the common chat formats, and errors in them."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from nbg_lightning.chat.tool_calls import ToolCall
from nbg_lightning.chat.values import ConversationError, read_json
from nbg_lightning.engines.chat import Answer
from nbg_lightning.environments.environment import ModelTurn

MAX_CALLS = 32  # per turn; more is an endless repetition
MAX_CHARACTERS = 200_000  # of a turn that are searched for calls
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_BLOCK = re.compile(f"{_OPEN}(.*?)(?:{_CLOSE}|(?={_OPEN})|$)", re.DOTALL)
_PYTHON_TAG = "<|python_tag|>"  # before calls of Llama 3


class ReadTurn(NamedTuple):
    """A parsed turn, and the reason if its calls cannot be parsed."""

    turn: ModelTurn
    problem: str | None = None


def read_turn(answer: Answer) -> ReadTurn:
    """Parse a turn of the model.

    Calls are in ``<tool_call>`` tags (Hermes, Qwen, the paper's format), or the whole turn is a call, as in Llama 3.

    Example:
        >>> from nbg_lightning.engines.protocol import Completion
        >>> text = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
        >>> read_turn(Answer(Completion((), (), "stop", 0, 0, 0), text, None, text)).turn.calls[0].arguments
        {'a': 1}
    """
    final = answer.final
    if final is None:
        return ReadTurn(ModelTurn(answer.text, None, answer.text), "the reasoning has no end")
    if len(final) > MAX_CHARACTERS:
        return ReadTurn(ModelTurn(answer.text, answer.reasoning, final), f"the turn has {len(final):,} characters")
    blocks, content = _blocks(final)
    if len(blocks) > MAX_CALLS:
        problem = f"the turn has {len(blocks)} calls, and {MAX_CALLS} are read"
        return ReadTurn(ModelTurn(answer.text, answer.reasoning, final), problem)
    calls = []
    for block in blocks:
        try:
            calls.append(ToolCall.parse(read_json(block, "a call is")))
        except ConversationError as error:
            return ReadTurn(ModelTurn(answer.text, answer.reasoning, final), str(error))
    numbered = (ToolCall(call.name, call.arguments, f"call{number:05d}") for number, call in enumerate(calls))
    return ReadTurn(ModelTurn(answer.text, answer.reasoning, content, tuple(numbered)))


def _blocks(text: str) -> tuple[list[str], str]:
    """The texts of the calls, and the remaining text."""
    if _OPEN in text:
        return [found.strip() for found in _BLOCK.findall(text)], _BLOCK.sub("", text).strip("\n")
    whole = text.strip().removeprefix(_PYTHON_TAG).strip()
    if whole.startswith("{") and whole.endswith("}") and _is_call(whole):
        return [whole], ""
    return [], text


def _is_call(text: str) -> bool:
    """Whether a turn that is a single JSON object is a call; it may also be an answer."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and isinstance(found.get("name"), str) and len(found.keys() & _ARGUMENTS) == 1


_ARGUMENTS = {"arguments", "parameters"}
